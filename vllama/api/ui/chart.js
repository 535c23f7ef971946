// A stacked area over time, with a cursor that the pointer and the arrow keys move.

import { h, text } from "./dom.js";
import { fresh, hatch, palette, ticks } from "./paint.js";
import { clock } from "./words.js";

export class Chart {
  /** `bands`: {label, colour, hatched} from the bottom up; `value(n)` tells a number. */
  constructor({ label, bands, value }) {
    Object.assign(this, { label, bands, value });
    this.canvas = h("canvas", { class: "plot" });
    this.readout = h("p", { class: "readout", hidden: true });
    this.el = h("div", {
      class: "chart", role: "slider", tabindex: "0", "aria-label": label, "aria-orientation": "horizontal",
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "100", "aria-valuetext": "now",
    }, this.canvas, this.readout);
    this.cursor = null; // 0..1 of the window
    this.el.addEventListener("pointermove", (event) => {
      const box = this.el.getBoundingClientRect();
      this.move((event.clientX - box.left) / box.width);
    });
    this.el.addEventListener("pointerleave", () => this.move(null));
    this.el.addEventListener("blur", () => this.move(null));
    this.el.addEventListener("keydown", (event) => this.onKey(event));
  }

  onKey(event) {
    const by = { ArrowLeft: -0.02, ArrowRight: 0.02, PageUp: 0.1, PageDown: -0.1, Home: -2, End: 2 }[event.key];
    if (event.key === "Escape") this.move(null);
    if (by === undefined) return;
    event.preventDefault();
    this.move((this.cursor ?? 1) + by);
  }

  move(to) {
    this.cursor = to === null ? null : Math.max(0, Math.min(to, 1));
    if (this.last) this.draw(...this.last);
  }

  draw(series, top, from, to, marks) {
    this.last = [series, top, from, to, marks];
    const area = fresh(this.canvas);
    if (!area) return;
    const { c, width, height } = area;
    const colours = palette();
    const x = (at) => ((at - from) / (to - from)) * width;
    const y = (n) => height - (n / (top || 1)) * height;
    c.fillStyle = colours.line;
    for (const at of ticks(from, to, width).found) c.fillRect(Math.round(x(at)), 0, 1, height);
    const seen = visible(series, from);
    this.bands.forEach((band, i) => {
      c.fillStyle = band.hatched ? hatch(colours[band.colour]) : colours[band.colour];
      for (let n = 0; n < seen.length; n += 1) {
        const { at, values } = seen[n];
        if (!values || !values[i]) continue;
        const below = values.slice(0, i).reduce((sum, v) => sum + v, 0);
        const left = Math.round(Math.max(x(at), 0)); // whole pixels: no seams between neighbours
        const right = Math.round(x(Math.min(seen[n + 1]?.at ?? to, to)));
        const upper = y(below + values[i]);
        c.fillRect(left, upper, Math.max(right - left, 1), Math.max(y(below) - upper, 1));
      }
    });
    for (const mark of marks) gapMark(c, colours, x(mark.at), x(mark.until), height);
    this.point(c, colours, seen, x, from, to, height);
  }

  point(c, colours, seen, x, from, to, height) {
    const at = from + (this.cursor ?? 1) * (to - from);
    const sample = seen.findLast((one) => one.at <= at);
    const told = this.bands.map((band, i) => `${band.label} ${this.value(sample?.values?.[i] ?? 0)}`).join(", ");
    const words = `${this.cursor === null ? "now" : clock(at)}: ${sample?.values ? told : "not known"}`;
    this.el.setAttribute("aria-valuetext", words);
    this.el.setAttribute("aria-valuenow", String(Math.round((this.cursor ?? 1) * 100)));
    this.readout.hidden = this.cursor === null;
    if (this.cursor === null) return;
    text(this.readout, words);
    c.fillStyle = colours.ink;
    c.fillRect(Math.round(x(at)), 0, 1, height);
  }
}

/** From the last sample before the window on. */
function visible(series, from) {
  let first = 0;
  for (let low = 0, high = series.length - 1; low <= high;) {
    const middle = (low + high) >> 1;
    if (series[middle].at <= from) {
      first = middle;
      low = middle + 1;
    } else high = middle - 1;
  }
  return series.slice(first);
}

/** Where nothing is known: the server was away. */
export function gapMark(c, colours, left, right, height) {
  if (right < 0) return;
  c.fillStyle = hatch(colours.muted);
  c.globalAlpha = 0.35;
  c.fillRect(left, 0, Math.max(right - left, 0), height);
  c.globalAlpha = 1;
  c.fillStyle = colours.ink;
  for (let y = 0; y < height; y += 6) c.fillRect(Math.round(right), y, 1, 3);
}
