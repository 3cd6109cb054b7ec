// node cli/tests/page/page.mjs [URL]: the chat page in headless Chromium ($CHROMIUM, or that of the PATH). Against a mock server, with faults; with the address of an `onebit serve`,
// against that, without them. $SHOTS is a folder for pictures, $ONLY a part of the names of the scenarios to run.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Browser } from "../../../web/browser.mjs";
import { Chat, WIDE } from "./chat.mjs";
import { faults } from "./faults.mjs";
import { Mock } from "./mock.mjs";
import { scenarios } from "./scenarios.mjs";
import "./units.mjs";

const [given] = process.argv.slice(2);
const { CHROMIUM = "chromium", SHOTS, ONLY = "" } = process.env;
/** Milliseconds for all of it. */
const LIMIT = 600_000;
/** Milliseconds for one step: a real model may be slow. */
const STEP = given ? 60_000 : 20_000;

const mock = given ? null : await new Mock().listen();
const url = given ? new URL("/", given).href : mock.url;
const policy = (await fetch(url)).headers.get("content-security-policy") ?? "";
for (const part of ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'"]) assert.ok(policy.includes(part), `the page's policy lacks ${part}: ${policy}`);

if (SHOTS) mkdirSync(SHOTS, { recursive: true });
const browser = new Browser(CHROMIUM, LIMIT);
let failed = 0;
try {
  const page = await browser.open("about:blank", WIDE);
  page.patience = STEP;
  const chat = new Chat(page, url);
  const open = async () => new Chat(await browser.open(url, WIDE), url);
  const shot = async (name) => SHOTS && page.screenshot(join(SHOTS, `${name}.png`));
  const all = Object.entries({ ...scenarios, ...(mock ? faults : {}) }).filter(([name]) => name.includes(ONLY));
  assert.ok(all.length > 0, `no scenario is called ${ONLY}`);
  for (const [name, scenario] of all) {
    const start = Date.now();
    try {
      await scenario({ chat, page, mock, open, shot });
      assert.deepEqual(page.troubles, []);
      console.log(`ok  ${name} (${Date.now() - start} ms)`);
    } catch (problem) {
      failed++;
      console.error(`FAILED  ${name}\n${problem.stack}\n${page.troubles.join("\n")}`);
      await shot(`failed-${failed}`).catch(() => {});
      Object.assign(mock ?? {}, { plan: [], key: null, model: "wikitext2-25m" });
      page.troubles.length = 0;
    }
  }
  console.log(`the chat page, in Chromium, against ${given ?? "the mock server"}: ${all.length} scenarios, ${failed} of them failed`);
} finally {
  mock?.close();
  await browser.close();
}
process.exitCode = failed === 0 ? 0 : 1;
