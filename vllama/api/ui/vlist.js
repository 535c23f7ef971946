// A list of any length of which only what can be seen is in the page. Rows have one height; arrow keys move through them.

import { attr, h } from "./dom.js";

const OVER = 4; // rows beyond each edge

export class VirtualList {
  /** `make()` gives a row's element, `fill(el, item, active)` shows an item in it, `key(item)` names it. */
  constructor(box, { height, key, make, fill, label, open }) {
    Object.assign(this, { box, key, make, fill, open });
    this.height = height;
    this.items = [];
    this.index = new Map();
    this.rows = new Map(); // key -> element
    this.active = "";
    this.space = h("div", { class: "vspace", role: "list", "aria-label": label });
    box.append(this.space);
    box.addEventListener("scroll", () => this.render(), { passive: true });
    box.addEventListener("keydown", (event) => this.onKey(event));
    box.addEventListener("focusin", (event) => this.onFocus(event));
    new ResizeObserver(() => this.render()).observe(box);
  }

  /** `added` new items stand before the old ones: who has scrolled down keeps what he reads. */
  set(items, added = 0) {
    this.items = items;
    this.index = new Map(items.map((item, i) => [this.key(item), i]));
    if (!this.index.has(this.active)) this.active = items.length ? this.key(items[0]) : "";
    if (added && this.box.scrollTop > this.height()) this.box.scrollTop += added * this.height();
    this.render();
  }

  render() {
    const tall = this.height();
    const first = Math.max(Math.floor(this.box.scrollTop / tall) - OVER, 0);
    const last = Math.min(Math.ceil((this.box.scrollTop + this.box.clientHeight) / tall) + OVER, this.items.length);
    const space = `${this.items.length * tall}px`;
    if (this.space.style.height !== space) this.space.style.height = space;
    const wanted = new Map();
    for (let i = first; i < last; i += 1) wanted.set(this.key(this.items[i]), i);
    for (const [name, row] of this.rows) {
      if (wanted.has(name)) continue;
      const at = this.index.get(name);
      if (at !== undefined && row.contains(document.activeElement)) wanted.set(name, at);
      else {
        row.remove();
        this.rows.delete(name);
      }
    }
    // One row can be reached by Tab: the active one, or the first to be seen when that one is far away.
    const reached = wanted.has(this.active) || !this.items.length ? this.active : this.key(this.items[Math.min(first, this.items.length - 1)]);
    let next = this.space.firstElementChild;
    for (const [name, i] of [...wanted].sort((a, b) => a[1] - b[1])) {
      let row = this.rows.get(name);
      if (!row) {
        row = this.make();
        row.setAttribute("role", "listitem");
        row.classList.add("vrow");
        row.dataset.row = name;
        this.rows.set(name, row);
        this.space.insertBefore(row, next);
      } else if (row === next) next = next.nextElementSibling;
      else this.place(row, next);
      const top = `translateY(${i * tall}px)`;
      if (row.style.transform !== top) row.style.transform = top;
      attr(row, "aria-setsize", this.items.length);
      attr(row, "aria-posinset", i + 1);
      this.fill(row, this.items[i], name === reached);
    }
  }

  /** Rows that change their order keep the focus that is in them. */
  place(row, next) {
    const focused = row.contains(document.activeElement) ? document.activeElement : null;
    this.space.insertBefore(row, next);
    focused?.focus({ preventScroll: true });
  }

  visible() {
    return [...this.rows.values()];
  }

  onFocus(event) {
    const name = event.target.closest(".vrow")?.dataset.row;
    if (name !== undefined && name !== this.active) {
      this.active = name;
      this.render();
    }
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !event.target.closest(".vrow")) return;
    const page = Math.max(Math.floor(this.box.clientHeight / this.height()) - 1, 1);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const at = (this.index.get(this.active) ?? 0) + by;
    this.go(Math.max(0, Math.min(at, this.items.length - 1)));
  }

  go(i) {
    if (!this.items.length) return;
    const tall = this.height();
    this.active = this.key(this.items[i]);
    if (i * tall < this.box.scrollTop) this.box.scrollTop = i * tall;
    const below = (i + 1) * tall - this.box.clientHeight;
    if (below > this.box.scrollTop) this.box.scrollTop = below;
    this.render();
    this.rows.get(this.active)?.querySelector("[data-main]")?.focus({ preventScroll: true });
  }
}
