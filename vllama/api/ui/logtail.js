// The end of an engine's log, as it is written. Its lines are text and nothing else.

import { h, show, text } from "./dom.js";
import { ask, pieces } from "./http.js";

const LINES = 200;
const LINES_MAX = 1000;
const ANSI = /\u001b\[[0-9;?]*[A-Za-z]/g;

export class LogTail {
  constructor() {
    this.out = h("pre", { id: "panel-log", class: "log", tabindex: "0", "aria-labelledby": "log-title" });
    this.none = h("p", { class: "hint", id: "panel-log-none" });
    this.el = h("div", {}, this.out, this.none);
    this.lines = [];
    this.reading = null;
    this.name = "";
    this.dirty = false;
  }

  open(name) {
    this.close();
    this.name = name;
    this.lines = [];
    this.rest = "";
    text(this.out, "");
    show(this.out, false);
    text(this.none, "Reading…");
    show(this.none, true);
  }

  /** Read, if nobody reads: a model that had no log may have one now. */
  again() {
    if (!this.reading && this.name) this.read(this.name);
  }

  close() {
    this.reading?.abort();
    this.reading = null;
    this.name = "";
  }

  async read(name) {
    const reading = (this.reading = new AbortController());
    try {
      const answer = await ask(`/control/logs?model=${encodeURIComponent(name)}&lines=${LINES}&follow=1`, { signal: reading.signal });
      this.lines = [];
      this.rest = "";
      for await (const piece of pieces(answer)) this.take(piece);
    } catch (error) {
      if (this.reading === reading && error.name !== "AbortError" && !this.lines.length) {
        text(this.none, error.message);
        show(this.none, true);
      }
    } finally {
      if (this.reading === reading) this.reading = null;
    }
  }

  take(piece) {
    const lines = (this.rest + piece.replace(ANSI, "")).split("\n");
    this.rest = lines.pop();
    this.lines.push(...lines);
    if (this.lines.length > LINES_MAX) this.lines.splice(0, this.lines.length - LINES_MAX);
    if (this.dirty) return;
    this.dirty = true;
    requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.dirty = false;
    show(this.out, true);
    show(this.none, false);
    const atEnd = this.out.scrollTop + this.out.clientHeight >= this.out.scrollHeight - 24;
    this.out.textContent = [...this.lines, this.rest].join("\n");
    if (atEnd) this.out.scrollTop = this.out.scrollHeight;
  }
}
