// node web/chromium.mjs CHROMIUM FOLDER [SCREENSHOT.png]: serves a built page, opens it in headless Chromium, tells a story by keyboard and compares it with that of the
// module in Node; then gives the page a damaged file and a sound one. Chromium is spoken to over two pipes (--remote-debugging-pipe), in messages that end in a zero.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Model } from "./onebit.js";

const [chromium, folder, screenshot] = process.argv.slice(2);
const TYPES = { html: "text/html", js: "text/javascript", wasm: "application/wasm" };
/** Milliseconds until Chromium has started and the page has done what it is asked for. */
const PATIENCE = 120_000;

const asked = new Set();
const server = createServer((request, response) => {
  const name = new URL(request.url, "http://page").pathname.slice(1);
  asked.add(name);
  try {
    const body = readFileSync(join(folder, name.replaceAll("..", "")));
    response.writeHead(200, { "content-type": TYPES[name.split(".").at(-1)] ?? "application/octet-stream" }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const room = mkdtempSync(join(tmpdir(), "onebit-web-"));
const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", `--user-data-dir=${room}/profile`, "--remote-debugging-pipe"];
const browser = spawn(chromium, [...flags, "about:blank"], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
const ended = new Promise((resolve) => browser.on("close", resolve));
const late = setTimeout(() => browser.kill("SIGKILL"), 2 * PATIENCE);

const waiting = new Map();
let [next, unread, session] = [0, "", undefined];
browser.stdio[4].on("data", (part) => {
  const messages = (unread + part).split("\0");
  unread = messages.pop();
  for (const { id, result, error } of messages.map((message) => JSON.parse(message))) {
    const { resolve, reject } = waiting.get(id) ?? {};
    if (error) reject?.(new Error(error.message));
    else resolve?.(result);
  }
});
ended.then(() => waiting.forEach(({ reject }) => reject(new Error("Chromium has ended"))));

function call(method, params = {}) {
  const id = ++next;
  browser.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: session })}\0`);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

async function value(expression) {
  const { result, exceptionDetails } = await call("Runtime.evaluate", { expression, returnByValue: true });
  assert.equal(exceptionDetails, undefined, expression);
  return result.value;
}

async function until(expression) {
  const end = Date.now() + PATIENCE;
  while (!(await value(expression))) {
    assert.ok(Date.now() < end, `still not so: ${expression}\n${await value("document.body.innerText")}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function choose(name, bytes) {
  const path = join(room, name);
  writeFileSync(path, bytes);
  const { root } = await call("DOM.getDocument");
  const { nodeId } = await call("DOM.querySelector", { nodeId: root.nodeId, selector: "#file" });
  await call("DOM.setFileInputFiles", { nodeId, files: [path] });
}

const modelBytes = readFileSync(join(folder, "stories-mcu.1bit"));
const model = await Model.open(readFileSync(join(folder, "onebit-simd128.wasm")), modelBytes);
const expected = "Tom was a" + [...model.generate("Tom was a", { seed: 1n })].map(({ text }) => text).join("");
assert.ok(expected.length > 50);

try {
  const { targetId } = await call("Target.createTarget", { url: `http://127.0.0.1:${server.address().port}/index.html` });
  session = (await call("Target.attachToTarget", { targetId, flatten: true })).sessionId;
  await call("Emulation.setDeviceMetricsOverride", { width: 420, height: 1100, deviceScaleFactor: 1, mobile: true });
  await until(`document.body?.dataset.state === "ready"`);

  await value(`document.getElementById("prompt").select()`);
  await call("Input.insertText", { text: "Tom was a" });
  for (const type of ["keyDown", "keyUp"]) await call("Input.dispatchKeyEvent", { type, key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: "\r" });
  await until(`document.body.dataset.state === "done"`);
  assert.equal(await value(`document.getElementById("story").textContent`), expected);
  const speed = await value(`document.getElementById("speed").textContent`);
  assert.match(speed, /^\d+ tokens, [\d,]+ a second$/);
  assert.ok(asked.has("onebit-simd128.wasm") && !asked.has("onebit.wasm"), `the page asked for ${[...asked]}`);
  assert.equal(await value(`document.documentElement.scrollWidth`), 420, "the page is as wide as the phone");
  if (screenshot) writeFileSync(screenshot, Buffer.from((await call("Page.captureScreenshot")).data, "base64"));

  await choose("short.1bit", modelBytes.subarray(0, 1000));
  await until(`!document.getElementById("error").hidden`);
  assert.match(await value(`document.getElementById("error").textContent`), /^short.1bit: damaged/);
  assert.equal(await value(`document.getElementById("go").disabled`), true);
  await choose("whole.1bit", modelBytes);
  await until(`!document.getElementById("go").disabled`);
  assert.equal(await value(`document.getElementById("error").hidden`), true);
  console.log(`in Chromium: the story of ${expected.length} characters is that of the module in Node; ${speed}`);
} finally {
  server.close();
  server.closeAllConnections();
  await Promise.race([call("Browser.close").catch(() => {}), ended]);
  await ended;
  clearTimeout(late);
  rmSync(room, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
}
