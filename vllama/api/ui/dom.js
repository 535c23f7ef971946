// Making and changing elements. Text goes in as text, always: names, logs and events are strangers' words.

/** An element: h("button", {class: "x", onclick: f, "aria-label": "…"}, "text", child, …). */
export function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) el.addEventListener(name.slice(2), value);
    else if (name === "class") el.className = value;
    else el.setAttribute(name, value === true ? "" : String(value));
  }
  el.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return el;
}

export const $ = (id) => document.getElementById(id);

/** Set the text of an element, if it is another one. */
export function text(el, value) {
  if (el.textContent !== value) el.textContent = value;
}

/** Set or remove an attribute, if that changes it. */
export function attr(el, name, value) {
  if (value === null || value === false) {
    if (el.hasAttribute(name)) el.removeAttribute(name);
  } else if (el.getAttribute(name) !== String(value)) el.setAttribute(name, String(value));
}

export function show(el, yes) {
  if (el.hidden === yes) el.hidden = !yes;
}

/** Two lines of text in a list: keeps what stays, so that focus and selection stay with it. */
export function keyed(parent, items, key, make, update) {
  const have = new Map([...parent.children].map((el) => [el.dataset.key, el]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let el = have.get(name);
    have.delete(name);
    if (!el) {
      el = make(item);
      el.dataset.key = name;
    }
    if (el !== at) parent.insertBefore(el, at);
    else at = at.nextElementSibling;
    update(el, item);
  }
  for (const el of have.values()) el.remove();
}

// --- what a thing says when it is pointed at or focused -----------------------------------------------------------

const tip = $("tip");
let owner = null;

/** `says()` gives the lines; shown on hover and on focus alike, and taken away by Escape. */
export function explains(el, says) {
  const open = () => {
    owner = el;
    tip.replaceChildren(...says().map((line, i) => h(i ? "p" : "strong", {}, line)));
    el.setAttribute("aria-describedby", "tip");
    tip.hidden = false;
    const box = el.getBoundingClientRect();
    const width = tip.offsetWidth;
    const left = Math.max(8, Math.min(box.left + box.width / 2 - width / 2, innerWidth - width - 8));
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
  };
  const close = () => {
    if (owner === el) hideTip();
  };
  el.addEventListener("pointerenter", open);
  el.addEventListener("focus", open);
  el.addEventListener("pointerleave", close);
  el.addEventListener("blur", close);
}

export function hideTip() {
  if (owner) owner.removeAttribute("aria-describedby");
  owner = null;
  tip.hidden = true;
}

addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
addEventListener("scroll", () => owner && !owner.isConnected && hideTip(), true);

/** Whether a reason inside of this element is being read. */
export const explaining = (el) => owner !== null && el.contains(owner);

/** Whoever owned the tip may have been taken out of the page. */
export function sweepTip() {
  if (owner && (!owner.isConnected || owner.hidden)) hideTip();
}

/** Something happened that the reader should know of, said to a screen reader too. */
export function say(words, kind = "info") {
  const note = h(
    "div",
    { class: `note ${kind}`, role: kind === "error" ? "alert" : null },
    h("span", {}, words),
    h("button", { class: "quiet", "aria-label": "Dismiss", onclick: () => note.remove() }, "✕"),
  );
  const notes = $("notes");
  notes.append(note);
  while (notes.children.length > 4) notes.firstElementChild.remove();
  if (kind !== "error") setTimeout(() => note.remove(), 15000);
}
