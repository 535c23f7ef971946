// The page: what is shown when, and one drawing for whatever has happened since the last one.

import { ChatView } from "./chat.js";
import { $, attr, explains, hideTip, say, show, sweepTip, text } from "./dom.js";
import { EventsView } from "./eventlist.js";
import { Feed } from "./feed.js";
import { hasKey, json, setKey } from "./http.js";
import { Overview } from "./overview.js";
import { schemeChanged } from "./paint.js";
import { Panel } from "./panel.js";
import { Store } from "./store.js";
import { clock } from "./words.js";

const CHANGED_MS = 100; // between two drawings, however much happens
const IDLE_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 2000 : 500; // time goes on by itself

const store = new Store();
const panel = new Panel(store, (model) => {
  panel.close();
  chat.choose(model);
  location.hash = "#chat";
});
const overview = new Overview(store, (model) => panel.open(model));
const eventList = new EventsView(store, (model) => panel.open(model));
const chat = new ChatView(store);
const views = { overview, events: eventList, chat };
const titles = { overview: "Overview", events: "Events", chat: "Chat" };

let status = { state: "connecting" };
const feed = new Feed(store, onStatus, say);

// --- which view -----------------------------------------------------------------------------------------------------

function shown() {
  const name = location.hash.slice(1);
  return name in views ? name : "overview";
}

function onHash() {
  if (location.hash === "#main") return;
  const name = shown();
  for (const each of Object.keys(views)) show($(`view-${each}`), each === name);
  for (const link of document.querySelectorAll(".bar nav a")) attr(link, "aria-current", link.hash === `#${name}` ? "page" : null);
  text($("title"), titles[name]);
  document.title = `${titles[name]} · vllama`;
  hideTip();
  draw(true);
}

// --- the line to the server -----------------------------------------------------------------------------------------

const WORDS = { connecting: "Connecting", live: "Live", lost: "No server", key: "Locked", off: "Off" };

function onStatus(next) {
  status = next;
  attr(document.body, "data-state", next.state);
  text($("status"), WORDS[next.state]);
  if (next.state === "key") askForKey(next.message);
  if (next.state === "live") {
    if ($("key").open) $("key").close();
    chat.refresh();
    json("/control/info").then((info) => overview.about(info)).catch(() => undefined);
  }
  bannerNow();
  draw(true);
}

function bannerNow() {
  const { state, message, retryAt, at } = status;
  show($("banner"), state === "lost" || state === "key" || state === "off");
  attr($("banner"), "data-state", state);
  if (state === "lost") {
    const left = Math.max(Math.ceil((retryAt - performance.now()) / 1000), 0);
    const old = at ? ` What you see is as of ${clock(at)}.` : "";
    text($("banner-text"), `${message}${old} Trying again${left > 1 ? ` in ${left} s` : ""}.`);
  } else if (state === "key") text($("banner-text"), message);
  else if (state === "off") text($("banner-text"), message);
  text($("banner-retry"), state === "key" ? "Give a key" : "Try now");
}

$("banner-retry").addEventListener("click", () => (status.state === "key" ? askForKey(status.message) : feed.retry()));

function askForKey(message) {
  text($("key-message"), hasKey() ? `The key did not open it. ${message}` : message);
  text($("key-error"), "");
  if (!$("key").open) $("key").showModal();
  $("key-input").value = "";
  $("key-input").focus();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = $("key-input").value.trim();
  if (!/^[!-~]+$/.test(key)) {
    text($("key-error"), "A key is printable ASCII without spaces.");
    return;
  }
  setKey(key);
  $("key").close();
  feed.retry();
});

// --- the scheme -----------------------------------------------------------------------------------------------------

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

function scheme() {
  return root.dataset.theme ?? (dark.matches ? "dark" : "light");
}

function nameScheme() {
  const other = scheme() === "dark" ? "light" : "dark";
  text($("theme"), other === "dark" ? "☾" : "☀");
  attr($("theme"), "aria-label", `Use the ${other} scheme`);
  schemeChanged();
  draw(true);
}

$("theme").addEventListener("click", () => {
  root.dataset.theme = scheme() === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("vllama-theme", root.dataset.theme);
  } catch {
    // it holds for this page alone
  }
  nameScheme();
});
explains($("theme"), () => [$("theme").getAttribute("aria-label")]);
dark.addEventListener("change", nameScheme);

// --- drawing --------------------------------------------------------------------------------------------------------

const drawn = { at: 0, version: -1, count: 0 };

function draw(now = false) {
  if (now) Object.assign(drawn, { at: 0, version: -1 });
}

function frame() {
  requestAnimationFrame(frame);
  const since = performance.now() - drawn.at;
  const changed = drawn.version !== store.version;
  if (since < CHANGED_MS || (!changed && since < IDLE_MS)) return;
  Object.assign(drawn, { at: performance.now(), version: store.version, count: drawn.count + 1 });
  const lost = status.state === "lost" || status.state === "key" ? status.at : 0;
  const moment = { now: store.now(), lost, live: status.state === "live", ready: store.server !== "" };
  if (status.state === "lost") bannerNow();
  views[shown()].update(moment);
  panel.update(moment);
  sweepTip();
}

addEventListener("hashchange", onHash);
addEventListener("resize", () => draw(true));
nameScheme();
onHash();
requestAnimationFrame(frame);
window.vllama = { store, drawn }; // for the curious, and for the tests
feed.run();
