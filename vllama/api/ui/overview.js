// The overview: figures of now, the devices' memory, the models' timeline, the swaps.

import { KINDS } from "./books.js";
import { Chart } from "./chart.js";
import { $, attr, explaining, explains, h, keyed, show, text } from "./dom.js";
import { Timeline } from "./timeline.js";
import { bytes, clock, count, eviction, evictionShort, phase, seconds, short } from "./words.js";

const HOLDERS = 4;
const SWAPS_SHOWN = 60;
const BANDS = [
  { label: "awake", colour: "awake" },
  { label: "changing", colour: "rising", hatched: true },
  { label: "asleep", colour: "asleep" },
  { label: "others", colour: "others", hatched: true },
];
const UP = new Set(["awake", "draining"]);
const MOVING = new Set(["queued", "starting", "waking", "falling_asleep", "stopping"]);

export class Overview {
  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.timeline = new Timeline(store, open);
    this.cards = new Map();
    this.cache = "";
    this.requests = null;
    const legend = [...KINDS.map(({ key, label }) => [key, label]), ["free", "Free"]];
    $("memory-legend").append(...legend.map(([key, label]) => h("li", {}, h("i", { class: `swatch ${key}` }), label)));
    $("window").addEventListener("change", () => (store.version += 1));
  }

  about(info) {
    this.cache = info.config?.transformers_cache ?? "";
    this.timeline.cache = this.cache;
  }

  update({ now, lost, ready }) {
    const length = Number($("window").value);
    const marks = lost ? [...this.store.marks, { at: lost, until: now }] : this.store.marks;
    const span = { from: now - length, to: now, end: lost || now, marks: marks.filter((mark) => mark.until > now - length) };
    // Time stands still in the rows while a mark's reason is read: it must not move away from under the pointer.
    this.held = explaining($("models")) ? (this.held ?? span) : null;
    this.stats(span);
    this.devices(span, ready);
    this.timeline.update(this.held ?? span, ready);
    this.swaps(now, ready);
  }

  stats(span) {
    const models = [...this.store.models.values()];
    const having = (test) => models.filter(test).length;
    let longest = 0;
    for (const model of models) for (const ask of model.waiting.values()) longest = Math.max(longest, span.end - ask.at);
    const failed = having((m) => m.phase === "failed");
    const recent = this.store.swaps.filter((swap) => swap.at >= span.from).length;
    const figures = [
      ["Awake", having((m) => UP.has(m.phase)), `of ${count(models.length, "model")}`, ""],
      ["Asleep", having((m) => m.phase === "asleep"), "ready to wake", ""],
      ["Changing", having((m) => MOVING.has(m.phase)), "up or down", ""],
      ["In flight", this.store.inFlight, this.store.inFlight === 1 ? "request" : "requests", ""],
      ["Waiting", this.store.waiting, longest ? `the longest ${seconds(longest)}` : "nobody", this.store.waiting ? "warn" : ""],
      ["Swaps", recent, `in ${$("window").selectedOptions[0].textContent}`, ""],
      ["Failed", failed, failed ? "look at them" : "none", failed ? "bad" : ""],
    ];
    keyed($("stats"), figures, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd", {}, h("b"), " ", h("small"))),
      (el, [, value, hint, tone]) => {
        text(el.querySelector("b"), String(value));
        text(el.querySelector("small"), hint);
        attr(el, "data-tone", tone || null);
      });
  }

  devices(span, ready) {
    const { books, models } = this.store;
    const shown = [...books.devices.values()];
    const cuda = shown.some((device) => device.kind === "cuda");
    keyed($("devices"), [...shown, ...(ready ? this.extras(cuda) : [])], (item) => item.id, (item) => this.card(item),
      (el, item) => (item.draw ? item.draw(el, span) : this.device(el, item, span, models)));
    if (!ready && !shown.length) text($("devices"), "");
  }

  /** Cards that are of no device: copies of weights in the host's RAM, requests. */
  extras(cuda) {
    const { books, store } = { books: this.store.books, store: this.store };
    const ram = {
      id: "ram", title: "Host RAM", name: "level-1 copies", bands: [{ label: "copies", colour: "asleep" }], value: bytes,
      draw: (el, span) => {
        const used = books.copiesNow();
        this.summary(el, `${bytes(used)} of ${bytes(books.copiesMax)}`);
        this.bar(el, [["asleep", used]], books.copiesMax);
        el.chart.draw(books.copiesSeries, books.copiesMax, span.from, span.end, span.marks);
        this.holders(el, [...books.copies].map(([model, size]) => ({ model, size, what: "copy" })), "No copies: nobody has slept at level 1.");
      },
    };
    const traffic = {
      id: "traffic", title: "Requests", name: "",
      bands: [{ label: "in flight", colour: "awake" }, { label: "waiting", colour: "rising", hatched: true }], value: String,
      draw: (el, span) => {
        const { inFlight, waiting } = store;
        const top = Math.max(4, ...store.traffic.filter((s) => s.values && s.at > span.from).map((s) => s.values[0] + s.values[1]));
        this.summary(el, `${inFlight} in flight, ${waiting} waiting`);
        this.bar(el, [["awake", inFlight], ["changing", waiting]], Math.max(top, inFlight + waiting));
        el.chart.draw(store.traffic, top, span.from, span.end, span.marks);
        const busy = [...store.models.values()].filter((m) => m.serving.size || m.waiting.size);
        busy.sort((a, b) => b.waiting.size - a.waiting.size || b.serving.size - a.serving.size);
        const rows = busy.map((m) => ({ model: m.name, told: [m.serving.size && `${m.serving.size} in flight`, m.waiting.size && `${m.waiting.size} waiting`].filter(Boolean).join(", ") }));
        this.holders(el, rows, "Nobody asks for anything.");
      },
    };
    return cuda || books.copies.size ? [ram, traffic] : [traffic];
  }

  card(item) {
    const title = item.title ?? item.label;
    const chart = new Chart({ label: `${title} over time`, bands: item.bands ?? BANDS, value: item.value ?? bytes });
    const el = h("article", { class: "card device", "aria-label": title },
      h("header", {}, h("h3", {}, title), h("p", { class: "name" }, item.name || ""), h("p", { class: "sum" })),
      h("div", { class: "stack", role: "img" }), chart.el, h("ul", { class: "holders" }), h("p", { class: "hint foot" }));
    el.chart = chart;
    return el;
  }

  device(el, device, span, models) {
    const { books } = this.store;
    const parts = books.parts(device, models);
    const used = parts.reduce((sum, value) => sum + value, 0);
    this.summary(el, `${bytes(used)} of ${bytes(device.total)}`);
    this.bar(el, KINDS.map(({ key }, i) => [key, parts[i]]), device.total);
    el.chart.draw(device.series, device.total, span.from, span.end, span.marks);
    const holders = books.on(device.id).map((lease) => {
      const model = models.get(lease.model);
      return { model: lease.model, size: lease.bytes, what: lease.state === "residue" ? "asleep" : model ? phase(model) : lease.state };
    });
    if (parts[3] > 0) holders.push({ model: "", size: parts[3], what: "others and vllama itself" });
    this.holders(el, holders, "Nobody holds any of it.");
    text(el.querySelector(".foot"), device.measuredAt ? `measured at ${clock(device.measuredAt)}` : "not measured yet");
  }

  summary(el, words) {
    text(el.querySelector(".sum"), words);
  }

  bar(el, parts, total) {
    const stack = el.querySelector(".stack");
    keyed(stack, parts, ([key]) => key, ([key]) => h("i", { class: `swatch ${key}` }), (part, [, size]) => {
      const width = `${total ? Math.min((size / total) * 100, 100) : 0}%`;
      if (part.style.width !== width) part.style.width = width;
    });
    const name = el.getAttribute("aria-label");
    attr(stack, "aria-label", `${name} now: ${el.querySelector(".sum").textContent}; ${parts.map(([key, n]) => `${key} ${el.chart.value(n)}`).join(", ")}`);
  }

  holders(el, rows, nobody) {
    rows.sort((a, b) => (b.size ?? 0) - (a.size ?? 0));
    const shown = rows.slice(0, HOLDERS);
    if (rows.length > HOLDERS) shown.push({ model: "", more: rows.length - HOLDERS });
    if (!rows.length) shown.push({ model: "", nobody });
    keyed(el.querySelector(".holders"), shown, (row) => `${row.model}|${row.nobody ? "none" : row.more ? "more" : row.what ?? ""}`,
      () => h("li", {}, h("span", { class: "who" }), h("span", { class: "what" }), h("span", { class: "size" })), (li, row) => {
        attr(li, "class", row.nobody ? "nobody" : null);
        text(li.children[0], row.model || (row.more ? `${row.more} more` : row.nobody ?? row.what));
        text(li.children[1], row.model ? row.what ?? "" : "");
        text(li.children[2], row.told ?? (row.size === undefined ? "" : bytes(row.size)));
      });
  }

  swaps(now, ready) {
    const latest = this.store.swaps.slice(-SWAPS_SHOWN).reverse();
    show($("swaps"), latest.length > 0);
    show($("swaps-empty"), ready && !latest.length);
    const label = (id) => this.store.books.devices.get(id)?.label ?? (id || "its device");
    keyed($("swaps"), latest, (swap) => swap.id, (swap) => {
      const why = h("button", { class: "why", type: "button" });
      explains(why, () => eviction(swap, label(swap.device)));
      why.addEventListener("click", () => this.open(swap.model));
      why.append(h("span", { class: "pair" }, h("b", {}, short(swap.model)), h("span", { class: "arrow", "aria-label": "made room for" }, "→"), h("b", {}, short(swap.by))),
        h("span", { class: "reason" }), h("time", {}));
      return h("li", {}, why);
    }, (li, swap) => {
      text(li.querySelector(".reason"), evictionShort(swap, label(swap.device)));
      text(li.querySelector("time"), `${seconds(Math.max(now - swap.at, 0))} ago`);
    });
  }
}
