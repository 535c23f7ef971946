// One model: what it is and does, the commands, why things went as they did, its engine's log.

import { $, attr, h, keyed, show, text } from "./dom.js";
import { json } from "./http.js";
import { LogTail } from "./logtail.js";
import { operate } from "./operate.js";
import { bytes, cannotChat, clock, phase, seconds } from "./words.js";

const ASKS_SHOWN = 20;
const WHYS = 12;

export class Panel {
  constructor(store, chat) {
    this.store = store;
    this.chat = chat;
    this.el = $("panel");
    this.model = null;
    this.phase = "";
    this.view = null;
    this.log = new LogTail();
    this.build();
    this.el.addEventListener("close", () => this.closed());
    this.el.addEventListener("click", (event) => event.target === this.el && this.close()); // beside it
  }

  build() {
    const button = (id, label, act, more = "") => h("button", { id, type: "button", class: more, onclick: act }, label);
    this.force = h("input", { type: "checkbox", id: "panel-force" });
    this.parts = {
      chip: h("span", { class: "chip" }, h("i", { class: "swatch phase" }), h("span", { id: "panel-phase" })),
      said: h("p", { class: "said", id: "panel-said", role: "status" }),
      facts: h("dl", { class: "facts" }),
      error: h("pre", { class: "error", tabindex: "0", "aria-label": "The last failure" }),
      asks: h("ul", { class: "rows", id: "panel-asks" }),
      whys: h("ol", { class: "rows", id: "panel-whys" }),
    };
    const none = (id, words) => h("p", { class: "hint", id }, words);
    this.el.append(h("div", { class: "inside" },
      h("header", { class: "head" }, h("h2", { id: "panel-name", tabindex: "-1" }), button("panel-close", "Close", () => this.close(), "quiet")),
      this.parts.chip,
      h("div", { class: "tools", role: "group", "aria-label": "Commands" },
        button("panel-start", "Start", () => this.run("start"), "primary"),
        button("panel-sleep1", "Sleep, level 1", () => this.run("sleep", 1)),
        button("panel-sleep2", "Sleep, level 2", () => this.run("sleep", 2)),
        button("panel-stop", "Stop", () => this.run("stop")),
        button("panel-chat", "Chat", () => this.chat(this.model.name))),
      h("label", { class: "check" }, this.force, h("span", {}, "Sleep cuts off what is in flight")),
      h("p", { class: "hint" }, "Level 1 keeps the weights in the host’s RAM, level 2 reads them again, stop ends the engine."),
      this.parts.said, this.parts.error, this.parts.facts,
      h("section", { "aria-labelledby": "asks-title" }, h("h3", { id: "asks-title" }, "Requests"), this.parts.asks, none("panel-asks-none", "None in flight, none waiting.")),
      h("section", { "aria-labelledby": "whys-title" }, h("h3", { id: "whys-title" }, "Why"), this.parts.whys, none("panel-whys-none", "Nothing to explain yet: it has not waited, gone or refused.")),
      h("section", { "aria-labelledby": "log-title" }, h("h3", { id: "log-title" }, "Engine log"), this.log.el)));
  }

  open(name) {
    this.model = this.store.model(name);
    this.phase = "";
    this.view = null;
    this.force.checked = false;
    text(this.parts.said, "");
    text($("panel-name"), name);
    this.parts.whys.replaceChildren();
    this.parts.asks.replaceChildren();
    if (!this.el.open) this.el.showModal();
    $("panel-name").focus();
    this.el.scrollTop = 0;
    this.log.open(name);
    this.update({ now: this.store.now(), live: true });
  }

  close() {
    this.el.close();
  }

  closed() {
    this.log.close();
    this.model = null;
  }

  async run(verb, level) {
    const { model } = this;
    text(this.parts.said, "");
    attr(this.parts.said, "data-tone", null);
    const more = verb === "sleep" ? { level, force: this.force.checked } : {};
    await operate(this.store, model, verb, more, (words, kind) => {
      if (this.model !== model) return;
      text(this.parts.said, words);
      attr(this.parts.said, "data-tone", kind === "error" ? "bad" : null);
    });
  }

  update({ now, live }) {
    if (!this.model) return;
    const model = (this.model = this.store.model(this.model.name)); // what is known may have been built anew
    const stamp = `${model.phase}${model.since}${live}`;
    if (stamp !== this.phase) {
      this.phase = stamp;
      this.refresh(model);
      this.log.again();
    }
    const { chip } = this.parts;
    chip.firstChild.className = `swatch phase ${model.phase}`;
    const since = model.since ? ` for ${seconds(Math.max(now - model.since, 0))}` : "";
    text(chip.lastChild, `${phase(model)}${since}${model.asked ? ` · ${model.asked}` : ""}`);
    text($("panel-start"), model.phase === "asleep" ? "Wake" : "Start");
    attr($("panel-start"), "disabled", model.phase === "awake");
    const up = ["awake", "draining", "waking", "starting"].includes(model.phase);
    for (const id of ["panel-sleep1", "panel-sleep2"]) attr($(id), "disabled", !up && !(model.phase === "asleep" && id === "panel-sleep2" && model.level === 1));
    attr($("panel-stop"), "disabled", model.phase === "stopped");
    attr($("panel-chat"), "disabled", Boolean(cannotChat(model.kind)));
    this.facts(model);
    this.asks(model, now);
  }

  /** What the journal's events do not carry: asked for when the phase changes. */
  async refresh(model) {
    try {
      const [ps, why] = await Promise.all([json("/control/ps"), json(`/debug/explain?model=${encodeURIComponent(model.name)}&limit=${WHYS}`)]);
      if (this.model !== model) return;
      this.view = ps.instances.find((one) => one.model === model.name) ?? null;
      const whys = why.explanations.reverse();
      keyed(this.parts.whys, whys, (one) => `${one.kind}${one.at}${one.model}`, () => h("li"), (li, one) => text(li, one.words));
      show($("panel-whys-none"), !whys.length);
    } catch {
      // the banner says what is wrong with the server
    }
  }

  facts(model) {
    const { view } = this;
    const leases = [...this.store.books.leases.values()].filter((lease) => lease.model === model.name && lease.state !== "waiting");
    const label = (id) => this.store.books.devices.get(id)?.label ?? id;
    const rows = [
      ["Does", cannotChat(model.kind) || (model.kind === "chat" ? "generates text" : model.kind)],
      ["Context", model.context ? `${model.context} tokens` : ""],
      ["Names", model.aliases.join(", ")],
      ["Memory", leases.map((lease) => `${bytes(lease.bytes)} on ${lease.devices.map(label).join(", ")}`).join("; ")],
      ["Copy in host RAM", this.store.books.copies.has(model.name) ? bytes(this.store.books.copies.get(model.name)) : ""],
      ["Engine", view?.pid ? `pid ${view.pid}, port ${view.port}, by ${view.mode}${view.mode_reason ? ` (${view.mode_reason})` : ""}` : ""],
      ["Last used", view?.last_used ? clock(view.last_used) : ""],
      ["Needs a restart for", view?.restart_needed?.join(", ") ?? ""],
      ["Notes", view?.notes?.join("; ") ?? ""],
      ["Problem", model.problem],
    ].filter(([, value]) => value);
    keyed(this.parts.facts, rows, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd")), (el, [, value]) => text(el.lastChild, value));
    const error = model.phase === "failed" || model.phase === "stopped" ? view?.error ?? "" : "";
    text(this.parts.error, error);
    show(this.parts.error, error !== "");
  }

  asks(model, now) {
    const all = [
      ...[...model.serving].map(([ask, one]) => ({ ask, ...one, what: "in flight" })),
      ...[...model.waiting].map(([ask, one]) => ({ ask, ...one, what: "waiting" })),
    ];
    const shown = all.slice(0, ASKS_SHOWN);
    keyed(this.parts.asks, shown, (one) => one.ask, () => h("li", {}, h("span", { class: "what" }), h("span", { class: "who" }), h("time")), (li, one) => {
      text(li.children[0], one.what);
      text(li.children[1], one.request || `request ${one.ask}`);
      text(li.children[2], seconds(Math.max(now - one.at, 0)));
    });
    show($("panel-asks-none"), !all.length);
    if (all.length > ASKS_SHOWN) this.parts.asks.append(h("li", { class: "hint" }, `and ${all.length - ASKS_SHOWN} more`));
  }
}
