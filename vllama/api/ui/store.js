// What the page knows: the journal's records, folded as the server folds them. Every list in it has a bound.

import { add, Books } from "./books.js";

export const EVENTS_MAX = 5000;
const SEGMENTS_MAX = 400;
const SWAPS_MAX = 300;
const KEEP_S = 3600;

const GROUPS = [
  ["swaps", /^(Eviction|RoomSought)/],
  ["problems", /^(EngineFaulted|FailureCounted|AskRefused|LeaseDenied|WakeMissed|InstanceReset|RestartNoted)/],
  ["requests", /^(Ask|Batch)/],
  ["commands", /^(Command|InstanceConfigured|InstanceCreated|FailuresCleared|HostNoted|KeepAlive)/],
  ["phases", /^(Phase|Descent|Engine|SleepMode|NeedCalibrated)/],
  ["memory", /./],
];

function groupOf(record) {
  if (record.kind === "EngineGone" && !record.expected) return "problems";
  return GROUPS.find(([, pattern]) => pattern.test(record.kind))[0];
}

function freshModel(name) {
  return {
    name, kind: "", context: 0, problem: "", aliases: [], listed: false, phase: "stopped", level: 0, since: 0,
    waiting: new Map(), serving: new Map(), segments: [], swaps: [], asked: "",
  };
}

export class Store {
  constructor() {
    this.offset = 0; // server's time less this page's own clock
    this.version = 0; // grows with every change
    this.structure = 0; // grows when models or devices come or go
    this.server = "";
    this.release = "";
    this.dropped = 0;
    this.marks = []; // restarts of the server and losses: {at, until, words}
    this.clear();
  }

  clear() {
    this.seq = 0;
    this.models = new Map();
    this.books = new Books();
    this.events = [];
    this.swaps = [];
    this.traffic = [];
    this.inFlight = this.waiting = 0;
    this.openSwaps = new Map();
    this.structure += 1;
  }

  now() {
    return this.offset + performance.now() / 1000;
  }

  model(name) {
    let model = this.models.get(name);
    if (!model) {
      model = freshModel(name);
      this.models.set(name, model);
      this.structure += 1;
    }
    return model;
  }

  /** The state that a history begins with, then its records. */
  load(history) {
    this.server = history.server;
    this.release = history.version;
    this.offset = history.now - performance.now() / 1000;
    this.seq = history.records.length ? history.records[0].seq - 1 : history.seq;
    this.begun = history.records.length ? history.records[0].at : history.now;
    this.books.load(history);
    for (const one of history.base.instances) {
      const model = this.model(one.model);
      const since = one.since || this.begun;
      model.level = one.level;
      this.enter(model, one.phase, since);
      for (const ask of one.waiting) model.waiting.set(ask, { at: since, request: "" });
      for (const ask of one.serving) model.serving.set(ask, { at: since, request: "", waited: 0 });
      this.waiting += one.waiting.length;
      this.inFlight += one.serving.length;
    }
    this.books.sampleAll(this.begun, this.models);
    this.sampleTraffic(this.begun);
    for (const record of history.records) this.apply(record);
    this.seq = history.seq;
    this.version += 1;
  }

  /** Another server answers: what was known ends at `lost`, its history stays to be seen. */
  restarted(history, lost) {
    const end = lost + 0.001;
    for (const model of this.models.values()) {
      this.close(model, end);
      Object.assign(model, { phase: "stopped", level: 0, waiting: new Map(), serving: new Map(), asked: "" });
    }
    this.books.broken(end);
    this.traffic.push({ at: end, values: null });
    this.inFlight = this.waiting = 0;
    this.openSwaps.clear();
    const from = history.records.length ? history.records[0].at : history.now;
    this.mark(lost, from, "the server was started again");
    this.load(history);
  }

  /** A place in the list of events, and in the charts, where something is missing. */
  mark(at, until, words) {
    this.marks.push({ at, until, words });
    if (this.marks.length > 50) this.marks.shift();
    this.pushEvent({ seq: 0, at: until, actor: "", kind: "", words, group: "mark", record: null });
  }

  listed(cards) {
    const seen = new Set();
    for (const card of cards) {
      if (card.parent) continue;
      const model = this.model(card.id);
      seen.add(card.id);
      Object.assign(model, {
        listed: true, kind: card.kind ?? "", context: card.max_model_len ?? 0, problem: card.problem ?? "",
        aliases: card.aliases ?? [],
      });
    }
    for (const model of this.models.values()) if (!seen.has(model.name)) model.listed = false;
    this.version += 1;
    this.structure += 1;
  }

  apply(record) {
    this.seq = record.seq;
    this.version += 1;
    const group = groupOf(record);
    for (const device of this.books.devices.values()) {
      if (device.label !== device.id && record.words.includes(device.id)) record.words = record.words.replaceAll(device.id, device.label);
    }
    this.pushEvent({ seq: record.seq, at: record.at, actor: record.actor, kind: record.kind, words: record.words, group, record });
    const rule = RULES[record.kind];
    if (rule) rule(this, record, record.actor === "broker" ? null : this.model(record.actor));
    const touched = this.books.apply(record);
    if (touched) this.books.sample(touched, record.at, this.models);
  }

  pushEvent(event) {
    this.events.push(event);
    if (this.events.length > EVENTS_MAX + 500) {
      this.events.splice(0, 500);
      this.dropped += 500;
    }
  }

  enter(model, phase, at) {
    this.close(model, at);
    Object.assign(model, { phase, since: at });
    if (phase !== "asleep") model.level = 0;
    model.segments.push({ phase, level: model.level, from: at, to: null });
    if (model.segments.length > SEGMENTS_MAX) model.segments.splice(0, 50);
    while (model.segments.length > 1 && model.segments[0].to < at - KEEP_S) model.segments.shift();
  }

  close(model, at) {
    const last = model.segments.at(-1);
    if (last && last.to === null) last.to = at;
  }

  sampleTraffic(at) {
    add(this.traffic, { at, values: [this.inFlight, this.waiting] });
  }

  swap(record) {
    const use = record.considered.find(([model]) => model === record.model);
    const swap = {
      id: `${this.server.slice(0, 8)}-${record.seq}`, seq: record.seq, at: record.at, model: record.model,
      by: record.wanted_by, level: record.level, device: record.device, short: record.short_bytes,
      idle: use && use[1] && !use[2] ? record.at - use[1] : null, inFlight: use ? use[2] : 0,
      spared: record.spared, leftOut: record.left_out, outcome: "", freed: null, took: null,
      cost: /it costs the least: ([^;]*)/.exec(record.words)?.[1] ?? "",
    };
    this.swaps.push(swap);
    if (this.swaps.length > SWAPS_MAX) this.swaps.shift();
    this.openSwaps.set(`${record.model}\n${record.lease}`, swap);
    if (this.openSwaps.size > SWAPS_MAX) this.openSwaps.delete(this.openSwaps.keys().next().value);
    for (const [name, role] of [[record.model, "victim"], [record.wanted_by, "cause"]]) {
      const model = this.model(name);
      model.swaps.push({ role, swap });
      if (model.swaps.length > 60) model.swaps.shift();
    }
  }
}

function leave(store, model, ask, at) {
  if (model.waiting.delete(ask)) store.waiting -= 1;
  if (model.serving.delete(ask)) store.inFlight -= 1;
  store.sampleTraffic(at);
}

const swapOf = (store, record) => store.openSwaps.get(`${record.model}\n${record.lease}`);

const RULES = {
  AskQueued(store, r, model) {
    model.waiting.set(r.ask, { at: r.at, request: r.request });
    store.waiting += 1;
    store.sampleTraffic(r.at);
  },
  AskAdmitted(store, r, model) {
    const waited = model.waiting.get(r.ask);
    if (model.waiting.delete(r.ask)) store.waiting -= 1;
    if (!model.serving.has(r.ask)) store.inFlight += 1;
    model.serving.set(r.ask, { at: r.at, request: waited?.request || r.request, waited: waited ? r.at - waited.at : 0 });
    store.sampleTraffic(r.at);
  },
  AskEnded: (store, r, model) => leave(store, model, r.ask, r.at),
  AskRefused: (store, r, model) => leave(store, model, r.ask, r.at),
  PhaseChanged(store, r, model) {
    store.enter(model, r.to, r.at);
    store.books.sampleOf(model.name, r.at, store.models);
  },
  EngineSlept(store, r, model) {
    model.level = r.level;
    const last = model.segments.at(-1);
    if (last?.phase === "asleep") last.level = r.level;
  },
  InstanceReset(store, r, model) {
    for (const ask of [...model.waiting.keys(), ...model.serving.keys()]) leave(store, model, ask, r.at);
    store.enter(model, "stopped", r.at);
  },
  EvictionOrdered: (store, r) => store.swap(r),
  EvictionCancelled(store, r) {
    const swap = swapOf(store, r);
    if (swap) swap.outcome = "cancelled";
    store.openSwaps.delete(`${r.model}\n${r.lease}`);
  },
  LeaseReturning(store, r) {
    const swap = swapOf(store, r);
    if (swap) swap.outcome = r.residue_bytes ? "slept" : "stopped";
  },
  LeaseFreed(store, r) {
    const swap = swapOf(store, r);
    if (!swap) return;
    swap.took = r.at - swap.at;
    const lease = store.books.leases.get(`${r.model}\n${r.lease}`);
    if (lease) swap.freed = Math.max(lease.bytes - r.residue_bytes - r.unreturned_bytes, 0);
    store.openSwaps.delete(`${r.model}\n${r.lease}`);
  },
};
