// What the chat page does where a server refuses, breaks off or says what it should not, and with a browser that keeps nothing: against the mock alone.
import assert from "node:assert/strict";
import { PHONE } from "./chat.mjs";

const EVIL = `<img src="x" onerror="window.hacked = 1"><script>window.hacked = 1</script>`;

export const faults = {
  async "HTML in what is said stays text"({ chat, page, mock }) {
    await chat.begin();
    const text = `${EVIL} **bold**\n\n- ${EVIL}\n\n\`\`\`${EVIL.replaceAll(" ", "")}\n${EVIL}\n\`\`\`\n\n\`${EVIL}\` [a link](javascript:window.hacked=1)`;
    mock.plan.push({ text, delay: 1 });
    await chat.ask(EVIL);
    const [question, answer] = await chat.texts();
    assert.equal(question, EVIL);
    assert.equal(answer.split(EVIL).length - 1, 4);
    assert.ok(answer.includes("[a link](javascript:window.hacked=1)"));
    assert.deepEqual(await page.value(`[...document.querySelectorAll("#log strong, #log li, #log pre code")].map((one) => one.tagName)`), ["STRONG", "LI", "CODE"]);
    await chat.reload();
    await page.press("ArrowUp");
    assert.equal(await page.value(`document.querySelectorAll("#log :is(img, script, a), nav :is(img, script)").length`), 0);
    assert.equal(await chat.text("nav a"), EVIL.slice(0, 80));
    assert.equal(await page.value("window.hacked"), undefined);
    assert.ok(!mock.paths.has("/x"));
  },

  async "Markdown becomes elements; code is copied"({ chat, page }) {
    await chat.begin();
    await chat.ask("How?");
    const shape = await page.value(`[...document.querySelector(".answer .said").querySelectorAll("*")].map((one) => one.tagName).join(" ")`);
    assert.equal(shape, "P STRONG CODE OL LI LI EM UL LI LI LI CODE DIV DIV SPAN BUTTON PRE CODE P");
    await page.value(`document.querySelector(".answer .said p").dataset.mark = "stays"`);
    await page.call("Browser.grantPermissions", { permissions: ["clipboardReadWrite", "clipboardSanitizedWrite"] });
    await chat.click("Copy", ".code");
    await page.until(`document.querySelector(".code button").textContent === "Copied"`);
    const code = await page.value("navigator.clipboard.readText()");
    assert.ok(code.startsWith("/// y = ") && code.endsWith("\n}"), code);
    // A page that was got over HTTP from another machine has no such clipboard.
    await page.value(`Object.defineProperty(navigator, "clipboard", { value: undefined, configurable: true })`);
    await chat.click("Copy", ".question");
    await page.until(`document.querySelector(".question button").textContent === "Copied"`);
    await page.value("delete navigator.clipboard");
    assert.equal(await page.value("navigator.clipboard.readText()"), "How?");
  },

  async "what is written stays as it is while more comes: a selection is not lost"({ chat, page, mock }) {
    await chat.begin();
    await chat.say("How?");
    await page.until(`document.querySelector(".answer .said ol")`);
    await page.value(`getSelection().selectAllChildren(document.querySelector(".answer .said p"))`);
    const selected = await page.value("getSelection().toString()");
    await chat.idle();
    assert.ok(selected.length > 20);
    assert.equal(await page.value("getSelection().toString()"), selected);
    assert.equal(mock.plan.length, 0);
  },

  async "a key is asked for, refused, taken, and kept"({ chat, page, mock, shot }) {
    mock.key = "right";
    await chat.begin();
    assert.equal(await chat.text("#trouble p"), "The server asks for an API key.");
    await chat.ask("Hello");
    assert.equal(await chat.text(".answer .trouble p"), "The server asks for an API key.");
    await shot("key-light");
    // The field has the focus.
    await chat.say("wrong");
    await page.until(`document.querySelector(".answer .trouble p")?.textContent.startsWith("The server does not take")`);
    await chat.idle();
    await chat.say("right");
    await page.until(`!document.querySelector(".trouble") && document.querySelector(".answer .facts")?.textContent.includes("cached")`);
    assert.deepEqual(mock.asked.at(-1).messages, [{ role: "user", content: "Hello" }]);
    assert.equal(await chat.text("#model"), mock.model);
    await chat.reload();
    assert.equal(await page.value(`document.querySelectorAll(".trouble").length`), 0);
    // And where the page begins.
    await chat.begin();
    await page.value(`document.querySelector("#trouble input").focus()`);
    await chat.say("right");
    await page.until(`document.getElementById("model").textContent === "wikitext2-25m" && !document.querySelector("#trouble .trouble")`);
    mock.key = null;
  },

  async "an error or a lost connection in the middle keeps the half, and is tried again"({ chat, page, mock, shot }) {
    await chat.begin();
    for (const [fault, text] of [["broken", "The answer cannot go on: no memory."], ["cut", "The connection was lost. What had come is kept."]]) {
      await chat.click("New conversation");
      mock.plan.push({ fault, delay: 50, text: "one two three four five six" });
      await chat.ask("Count");
      assert.deepEqual(await chat.texts(), ["Count", "one two three"]);
      assert.equal(await chat.text(".answer .trouble p"), text);
      assert.equal(await page.value(`document.querySelector(".answer .trouble").getAttribute("role")`), "alert");
      await shot(`${fault}-light`);
      await chat.reload();
      assert.deepEqual([await chat.texts(), await chat.text(".answer .trouble p")], [["Count", "one two three"], text]);
      mock.plan.push({ delay: 1, text: "one two three four five six" });
      await chat.click("Try again");
      await chat.idle();
      assert.deepEqual(await chat.texts(), ["Count", "one two three four five six"]);
      assert.equal(await chat.text(".trouble"), null);
    }
  },

  async "a refusal says what the server says, and what to do"({ chat, page, mock, shot }) {
    await chat.begin();
    const texts = [
      [400, "The prompt has 5000 tokens, the model takes 4096: shorten it."],
      [429, "Too many requests wait. Try again in 7 s."],
      [503, "Every place is taken. Try again in a moment."],
      [500, "The server answered 500 Internal Server Error."],
    ];
    for (const [fault, text] of texts) {
      mock.plan.push({ fault });
      await chat.ask(`status ${fault}`);
      assert.equal(await chat.text(".answer .trouble p"), text);
    }
    await shot("refused-light");
    await chat.prefers("dark");
    const [, pale] = await chat.pale();
    assert.deepEqual(pale, []);
    await shot("refused-dark");
    await page.size(PHONE);
    assert.deepEqual(await chat.overflow(), []);
    await shot("phone-refused");
    await chat.prefers("light");
    // Four questions without an answer go to the server as one.
    await chat.ask("now");
    assert.deepEqual(mock.asked.at(-1).messages, [{ role: "user", content: "status 400\n\nstatus 429\n\nstatus 503\n\nstatus 500\n\nnow" }]);
  },

  async "an answer without a word says so"({ chat, mock }) {
    await chat.begin();
    mock.plan.push({ text: "" }, { text: "Now.", delay: 1 });
    await chat.ask("Say nothing");
    assert.equal(await chat.facts(), "prompt 1,250, 1,024 cached · an answer without text");
    await chat.ask("Say something");
    assert.deepEqual(mock.asked.at(-1).messages, [{ role: "user", content: "Say nothing\n\nSay something" }]);
  },

  async "an answer stands until there is another"({ chat, mock }) {
    await chat.begin();
    mock.plan.push({ text: "The first." }, { fault: "503" });
    await chat.ask("Say");
    await chat.click("Regenerate");
    await chat.idle();
    assert.deepEqual(await chat.texts(), ["Say", "The first."]);
    assert.equal(await chat.text(".answer .trouble p"), "Every place is taken. Try again in a moment.");
    mock.plan.push({ text: "The second." });
    await chat.click("Try again");
    await chat.idle();
    assert.deepEqual(await chat.texts(), ["Say", "The second."]);
    assert.equal(await chat.text(".trouble"), null);
  },

  async "a server that is not there, and comes back"({ chat, page, mock }) {
    await chat.begin();
    // Requests fail as they do where nothing listens.
    const offline = (offline) => page.call("Network.emulateNetworkConditions", { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
    await page.call("Network.enable");
    await offline(true);
    await chat.ask("Hello");
    assert.equal(await chat.text(".answer .trouble p"), "The server cannot be reached. Does onebit serve run?");
    await offline(false);
    mock.model = "another-model";
    await chat.click("Try again");
    await chat.idle();
    assert.equal(await chat.text(".trouble"), null);
    assert.equal(await chat.text("#model"), "another-model", "it may have another model now");
    mock.model = "wikitext2-25m";
  },

  async "the settings go with each request; what is no setting does not"({ chat, page, mock }) {
    await chat.begin();
    await chat.click("Settings");
    await page.type("Be brief.");
    for (const value of ["0.5", "0.9", "40", "200", "7"]) {
      await page.press("Tab");
      await page.type(value);
    }
    await page.press("Enter");
    assert.equal(await page.value(`document.getElementById("settings").open`), false);
    await chat.click("New conversation");
    await chat.ask("Hello");
    const { temperature, top_p, top_k, max_tokens, seed, messages } = mock.asked.at(-1);
    assert.deepEqual({ temperature, top_p, top_k, max_tokens, seed }, { temperature: 0.5, top_p: 0.9, top_k: 40, max_tokens: 200, seed: 7 });
    assert.deepEqual(messages, [{ role: "system", content: "Be brief." }, { role: "user", content: "Hello" }]);
    // What is out of range is shown as such, and not kept.
    await chat.click("Settings");
    await page.press("Tab");
    await page.type("9");
    await page.press("Enter");
    assert.equal(await page.value(`document.getElementById("settings").open`), true);
    assert.equal(await page.value(`document.querySelector("[name=temperature]").matches(":user-invalid")`), true);
    await page.press("Escape");
    await chat.click("Settings");
    assert.equal(await page.value(`document.querySelector("[name=temperature]").value`), "0.5");
    await chat.click("Reset");
    await chat.click("Done");
    await page.press("/");
    await chat.ask("Hello");
    assert.deepEqual(Object.keys(mock.asked.at(-1)), ["model", "messages", "stream", "stream_options"]);
    assert.equal(mock.asked.at(-1).messages[0].role, "user");
  },

  async "an answer is written on where nobody looks, and in another window"({ chat, page, mock, open }) {
    await chat.begin();
    await chat.say("First");
    await chat.begun();
    await chat.click("New conversation");
    assert.equal(await page.value(`document.querySelector("nav a").matches(".busy")`), true);
    mock.plan.push({ text: "Short." });
    await chat.ask("Second");
    const other = await open();
    await other.page.until(`document.querySelectorAll("nav a").length === 2`);
    await page.until(`!document.querySelector("nav .busy")`);
    await chat.click("First", "nav");
    await page.until(`document.title.startsWith("First")`);
    assert.match(await chat.facts(), /^137 tokens/);
    assert.ok((await chat.texts())[1].endsWith("once a row."));
    await other.click("First", "nav");
    await other.page.until(`document.title.startsWith("First")`);
    assert.deepEqual(await other.texts(), await chat.texts());
    // Words in the one come to the other.
    mock.plan.push({ text: "Third answer." });
    await chat.ask("Third");
    await other.page.until(`document.querySelectorAll("#log article").length === 4 && document.querySelector("#log article:last-of-type .said").textContent === "Third answer."`);
    assert.deepEqual(other.page.troubles, []);
    // A page behind another one is not drawn.
    await other.page.call("Page.close");
    await page.call("Page.bringToFront");
  },

  async "the page is closed in the middle of an answer"({ chat, page, mock }) {
    await chat.begin();
    const { hungUp } = mock;
    await chat.say("Tell");
    await chat.begun();
    await chat.reload();
    const [, half] = await chat.texts();
    assert.ok(half.length > 3 && !half.endsWith("once a row."));
    assert.equal(await chat.text(".answer .trouble p"), "The page was closed while this was written. What had come is kept.");
    assert.equal(mock.hungUp, hungUp + 1);
    assert.equal(await page.value(`document.querySelectorAll(".writing").length`), 0);
  },

  async "a browser's storage is full, or damaged"({ chat, page, mock }) {
    await chat.begin();
    await page.value(`(() => { for (const size of [1 << 20, 1 << 14, 1 << 8, 1]) for (let at = 0; ; at++) try { localStorage.setItem("filler" + size + "." + at, "x".repeat(size)); } catch { break; } })()`);
    mock.plan.push({ text: "An answer." });
    await chat.ask("Hello");
    assert.deepEqual(await chat.texts(), ["Hello", "An answer."]);
    assert.match(await chat.text("#notice"), /has no room/);
    await page.value(`localStorage.clear()`);
    mock.plan.push({ text: "Another." });
    await chat.ask("Again");
    await chat.reload();
    assert.deepEqual(await chat.texts(), ["Hello", "An answer.", "Again", "Another."], "there is room now");
    await page.value(`Object.entries({ "onebit.chat.conversation.a": "{", "onebit.chat.conversation.b": "null", "onebit.chat.conversation.c": '{"id":"c","updated":1,"messages":[{"role":"system"}]}', "onebit.chat.settings": "[" })
      .forEach(([key, value]) => localStorage.setItem(key, value))`);
    await chat.reload();
    assert.equal(await page.value(`document.querySelectorAll("nav a").length`), 1);
  },

  async "a reader who scrolls back is left there"({ chat, page, mock }) {
    await chat.begin();
    const log = (what) => page.value(`(() => { const log = document.getElementById("log"); return ${what}; })()`);
    const away = () => log("Math.round(log.scrollHeight - log.clientHeight - log.scrollTop)");
    mock.plan.push({ text: "Paragraph after paragraph.\n\n".repeat(60), delay: 4 });
    await chat.say("Go");
    await page.until(`document.getElementById("log").scrollTop > 300`);
    assert.ok((await away()) <= 2, "the page goes with the answer");
    await page.call("Input.dispatchMouseEvent", { type: "mouseWheel", x: 700, y: 300, deltaX: 0, deltaY: -200 });
    await page.until(`!document.getElementById("newest").hidden`);
    await page.until(`document.getElementById("log").getAttribute("aria-busy") === "true"`);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const place = await log("log.scrollTop");
    await chat.idle();
    assert.equal(await log("log.scrollTop"), place, "it stays");
    await chat.click("To the end of the conversation");
    assert.ok((await away()) <= 2);
    assert.equal(await page.value(`document.getElementById("newest").hidden`), true);
  },
};
