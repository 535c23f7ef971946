// A small chat, to try a model: it shows what one waits for, streams, and can be stopped.

import { $, attr, h, show, text } from "./dom.js";
import { ask, events, json, Refused } from "./http.js";
import { cannotChat, PHASES, seconds } from "./words.js";

const STATES = { warm: "was awake", wake: "was woken", cold: "was started" };

const KEYS = "Enter sends, Shift and Enter begin a new line, Esc stops an answer.";

export class ChatView {
  constructor(store) {
    this.store = store;
    this.messages = [];
    this.structure = -1;
    this.running = null;
    this.state = "";
    $("chat-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    $("chat-input").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send();
      }
    });
    $("view-chat").addEventListener("keydown", (event) => event.key === "Escape" && this.stop());
    $("chat-stop").addEventListener("click", () => this.stop());
    $("chat-clear").addEventListener("click", () => this.clear());
    $("chat-model").addEventListener("change", () => this.fit());
    this.clear();
  }

  choose(model) {
    this.models();
    $("chat-model").value = model;
    this.fit();
    $("chat-input").focus();
  }

  /** New models may have come into the cache. */
  refresh() {
    json("/v1/models").then((cards) => this.store.listed(cards.data)).catch(() => undefined);
  }

  clear() {
    this.stop();
    this.messages = [];
    $("chat-log").replaceChildren(h("p", { class: "empty" }, "Nothing said yet. The first message starts the model, or wakes it."));
    this.state = this.store.models.size ? KEYS : "";
  }

  update({ now }) {
    this.models();
    const { running } = this;
    if (running && !running.head) {
      const model = this.store.models.get(running.model);
      const what = model && model.phase !== "awake" ? `${running.model} ${model.phase === "queued" ? "" : "is "}${PHASES[model.phase]}` : `Waiting for ${running.model}`;
      this.state = `${what} · ${seconds((performance.now() - running.begun) / 1000)}`;
    }
    text($("chat-state"), this.state);
    void now;
  }

  models() {
    if (this.structure === this.store.structure) return;
    this.structure = this.store.structure;
    const kept = $("chat-model").value;
    const names = [...this.store.models.values()].sort((a, b) => a.name.localeCompare(b.name));
    const group = (label, models) => models.length && h("optgroup", { label }, models.map((model) => h("option", { value: model.name }, model.name)));
    const able = names.filter((model) => !cannotChat(model.kind));
    const unable = names.filter((model) => cannotChat(model.kind));
    $("chat-model").replaceChildren(...[group("Can chat", able), group("Cannot chat", unable)].filter(Boolean));
    if (!names.length) $("chat-model").append(h("option", { value: "" }, "No models"));
    const up = able.find((model) => model.phase === "awake") ?? able[0];
    $("chat-model").value = this.store.models.has(kept) ? kept : up?.name ?? names[0]?.name ?? "";
    this.fit();
  }

  /** Whether the chosen model can chat at all; said in place when it cannot. */
  fit() {
    const model = this.store.models.get($("chat-model").value);
    const does = model ? cannotChat(model.kind) : "";
    const able = Boolean(model) && !does;
    attr($("chat-input"), "disabled", !able);
    attr($("chat-send"), "disabled", !able);
    if (does) this.state = `${model.name} ${does}: it cannot chat. Choose a model that generates text.`;
    else if (!this.running) this.state = model ? KEYS : "There is no model to chat with yet.";
    text($("chat-state"), this.state);
    return able;
  }

  stop() {
    this.running?.controller.abort();
  }

  async send() {
    const content = $("chat-input").value.trim();
    this.models(); // who is quick sends before the view was drawn for the first time
    if (!content || this.running || !this.fit()) return;
    $("chat-input").value = "";
    if (!this.messages.length) $("chat-log").replaceChildren();
    this.messages.push({ role: "user", content });
    this.bubble("user", "You").textContent = content;
    const model = $("chat-model").value;
    const answer = { role: "assistant", content: "" };
    const out = this.bubble("assistant", model);
    const controller = new AbortController();
    this.running = { model, controller, begun: performance.now(), head: false };
    this.busy(true);
    try {
      await this.stream(model, answer, out, controller.signal);
      this.state = this.done(answer);
    } catch (error) {
      this.failed(error, out);
    } finally {
      this.running = null;
      this.busy(false);
      if (answer.content) this.messages.push(answer);
      else {
        this.messages.pop();
        if (!out.textContent) out.closest("article").remove();
      }
    }
  }

  async stream(model, answer, out, signal) {
    const body = { model, messages: this.messages, stream: true, temperature: Number($("chat-temperature").value) || 0 };
    const head = await ask("/v1/chat/completions", { method: "POST", body, signal });
    const { running } = this;
    running.head = true;
    const state = head.headers.get("X-Vllama-State");
    const waited = Number(head.headers.get("X-Vllama-Wait-Ms") ?? 0) / 1000;
    running.how = state ? `${model} ${STATES[state] ?? state}${waited >= 0.05 ? `, waited ${seconds(waited)}` : ""}` : model;
    this.state = `${running.how} · answering`;
    let pending = "";
    let thought = "";
    const flush = () => {
      if (pending) out.append(pending);
      pending = "";
      this.toEnd();
    };
    for await (const event of events(head)) {
      if (!event) continue;
      if (event.data === "[DONE]") break;
      const data = JSON.parse(event.data);
      if (data.error) throw new Refused(502, data.error.message, data.error.code);
      const delta = data.choices?.[0]?.delta ?? {};
      const thinks = delta.reasoning ?? delta.reasoning_content;
      if (thinks) {
        thought += thinks;
        this.think(out, thought);
      }
      if (delta.content) {
        running.first ??= performance.now();
        running.pieces = (running.pieces ?? 0) + 1;
        answer.content += delta.content;
        if (!pending) requestAnimationFrame(flush);
        pending += delta.content;
      }
    }
    flush();
  }

  done(answer) {
    const { how, first, pieces, begun } = this.running;
    if (!answer.content) return `${how}: it said nothing.`;
    const took = (performance.now() - first) / 1000;
    const rate = pieces > 1 && took > 0 ? `, ${((pieces - 1) / took).toFixed(1)} pieces a second` : "";
    return `${how} · first word after ${seconds((first - begun) / 1000)}${rate}`;
  }

  failed(error, out) {
    if (error.name === "AbortError") {
      this.state = "Stopped.";
      out.closest("article").classList.add("cut");
      return;
    }
    this.state = "";
    const article = out.closest("article");
    article.classList.add("failed");
    article.append(h("p", { class: "error", role: "alert" }, error.message));
    if (!out.textContent) out.textContent = "No answer.";
  }

  think(out, words) {
    let box = out.previousElementSibling;
    if (!box?.classList.contains("thought")) {
      box = h("p", { class: "thought" });
      out.before(box);
    }
    text(box, words);
  }

  bubble(role, who) {
    const out = h("p", { class: "said" });
    $("chat-log").append(h("article", { class: role }, h("h3", {}, who), out));
    this.toEnd();
    return out;
  }

  toEnd() {
    $("chat-log").scrollTop = $("chat-log").scrollHeight;
  }

  busy(yes) {
    show($("chat-stop"), yes);
    show($("chat-send"), !yes);
    this.store.version += 1;
  }
}
