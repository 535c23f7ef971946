// Numbers, times and reasons in words.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(count) {
  let value = Math.max(count, 0);
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 100 ? value.toFixed(value < 10 ? 2 : 1) : Math.round(value)} ${UNITS[unit]}`;
}

export function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 100) return `${Math.round(value)} s`;
  if (value < 6000) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

export function clock(at, fraction = false) {
  const date = new Date(at * 1000);
  const two = (n) => String(n).padStart(2, "0");
  const base = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return fraction ? `${base}.${String(date.getMilliseconds()).padStart(3, "0")}` : base;
}

export const count = (n, thing) => `${n} ${thing}${n === 1 ? "" : "s"}`;

export const PHASES = {
  stopped: "stopped",
  queued: "waits for memory",
  starting: "starting",
  waking: "waking",
  awake: "awake",
  draining: "finishing",
  falling_asleep: "falling asleep",
  asleep: "asleep",
  stopping: "stopping",
  failed: "failed",
};

export function phase(model) {
  return model.phase === "asleep" && model.level ? `asleep, level ${model.level}` : PHASES[model.phase] ?? model.phase;
}

const KINDS = { embedding: "makes embeddings", rerank: "scores texts" };

/** Why one cannot chat with a model of this kind; "" when one can. */
export function cannotChat(kind) {
  return KINDS[kind] ?? "";
}

const level = (n) => (n === 3 ? "stopped" : `put to sleep at level ${n}`);

function went(e) {
  if (e.outcome === "cancelled") return `was to be ${level(e.level)}, which was called off`;
  if (!e.outcome) return `is being ${level(e.level)}`;
  const reached = e.outcome === "stopped" ? 3 : e.level;
  return `was ${level(reached)}${reached === e.level ? "" : ` (level ${e.level} was asked for)`}`;
}

/** A model's name without its owner, where the whole one is told nearby. */
export const short = (name) => name.slice(name.lastIndexOf("/") + 1);

/** An eviction in one line, for a list. */
export function evictionShort(e, device) {
  const use = e.inFlight ? `${count(e.inFlight, "request")} in flight` : e.idle === null ? "" : `idle for ${seconds(e.idle)}`;
  const end = e.outcome === "cancelled" ? "called off" : e.freed === null ? "" : `freed ${bytes(e.freed)} after ${seconds(e.took ?? 0)}`;
  return [`${device} was ${bytes(e.short)} short`, use, `to level ${e.level}`, end].filter(Boolean).join(" · ");
}

/** An eviction in lines: what happened, why, who was spared. */
export function eviction(e, device) {
  const lines = [`${e.model} ${went(e)} for ${e.by}`];
  lines.push(`${e.by} needed memory: ${device} was ${bytes(e.short)} short.`);
  if (e.inFlight) lines.push(`${e.model} had ${count(e.inFlight, "request")} in flight.`);
  else if (e.idle !== null) lines.push(`${e.model} had been idle for ${seconds(e.idle)}.`);
  if (e.cost) lines.push(`It cost the least: ${e.cost}.`);
  if (e.freed !== null) lines.push(`It freed ${bytes(e.freed)} after ${seconds(e.took ?? 0)}.`);
  const spared = e.spared.map(([model, why, flying]) => `${model} (${[flying && `${flying} in flight`, why !== "busy" && why].filter(Boolean).join(", ")})`);
  if (e.leftOut) spared.push(`${e.leftOut} more`);
  if (spared.length) lines.push(`Spared: ${spared.join(", ")}.`);
  lines.push(clock(e.at));
  return lines;
}
