// What the page says to the server: `GET v1/models` and, as a stream, `POST v1/chat/completions` of the OpenAI API. The addresses are relative, so that the page works behind a
// proxy that puts it in a folder.

/** The server said no, or broke an answer off: its message; `status`, the HTTP status (0 in the middle of a stream); `code`, its error code; `wait`, seconds it asks for. */
export class Refusal extends Error {
  constructor(message, { status = 0, code = null, wait = null } = {}) {
    super(message);
    Object.assign(this, { status, code, wait });
  }
}

/** No server was reached, or the connection ended before the answer did. */
export class Lost extends Error {}

/** The events of a stream of Server-Sent Events that comes in pieces of any length: lines end in \n, \r\n or \r, an event with an empty line. */
export class Events {
  #unread = "";
  #data = [];

  /** Takes the next piece; returns the data of each event that it completes. */
  push(piece) {
    // A \r at the end may be the half of a \r\n.
    const lines = (this.#unread + piece).split(/\r\n|\n|\r(?!$)/);
    this.#unread = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      if (line !== "" || this.#data.length === 0) continue;
      events.push(this.#data.join("\n"));
      this.#data = [];
    }
    return events;
  }
}

/** The messages as a chat template takes them: roles in turn, none empty. A question whose answer failed is asked together with the next one. */
export function turns(messages, system = "") {
  const turns = system.trim() === "" ? [] : [{ role: "system", content: system }];
  for (const { role, content } of messages) {
    const before = turns.at(-1);
    if (content === "") continue;
    if (before?.role === role) before.content += `\n\n${content}`;
    else turns.push({ role, content });
  }
  return turns;
}

/** The name of the model that the server has. */
export async function model(options) {
  const models = await (await send("v1/models", {}, options)).json().catch(() => null);
  const name = models?.data?.[0]?.id;
  if (typeof name !== "string") throw new Refusal("the server names no model in v1/models");
  return name;
}

/**
 * The parts of an answer as they come: `{ text }`, `{ finish }` (why it ended), `{ usage }`. Ends with the answer; throws `Refusal`, `Lost`, or what an aborted `signal` throws.
 */
export async function* answer(request, options) {
  const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } });
  const response = await send("v1/chat/completions", { method: "POST", body, headers: { "content-type": "application/json" } }, options);
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) throw new Refusal("the server did not answer with a stream of events");
  const [reader, decoder, events] = [response.body.getReader(), new TextDecoder(), new Events()];
  for (;;) {
    const { done, value } = await reader.read().catch(lost(options.signal));
    if (done) throw new Lost("the connection was lost");
    for (const data of events.push(decoder.decode(value, { stream: true }))) {
      if (data === "[DONE]") return;
      yield* parts(data);
    }
  }
}

function* parts(data) {
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    throw new Refusal("the server sent an event that is no JSON");
  }
  if (chunk?.error) throw new Refusal(String(chunk.error.message ?? "the server broke the answer off"), { code: chunk.error.code });
  const choice = chunk?.choices?.[0];
  if (choice?.delta?.content) yield { text: String(choice.delta.content) };
  if (choice?.finish_reason) yield { finish: choice.finish_reason };
  if (chunk?.usage) yield { usage: chunk.usage };
}

async function send(address, request, { key, signal }) {
  const headers = { ...request.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const response = await fetch(address, { ...request, headers, signal, cache: "no-store" }).catch(lost(signal));
  if (response.ok) return response;
  const { error } = (await response.json().catch(() => null)) ?? {};
  const wait = Number.parseInt(response.headers.get("retry-after"), 10);
  throw new Refusal(error?.message ?? `the server answered ${response.status} ${response.statusText}`.trim(), {
    status: response.status,
    code: error?.code ?? null,
    wait: Number.isFinite(wait) ? wait : null,
  });
}

/** A network's failure as `Lost`; an abort stays what it is. */
function lost(signal) {
  return (problem) => {
    throw signal?.aborted ? problem : new Lost("no connection to the server");
  };
}
