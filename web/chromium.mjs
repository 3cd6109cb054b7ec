// node web/chromium.mjs CHROMIUM FOLDER [SCREENSHOT.png]: serves a built page, opens it in headless Chromium, tells a story by keyboard and compares it with that of the
// module in Node; then gives the page a damaged file and a sound one.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { Browser } from "./browser.mjs";
import { Model } from "./onebit.js";

const [chromium, folder, screenshot] = process.argv.slice(2);
const TYPES = { html: "text/html", js: "text/javascript", wasm: "application/wasm" };

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

const modelBytes = readFileSync(join(folder, "stories-mcu.1bit"));
const model = await Model.open(readFileSync(join(folder, "onebit-simd128.wasm")), modelBytes);
const expected = "Tom was a" + [...model.generate("Tom was a", { seed: 1n })].map(({ text }) => text).join("");
assert.ok(expected.length > 50);

const browser = new Browser(chromium);
try {
  const page = await browser.open(`http://127.0.0.1:${server.address().port}/index.html`, { width: 420, height: 1100, mobile: true });
  const choose = (name, bytes) => {
    const path = join(browser.room, name);
    writeFileSync(path, bytes);
    return page.choose("#file", path);
  };
  await page.until(`document.body?.dataset.state === "ready"`);

  await page.value(`document.getElementById("prompt").select()`);
  await page.type("Tom was a");
  await page.press("Enter");
  await page.until(`document.body.dataset.state === "done"`);
  assert.equal(await page.value(`document.getElementById("story").textContent`), expected);
  const speed = await page.value(`document.getElementById("speed").textContent`);
  assert.match(speed, /^\d+ tokens, [\d,]+ a second$/);
  assert.ok(asked.has("onebit-simd128.wasm") && !asked.has("onebit.wasm"), `the page asked for ${[...asked]}`);
  assert.equal(await page.value(`document.documentElement.scrollWidth`), 420, "the page is as wide as the phone");
  if (screenshot) await page.screenshot(screenshot);

  await choose("short.1bit", modelBytes.subarray(0, 1000));
  await page.until(`!document.getElementById("error").hidden`);
  assert.match(await page.value(`document.getElementById("error").textContent`), /^short.1bit: damaged/);
  assert.equal(await page.value(`document.getElementById("go").disabled`), true);
  await choose("whole.1bit", modelBytes);
  await page.until(`!document.getElementById("go").disabled`);
  assert.equal(await page.value(`document.getElementById("error").hidden`), true);
  assert.deepEqual(page.troubles, []);
  console.log(`in Chromium: the story of ${expected.length} characters is that of the module in Node; ${speed}`);
} finally {
  server.close();
  server.closeAllConnections();
  await browser.close();
}
