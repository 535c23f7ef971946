// Each model's phases over time, one row each; the swaps stand in them as marks that say why.

import { gapMark } from "./chart.js";
import { $, attr, explains, h, keyed, show, text } from "./dom.js";
import { nextStep, operate } from "./operate.js";
import { fresh, hatch, palette, ticks } from "./paint.js";
import { VirtualList } from "./vlist.js";
import { bytes, clock, eviction, PHASES, phase } from "./words.js";

const narrow = matchMedia("(max-width: 719px)");
const MARKS_MAX = 12; // of one row

/** How a phase looks: its colour, how much of the row's height it fills, whether it is hatched. */
const LOOKS = {
  stopped: { colour: "line", part: 0.1 },
  queued: { colour: "rising", part: 0.45, hatched: true },
  starting: { colour: "rising", part: 1, hatched: true },
  waking: { colour: "rising", part: 1 },
  awake: { colour: "awake", part: 1 },
  draining: { colour: "leaving", part: 1, hatched: true },
  falling_asleep: { colour: "leaving", part: 1 },
  asleep: { colour: "asleep", part: 0.45 },
  stopping: { colour: "leaving", part: 0.45 },
  failed: { colour: "failed", part: 1 },
};

const byName = new Intl.Collator(undefined, { numeric: true });

export class Timeline {
  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.cache = "";
    this.list = new VirtualList($("models"), {
      height: () => (narrow.matches ? 80 : 44),
      key: (model) => model.name,
      make: () => this.row(),
      fill: (row, model, active) => this.fill(row, model, active),
      label: "Models",
    });
    $("models-filter").addEventListener("input", () => (store.version += 1));
    $("models-phase").addEventListener("change", () => (store.version += 1));
    $("phase-legend").append(...Object.entries(PHASES).map(([key, label]) => h("li", {}, h("i", { class: `swatch phase ${key}` }), label)));
    $("phase-legend").append(h("li", {}, h("i", { class: "glyph" }, "▼"), "made room"), h("li", {}, h("i", { class: "glyph" }, "▲"), "room was made for it"));
  }

  update(span, ready) {
    this.span = span;
    const models = this.chosen(span);
    this.list.set(models);
    show($("models"), models.length > 0);
    show($("models-empty"), ready && !models.length);
    if (!models.length) this.empty();
    this.axis(span);
  }

  chosen(span) {
    const wanted = $("models-filter").value.trim().toLowerCase();
    const sort = $("models-phase").value;
    const fits = (m) =>
      (!wanted || m.name.toLowerCase().includes(wanted) || m.aliases.some((alias) => alias.toLowerCase().includes(wanted))) &&
      (sort !== "up" || !["stopped", "failed"].includes(m.phase)) &&
      (sort !== "busy" || m.serving.size + m.waiting.size > 0) &&
      (sort !== "failed" || m.phase === "failed");
    const used = (m) => (m.phase !== "stopped" || (m.segments.at(-1)?.from ?? 0) > span.from ? 0 : 1);
    return [...this.store.models.values()].filter(fits).sort((a, b) => used(a) - used(b) || byName.compare(a.name, b.name));
  }

  empty() {
    if (this.store.models.size) {
      text($("models-empty"), "No model fits the filter.");
      return;
    }
    const where = this.cache ? ` in ${this.cache}` : "";
    text($("models-empty"), `There is no complete model${where}. Bring one with: vllama pull Qwen/Qwen3-0.6B. It appears here by itself.`);
  }

  row() {
    const name = h("button", { class: "model", type: "button", "data-main": true }, h("span", { class: "org" }), h("span", { class: "base" }));
    const act = h("button", { class: "act", type: "button" });
    const row = h("div", {}, name, h("span", { class: "chip" }, h("i", { class: "swatch phase" }), h("span")),
      h("div", { class: "track" }, h("canvas"), h("div", { class: "marks" })), h("span", { class: "asks" }), h("span", { class: "size" }), act);
    name.addEventListener("click", () => this.open(row.model.name));
    act.addEventListener("click", () => {
      const { verb, ...more } = nextStep(row.model);
      operate(this.store, row.model, verb, more.level ? { level: more.level } : {});
    });
    return row;
  }

  fill(row, model, active) {
    row.model = model;
    const [name, chip, track, asks, size, act] = row.children;
    const slash = model.name.lastIndexOf("/") + 1;
    text(name.children[0], model.name.slice(0, slash));
    text(name.children[1], model.name.slice(slash));
    attr(name, "aria-label", `${model.name}, ${phase(model)}: details`);
    attr(name, "tabindex", active ? "0" : "-1");
    const look = `swatch phase ${model.phase}`;
    if (chip.firstChild.className !== look) chip.firstChild.className = look;
    text(chip.lastChild, model.asked && model.phase !== "awake" ? `${PHASES[model.phase]}…` : phase(model));
    const told = [model.serving.size && `${model.serving.size} in flight`, model.waiting.size && `${model.waiting.size} waiting`];
    text(asks, told.filter(Boolean).join(", "));
    attr(asks, "data-tone", model.waiting.size ? "warn" : null);
    let held = 0;
    for (const lease of this.store.books.leases.values()) if (lease.model === model.name && lease.state !== "waiting") held += lease.bytes * lease.devices.length;
    text(size, held ? bytes(held) : "");
    const step = nextStep(model);
    text(act, step.label);
    attr(act, "aria-label", `${step.label} ${model.name}`);
    attr(act, "aria-busy", model.asked ? "true" : null);
    attr(act, "tabindex", active ? "0" : "-1");
    if (this.span) this.track(track, model, active);
  }

  track(track, model, active) {
    const { from, to, end, marks } = this.span;
    const area = fresh(track.firstChild);
    if (!area) return;
    const { c, width, height } = area;
    const colours = palette();
    const x = (at) => ((at - from) / (to - from)) * width;
    c.font = `11px ${colours.font}`;
    c.textBaseline = "middle";
    c.fillStyle = colours.line;
    for (const at of ticks(from, to, width).found) c.fillRect(Math.round(x(at)), 0, 1, height);
    for (const segment of model.segments) {
      const until = segment.to ?? end;
      if (until < from) continue;
      const look = LOOKS[segment.phase] ?? LOOKS.stopped;
      const left = Math.max(x(segment.from), 0);
      const wide = Math.max(x(until) - left, 1.5);
      const tall = Math.max(height * look.part - 8, 3);
      c.fillStyle = look.hatched ? hatch(colours[look.colour]) : colours[look.colour];
      c.fillRect(left, height - 4 - tall, wide, tall);
      c.fillStyle = colours.surface;
      if (segment.from > from) c.fillRect(left, height - 4 - tall, 1, tall);
      if (segment.phase === "awake" && wide > 52) c.fillText("awake", left + 6, height / 2 + 0.5);
    }
    for (const mark of marks) gapMark(c, colours, x(mark.at), x(mark.until), height);
    this.marks(track.lastChild, model, active, x, width);
  }

  marks(box, model, active, x, width) {
    const { from } = this.span;
    const seen = model.swaps.filter(({ swap }) => swap.at >= from).slice(-MARKS_MAX);
    keyed(box, seen, ({ role, swap }) => `${role}${swap.id}`, ({ role, swap }) => {
      const mark = h("button", { class: `mark-${role}`, type: "button" }, role === "victim" ? "▼" : "▲");
      explains(mark, () => this.why(swap));
      mark.addEventListener("click", () => this.open(role === "victim" ? swap.by : swap.model));
      return mark;
    }, (mark, { role, swap }) => {
      const left = `${Math.round(Math.min(Math.max(x(swap.at), 6), width - 6))}px`;
      if (mark.style.left !== left) mark.style.left = left;
      attr(mark, "tabindex", active ? "0" : "-1");
      attr(mark, "aria-label", role === "victim" ? `Made room for ${swap.by} at ${clock(swap.at)}` : `${swap.model} made room for it at ${clock(swap.at)}`);
    });
  }

  why(swap) {
    return eviction(swap, this.store.books.devices.get(swap.device)?.label ?? "its device");
  }

  axis({ from, to }) {
    const area = fresh($("axis"));
    if (!area) return;
    const { c, width, height } = area;
    const colours = palette();
    c.font = `11px ${colours.font}`;
    c.textBaseline = "middle";
    const { step, found } = ticks(from, to, width);
    for (const at of found) {
      const left = ((at - from) / (to - from)) * width;
      c.fillStyle = colours.line;
      c.fillRect(Math.round(left), height - 5, 1, 5);
      c.fillStyle = colours.muted;
      const label = step < 60 ? clock(at) : clock(at).slice(0, 5);
      if (left > 20 && left < width - 20) {
        c.textAlign = "center";
        c.fillText(label, left, height / 2 - 1);
      }
    }
  }
}
