// The line to the server: a history, then the journal's events as they come; and again after every break.

import { ask, events, json, Refused, Unreachable } from "./http.js";

const RECORDS = 2000;
const SILENCE_MS = 40000; // the stream says something each 15 s
const RETRY_MS = [250, 500, 1000, 2000, 3000];

export class Feed {
  /** `on(status)`: {state: connecting | live | lost | key | off, message, retryAt}; `note(words)` tells what a break came to. */
  constructor(store, on, note) {
    this.store = store;
    this.on = on;
    this.note = note;
    this.tries = 0;
    this.lost = 0; // the server's time when it was last heard
    this.wake = () => undefined;
  }

  async run() {
    this.on({ state: "connecting" });
    for (;;) {
      let state = { state: "lost", message: "The server has ended the connection." };
      try {
        while (await this.session());
      } catch (error) {
        state = this.stateOf(error);
      }
      if (!this.lost && this.store.server) this.lost = this.store.now();
      const pause = state.state === "lost" ? RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)] : 3600000;
      this.on({ ...state, at: this.lost, retryAt: performance.now() + pause });
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, pause);
      });
    }
  }

  /** Try again now: there is a key, or the reader is impatient. */
  retry() {
    this.wake();
  }

  stateOf(error) {
    if (error instanceof Refused && error.status === 401) return { state: "key", message: error.message };
    if (error instanceof Refused && error.status === 403) return { state: "off", message: error.message };
    if (error instanceof Refused || error instanceof Unreachable) return { state: "lost", message: error.message };
    if (error.name === "AbortError") return { state: "lost", message: "The server has said nothing for 40 s." };
    throw error;
  }

  /** Until the stream ends; true when it has to be asked for again at once. */
  async session() {
    const missed = await this.catchUp();
    const from = this.store.seq;
    const silence = new AbortController();
    const answer = await ask(`/debug/events?since=${from}&words=1`, {
      headers: { "Last-Event-ID": String(from) }, signal: silence.signal,
    });
    let told = this.lost === 0;
    if (!missed) told = this.back(told, missed);
    this.on({ state: "live" });
    let timer = setTimeout(() => silence.abort(), SILENCE_MS);
    try {
      for await (const event of events(answer)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS);
        if (event?.event === "gap") {
          await this.lostSome(JSON.parse(event.data));
          return true;
        }
        if (event && !told) told = this.back(told, missed);
        if (event) this.store.apply(JSON.parse(event.data));
      }
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
    return false;
  }

  /** The state before the stream: all of it for a new page or a new server; from the same server how many events were missed. */
  async catchUp() {
    const { store } = this;
    if (store.server) {
      const present = await json("/control/history?records=0");
      if (present.server === store.server) return present.seq - store.seq;
    }
    const [history, cards] = await Promise.all([json(`/control/history?records=${RECORDS}`), json("/v1/models")]);
    if (store.server) {
      const away = history.now - this.lost;
      store.restarted(history, this.lost);
      this.note(`The server was started again: back after ${away.toFixed(1)} s, with all ${history.records.length} events since its start.`);
      this.lost = 0;
    } else store.load(history);
    store.listed(cards.data);
    return 0;
  }

  /** Heard again. What was missed is told of once the first of it is there: it may turn out to be lost. */
  back(told, missed) {
    if (!told) this.note(`Connected again: ${missed === 1 ? "1 missed event is" : `${missed} missed events are`} filled in.`);
    this.lost = this.tries = 0;
    return true;
  }

  /** The journal no longer holds what this page missed: begin anew with what it holds. */
  async lostSome(gap) {
    const [history, cards] = await Promise.all([json(`/control/history?records=${RECORDS}`), json("/v1/models")]);
    const missing = (history.records[0]?.seq ?? history.seq + 1) - gap.first;
    this.lost = this.tries = 0;
    this.store.clear();
    this.store.load(history);
    this.store.listed(cards.data);
    if (missing > 0) {
      this.store.mark(this.store.begun, this.store.begun, `${missing} events before this are lost to this page`);
      this.note(`${missing} events were lost: too many came at once. What is shown is up to date again.`);
    }
  }
}
