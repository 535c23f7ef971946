// All that has happened, the newest first, with filters.

import { $, attr, h, show, text } from "./dom.js";
import { VirtualList } from "./vlist.js";
import { clock } from "./words.js";

const GROUPS = [
  ["phases", "Phases", true],
  ["swaps", "Swaps", true],
  ["requests", "Requests", true],
  ["commands", "Commands", true],
  ["problems", "Problems", true],
  ["memory", "Bookkeeping", false],
];
const narrow = matchMedia("(max-width: 719px)");

export class EventsView {
  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.groups = new Set(GROUPS.filter(([, , on]) => on).map(([key]) => key));
    this.until = Infinity; // while it is paused: the newest that is shown
    this.chosen = null;
    this.shown = [];
    this.filter = "";
    this.seen = 0;
    this.structure = -1;
    this.list = new VirtualList($("events"), {
      height: () => (narrow.matches ? 64 : 36),
      key: (event) => event.id,
      make: () => this.row(),
      fill: (row, event, active) => this.fill(row, event, active),
      label: "Events, the newest first",
    });
    this.chips();
    for (const [id, kind] of [["events-model", "change"], ["events-text", "input"]]) {
      $(id).addEventListener(kind, () => (store.version += 1));
    }
    $("events-pause").addEventListener("click", () => this.pause());
    $("event-close").addEventListener("click", () => this.choose(null));
    $("event-detail").addEventListener("keydown", (event) => event.key === "Escape" && this.choose(null));
  }

  chips() {
    for (const [key, label, on] of GROUPS) {
      const box = h("input", { type: "checkbox", value: key, checked: on });
      box.addEventListener("change", () => {
        if (box.checked) this.groups.add(key);
        else this.groups.delete(key);
        this.store.version += 1;
      });
      $("events-groups").append(h("label", { class: "toggle" }, box, h("span", {}, label)));
    }
  }

  pause() {
    const paused = this.until !== Infinity;
    this.until = paused ? Infinity : this.total();
    attr($("events-pause"), "aria-pressed", paused ? "false" : "true");
    text($("events-pause"), paused ? "Pause" : "Go on");
    this.store.version += 1;
  }

  total() {
    return this.store.dropped + this.store.events.length;
  }

  update() {
    this.models();
    const filter = [[...this.groups].sort(), $("events-model").value, $("events-text").value, this.until, this.store.structure].join("|");
    const total = Math.min(this.total(), this.until);
    if (filter !== this.filter || total < this.seen) this.all(total);
    else this.more(total);
    this.filter = filter;
    show($("events"), this.shown.length > 0);
    show($("events-empty"), !this.shown.length);
    text($("events-empty"), this.store.events.length ? "No event fits the filters." : "Nothing has happened yet. A request for a model will be the first thing.");
    const behind = this.until === Infinity ? 0 : this.total() - this.until;
    text($("events-count"), `${this.shown.length} shown${behind ? `, ${behind} newer while paused` : ""}`);
  }

  all(total) {
    const { events, dropped } = this.store;
    this.shown = [];
    for (let i = total - dropped - 1; i >= 0; i -= 1) if (this.fits(events[i])) this.shown.push(this.named(events[i], dropped + i));
    this.seen = total;
    this.list.set(this.shown);
  }

  more(total) {
    const { events, dropped } = this.store;
    const fresh = [];
    for (let at = Math.max(this.seen, dropped); at < total; at += 1) {
      if (this.fits(events[at - dropped])) fresh.push(this.named(events[at - dropped], at));
    }
    this.seen = total;
    if (!fresh.length) {
      this.list.render();
      return;
    }
    this.shown = [...fresh.reverse(), ...this.shown];
    while (this.shown.length && this.shown.at(-1).at_ < dropped) this.shown.pop();
    this.list.set(this.shown, fresh.length);
  }

  /** Its place in the whole sequence is what names an event: numbers begin anew with a new server. */
  named(event, at) {
    event.id = `e${at}`;
    event.at_ = at;
    return event;
  }

  fits(event) {
    if (event.group === "mark") return true;
    if (!this.groups.has(event.group)) return false;
    const model = $("events-model").value;
    if (model && event.actor !== model && event.record.model !== model && event.record.wanted_by !== model) return false;
    const words = $("events-text").value.trim().toLowerCase();
    return !words || `${event.actor} ${event.kind} ${event.words}`.toLowerCase().includes(words);
  }

  models() {
    if (this.structure === this.store.structure) return;
    this.structure = this.store.structure;
    const kept = $("events-model").value;
    const names = [...this.store.models.keys()].sort();
    $("events-model").replaceChildren(h("option", { value: "" }, "All"), ...names.map((name) => h("option", { value: name }, name)));
    $("events-model").value = names.includes(kept) ? kept : "";
  }

  row() {
    const row = h("div", {}, h("button", { class: "event", type: "button", "data-main": true },
      h("time"), h("i", { class: "dot" }), h("span", { class: "actor" }), h("span", { class: "words" }), h("span", { class: "kind" })));
    row.firstChild.addEventListener("click", () => this.choose(row.event));
    return row;
  }

  fill(row, event, active) {
    if (row.event !== event) {
      row.event = event;
      const [time, dot, actor, words, kind] = row.firstChild.children;
      text(time, clock(event.at, true));
      dot.className = `dot ${event.group}`;
      text(actor, event.actor);
      text(words, event.words);
      text(kind, event.kind);
      attr(row, "data-group", event.group);
    }
    attr(row.firstChild, "tabindex", active ? "0" : "-1");
    attr(row.firstChild, "aria-pressed", this.chosen === event ? "true" : "false");
  }

  choose(event) {
    const before = this.chosen;
    this.chosen = event?.record ? event : null;
    show($("event-detail"), this.chosen !== null);
    if (this.chosen) {
      const { words, ...record } = this.chosen.record;
      text($("event-title"), words);
      text($("event-json"), JSON.stringify(record, null, 2));
    } else if (before) this.list.rows.get(before.id)?.firstChild.focus();
    this.list.render();
  }
}
