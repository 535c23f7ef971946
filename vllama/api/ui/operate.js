// Commands to the server: start, sleep, stop. Each is answered when its goal is reached, which may take minutes.

import { say } from "./dom.js";
import { json } from "./http.js";

const DOING = { start: "Starting", sleep: "Going to sleep", stop: "Stopping" };

/** What one would do with a model in this phase, in one word. */
export function nextStep(model) {
  switch (model.phase) {
    case "awake":
      return { label: "Sleep", verb: "sleep", level: 2 };
    case "asleep":
      return { label: "Wake", verb: "start" };
    case "stopped":
    case "failed":
      return { label: "Start", verb: "start" };
    default:
      return { label: "Stop", verb: "stop" };
  }
}

/** Runs a command; what it came to, for the reader. The model shows meanwhile that it was asked. */
export async function operate(store, model, verb, more = {}, tell = say) {
  const asked = `${DOING[verb]}…`;
  model.asked = asked;
  store.version += 1;
  try {
    const result = await json(`/control/${verb}`, { method: "POST", body: { model: model.name, ...more } });
    if (result.note) tell(`${model.name}: ${result.note}`, "info");
    return true;
  } catch (error) {
    tell(error.message.includes(model.name) ? error.message : `${model.name}: ${error.message}`, "error");
    return false;
  } finally {
    if (model.asked === asked) model.asked = "";
    store.version += 1;
  }
}
