// A headless Chromium and its pages, as tests use them. It is spoken to over two pipes (--remote-debugging-pipe), in messages that end in a zero.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Milliseconds until Chromium has started and a page has done what it is asked for. */
const PATIENCE = 120_000;

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe"];

/** Keys that are no letters, by name: their code in events, and the text that they write. */
const KEYS = { Enter: [13, "\r"], Tab: [9], Escape: [27], Backspace: [8], ArrowUp: [38], ArrowDown: [40], PageUp: [33], Home: [36], " ": [32, " "] };
const MODIFIERS = { alt: 1, control: 2, meta: 4, shift: 8 };

export class Browser {
  /** A folder of its own, which goes when the browser is closed. */
  room = mkdtempSync(join(tmpdir(), "onebit-web-"));
  #process;
  #ended;
  #late;
  #waiting = new Map();
  #pages = new Map();
  #next = 0;

  /** Starts it; it ends after `limit` milliseconds at the latest. */
  constructor(chromium, limit = 2 * PATIENCE) {
    this.#process = spawn(chromium, [...FLAGS, `--user-data-dir=${this.room}/profile`, "about:blank"], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    this.#ended = new Promise((resolve) => this.#process.on("close", resolve));
    this.#late = setTimeout(() => this.#process.kill("SIGKILL"), limit);
    this.#ended.then(() => this.#waiting.forEach(({ reject }) => reject(new Error("Chromium has ended"))));
    let unread = "";
    this.#process.stdio[4].setEncoding("utf8").on("data", (part) => {
      const messages = (unread + part).split("\0");
      unread = messages.pop();
      for (const message of messages) this.#take(JSON.parse(message));
    });
  }

  #take({ id, sessionId, method, params, result, error }) {
    if (method) return this.#pages.get(sessionId)?.happened(method, params);
    const { resolve, reject } = this.#waiting.get(id) ?? {};
    this.#waiting.delete(id);
    if (error) reject?.(new Error(error.message));
    else resolve?.(result);
  }

  call(method, params = {}, sessionId = undefined) {
    const id = ++this.#next;
    this.#process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  /** Opens a page in a window of that size. */
  async open(url, { width, height, mobile = false }) {
    const { targetId } = await this.call("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.call("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page((method, params) => this.call(method, params, sessionId));
    this.#pages.set(sessionId, page);
    for (const domain of ["Page", "Runtime", "Log"]) await page.call(`${domain}.enable`);
    await page.size({ width, height, mobile });
    await page.call("Page.navigate", { url });
    return page;
  }

  async close() {
    await Promise.race([this.call("Browser.close").catch(() => {}), this.#ended]);
    await this.#ended;
    clearTimeout(this.#late);
    rmSync(this.room, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

class Page {
  /** What the page did wrong: exceptions that nothing caught, and errors that Chromium wrote down, such as what a policy forbids. */
  troubles = [];
  /** Milliseconds that it has for what it is asked for. */
  patience = PATIENCE;
  call;

  constructor(call) {
    this.call = call;
  }

  happened(method, params) {
    if (method === "Runtime.exceptionThrown") this.troubles.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    // What comes from the network, the page has to deal with.
    if (method === "Log.entryAdded" && params.entry.level === "error" && params.entry.source !== "network") this.troubles.push(params.entry.text);
  }

  /** A mobile page is touched, too. */
  async size({ width, height, mobile = false }) {
    await this.call("Emulation.setTouchEmulationEnabled", { enabled: mobile });
    return this.call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile });
  }

  /** The value of a JavaScript expression, which may be a promise. */
  async value(expression) {
    const { result, exceptionDetails } = await this.call("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    assert.equal(exceptionDetails, undefined, `${expression}: ${exceptionDetails?.exception?.description}`);
    return result.value;
  }

  /** Waits until an expression is true. */
  async until(expression) {
    const end = Date.now() + this.patience;
    while (!(await this.value(expression))) {
      assert.ok(Date.now() < end, `still not so: ${expression}\n${await this.value("document.body.innerText")}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Writes text where the focus is. */
  type(text) {
    return this.call("Input.insertText", { text });
  }

  /** Presses a key, with "shift", "control", "alt" or "meta" held. */
  async press(key, ...held) {
    const modifiers = held.reduce((sum, name) => sum + MODIFIERS[name], 0);
    const [windowsVirtualKeyCode, text = undefined] = KEYS[key] ?? [key.toUpperCase().charCodeAt(0), held.includes("control") ? undefined : key];
    for (const type of ["keyDown", "keyUp"]) await this.call("Input.dispatchKeyEvent", { type, key, code: key, windowsVirtualKeyCode, modifiers, text: type === "keyDown" ? text : undefined });
  }

  /** Gives a file to the input that `selector` names. */
  async choose(selector, path) {
    const { root } = await this.call("DOM.getDocument");
    const { nodeId } = await this.call("DOM.querySelector", { nodeId: root.nodeId, selector });
    await this.call("DOM.setFileInputFiles", { nodeId, files: [path] });
  }

  async screenshot(path) {
    writeFileSync(path, Buffer.from((await this.call("Page.captureScreenshot")).data, "base64"));
  }
}
