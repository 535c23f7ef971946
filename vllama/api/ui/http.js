// Requests to the server that served this page, and to no other; with the key, once there is one.

const STORED = "vllama-key";
let key = "";
try {
  key = sessionStorage.getItem(STORED) ?? "";
} catch {
  // storage is switched off: the key lasts as long as the page
}

export function setKey(value) {
  key = value;
  try {
    if (value) sessionStorage.setItem(STORED, value);
    else sessionStorage.removeItem(STORED);
  } catch {
    // as above
  }
}

export const hasKey = () => key !== "";

/** The server said no. `status` is HTTP's; the message is for people. */
export class Refused extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The server cannot be reached. */
export class Unreachable extends Error {}

/** One request; the answer's head is good. Raises Refused, Unreachable, AbortError. */
export async function ask(path, { method = "GET", body, signal, headers = {} } = {}) {
  const sent = { ...headers };
  if (key) sent.Authorization = `Bearer ${key}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method, headers: sent, signal, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "omit", redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The server does not answer.");
  }
  if (answer.ok) return answer;
  let error = {};
  try {
    error = (await answer.json()).error ?? {};
  } catch {
    // not one of ours: the status has to do
  }
  throw new Refused(answer.status, error.message || `The server answered ${answer.status}.`, error.code ?? "");
}

export const json = async (path, options) => (await ask(path, options)).json();

/** The answer's text in pieces as they come. Raises Unreachable where the connection breaks. */
export async function* pieces(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      let read;
      try {
        read = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Unreachable("The connection to the server broke.");
      }
      if (read.done) return;
      yield read.value;
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** Server-sent events: {id, event, data} each; null for a comment. */
export async function* events(answer) {
  let rest = "";
  for await (const piece of pieces(answer)) {
    const blocks = (rest + piece.replaceAll("\r\n", "\n")).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const found = { id: "", event: "", data: "" };
      for (const line of block.split("\n")) {
        const at = line.indexOf(":");
        const name = line.slice(0, at);
        if (at > 0 && name in found) found[name] += line.slice(at + 1).replace(/^ /, "");
      }
      yield found.data ? found : null;
    }
    if (rest.startsWith(":")) yield null;
  }
}
