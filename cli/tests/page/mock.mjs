// A server for the chat page: it serves the page's files under the policy that `onebit serve` has, and answers as its API does, with the faults that a test asks for.
// `node cli/tests/page/mock.mjs [PORT]` runs it to be looked at: "fault 503" and the like as a message ask for faults.
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

const PAGE = new URL("../../src/commands/serve/page/", import.meta.url);
const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8", css: "text/css; charset=utf-8" };
export const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SAMPLE = `A linear layer of a ternary model keeps each weight as **−1, 0 or +1**, and one scale \`γ\` for the whole matrix.

1. The weights are divided by their mean magnitude and rounded.
2. Activations become int8, *per token*:
   - the largest magnitude of a token becomes 127,
   - the others follow.
3. The sum is an exact \`i32\`.

\`\`\`rust
/// y = (Σ xq·wq) · γ / s
fn dot(xq: &[i8], wq: &[i8]) -> i32 {
    xq.iter().zip(wq).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum()
}
\`\`\`

So a multiplication is left only where the sum leaves the integers, once a row.`;

const REFUSALS = {
  400: [400, { message: "the prompt has 5000 tokens, the model takes 4096: shorten it", type: "invalid_request_error", code: "context_length_exceeded" }],
  429: [429, { message: "too many requests wait", type: "rate_limit_error", code: "rate_limit_exceeded" }, { "retry-after": "7" }],
  503: [503, { message: "every place is taken", type: "server_error", code: "overloaded" }],
  500: [500, "<h1>no JSON</h1>"],
};

export class Mock {
  /** The bodies of the requests for an answer, in order. */
  asked = [];
  /** Answers that were broken off by who asked for them. */
  hungUp = 0;
  /** Every path that was asked for. */
  paths = new Set();
  /** The key that the server wants; null for none. */
  key = null;
  /** What the next answers are, in order: { text, fault, delay }, `delay` in milliseconds a token; `fault` is a status of REFUSALS, "cut" (the connection ends after half of it) or "broken" (an error comes after half of it). */
  plan = [];
  model = "wikitext2-25m";
  #server = createServer((request, response) => this.#answer(request, response).catch(() => response.destroy()));

  async listen(port = 0) {
    await new Promise((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}/`;
    return this;
  }

  close() {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #answer(request, response) {
    const path = new URL(request.url, "http://page").pathname;
    this.paths.add(path);
    const file = path === "/" ? "index.html" : path.slice(1);
    if (readdirSync(PAGE).includes(file)) {
      response.writeHead(200, { "content-type": TYPES[file.split(".").at(-1)], "content-security-policy": POLICY }).end(readFileSync(new URL(file, PAGE)));
      return;
    }
    if (this.key !== null && request.headers.authorization !== `Bearer ${this.key}`) {
      refuse(response, 401, { message: "no or a wrong API key", type: "invalid_request_error", code: "invalid_api_key" });
    } else if (path === "/v1/models") {
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ object: "list", data: [{ id: this.model, object: "model", owned_by: "onebit" }] }));
    } else if (path === "/v1/chat/completions") await this.#stream(request, response);
    else refuse(response, 404, { message: `${path}: no such path`, type: "invalid_request_error", code: null });
  }

  async #stream(request, response) {
    let body = "";
    for await (const part of request.setEncoding("utf8")) body += part;
    const asked = JSON.parse(body);
    this.asked.push(asked);
    const question = asked.messages.at(-1).content;
    const { text = SAMPLE, fault = /^fault (\w+)$/.exec(question)?.[1], delay = 12 } = this.plan.shift() ?? {};
    if (REFUSALS[fault]) return refuse(response, ...REFUSALS[fault]);
    let gone = false;
    response.on("close", () => {
      gone = !response.writableFinished;
      if (gone && fault !== "cut") this.hungUp++;
    });
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache" });
    const event = (data) => `data: ${JSON.stringify({ id: "chatcmpl-1", object: "chat.completion.chunk", model: this.model, ...data })}\n\n`;
    const piece = (delta, finish_reason = null) => event({ choices: [{ index: 0, delta, finish_reason }] });
    const tokens = text.match(/\s*\S{1,5}|\s+$/g) ?? [];
    const pause = () => new Promise((resolve) => setTimeout(resolve, delay));
    response.write(`: a comment\n\n${piece({ role: "assistant", content: "" })}`);
    for (const [at, content] of tokens.entries()) {
      if (gone) return;
      const half = at === tokens.length >> 1;
      // What was written has to be on its way.
      if (half && fault) await pause();
      if (half && fault === "cut") return response.destroy();
      if (half && fault === "broken") return response.end(event({ error: { message: "the answer cannot go on: no memory", type: "server_error", code: null } }));
      // In two writes, wherever the middle of the bytes is: of an event, of a letter.
      const bytes = Buffer.from(piece({ content }));
      response.write(bytes.subarray(0, bytes.length - 60));
      await pause();
      response.write(bytes.subarray(bytes.length - 60));
    }
    const limit = asked.max_tokens !== undefined && asked.max_tokens <= tokens.length;
    const usage = { prompt_tokens: 1250, completion_tokens: tokens.length, total_tokens: 1250 + tokens.length, prompt_tokens_details: { cached_tokens: 1024 } };
    response.write(piece({}, limit ? "length" : "stop"));
    if (asked.stream_options?.include_usage) response.write(event({ choices: [], usage }).replaceAll("\n", "\r\n"));
    response.end("data: [DONE]\n\n");
  }
}

function refuse(response, status, error, headers = {}) {
  const body = typeof error === "string" ? error : JSON.stringify({ error });
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(body);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { url } = await new Mock().listen(Number(process.argv[2] ?? 0));
  console.error(`listening on ${url}`);
}
