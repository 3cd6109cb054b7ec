// node web/chromium.mjs CHROMIUM FOLDER [SCREENSHOT.png]: serves a built page, opens it in headless Chromium, and compares the story with that of the module in Node.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Model } from "./onebit.js";

const [chromium, folder, screenshot] = process.argv.slice(2);
const TYPES = { html: "text/html", js: "text/javascript", wasm: "application/wasm", "1bit": "application/octet-stream" };
const asked = new Set();
const server = createServer((request, response) => {
  const name = new URL(request.url, "http://page").pathname.slice(1) || "index.html";
  asked.add(name);
  try {
    const body = readFileSync(join(folder, name.replaceAll("..", "")));
    response.writeHead(200, { "content-type": TYPES[name.split(".").at(-1)] ?? "text/plain" }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

/** What Chromium prints, once it has ended. */
function run(url, ...flags) {
  const profile = mkdtempSync(join(tmpdir(), "onebit-web-"));
  const fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", `--user-data-dir=${profile}`, "--virtual-time-budget=60000"];
  const browser = spawn(chromium, [...fixed, ...flags, url], { stdio: ["ignore", "pipe", "ignore"] });
  const late = setTimeout(() => browser.kill("SIGKILL"), 240_000);
  let text = "";
  browser.stdout.on("data", (part) => (text += part));
  return new Promise((resolve) => browser.on("close", () => {
    clearTimeout(late);
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
    resolve(text);
  }));
}

const model = await Model.open(readFileSync(join(folder, "onebit-simd128.wasm")), readFileSync(join(folder, "stories-mcu.1bit")));
const page = `http://127.0.0.1:${server.address().port}/index.html#seed=3&temperature=0.6&prompt=Tom+was+a`;
const expected = "Tom was a" + [...model.generate("Tom was a", { seed: 3n })].map(({ text }) => text).join("");

if (screenshot) await run(page, "--window-size=420,900", "--hide-scrollbars", `--screenshot=${screenshot}`);
const dom = await run(page, "--dump-dom");
server.close();
const story = /<div id="story"[^>]*>(.*?)<\/div>/s.exec(dom)?.[1] ?? "";
const found = story.replace(/<[^>]*>/g, "").replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&nbsp;", "\u00a0").replaceAll("&amp;", "&");
assert.match(dom, /data-state="done"/, `the page did not finish:\n${dom}`);
assert.ok(expected.length > 50);
assert.equal(found, expected);
assert.ok(asked.has("onebit-simd128.wasm") && !asked.has("onebit.wasm"), `the page asked for ${[...asked]}`);
const speed = /<p id="speed"[^>]*>(.*?)<\/p>/.exec(dom)?.[1];
// The clock of such a run stands still while the page computes: the speed says nothing.
assert.match(speed, /^\d+ tokens, [\d,]+ a second$/);
console.log(`in Chromium: the story of ${expected.length} characters is that of the module in Node`);
