// What the chat page does with any server that answers. `mock` is null where the server is a real one; what only the server can see is looked at where there is one.
import assert from "node:assert/strict";
import { PHONE, WIDE } from "./chat.mjs";

const QUESTION = "In the beginning of the year";
/** Long enough to be stopped in the middle. */
const LONG = { max_tokens: "400", seed: "1" };
const SHORT = { max_tokens: "40", seed: "1" };
const FACTS = /^[\d,]+ tokens? · [\d.,]+ a second · prompt [\d,]+, [\d,]+ cached( · ended at the limit of tokens)?$/;

export const scenarios = {
  async "an answer comes in pieces, with its numbers below"({ chat, page, mock }) {
    await chat.begin(SHORT);
    await page.value(`(window.lengths = new Set(), new MutationObserver(() => window.lengths.add(document.querySelector(".answer .said")?.textContent.length ?? 0)).observe(document.getElementById("log"), { childList: true, subtree: true, characterData: true }))`);
    await chat.say(QUESTION);
    await page.until(`document.querySelector(".answer")?.getAttribute("aria-busy") === "true"`);
    await chat.idle();
    assert.ok((await page.value("window.lengths.size")) > 5, "the text grew in steps");
    assert.match(await chat.facts(), FACTS);
    assert.equal((await chat.texts())[0], QUESTION);
    assert.equal(await page.value(`document.querySelector(".answer").getAttribute("aria-busy")`), "false");
    assert.equal(await page.value(`document.title`), `${QUESTION} – OneBit`);
    if (mock) {
      assert.equal(await chat.text("#model"), mock.model);
      const { messages, ...request } = mock.asked.at(-1);
      assert.deepEqual(messages, [{ role: "user", content: QUESTION }]);
      assert.deepEqual(request, { model: mock.model, max_tokens: 40, seed: 1, stream: true, stream_options: { include_usage: true } });
    }
  },

  async "Escape stops: the half stays, and the server is let go"({ chat, page, mock }) {
    await chat.begin(LONG);
    const hungUp = mock?.hungUp;
    await chat.say(QUESTION);
    await chat.begun();
    await page.press("Escape");
    await chat.idle();
    const [, half] = await chat.texts();
    assert.ok(half.length > 0);
    assert.match(await chat.facts(), /^about [\d,]+ tokens?.* · stopped$/);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal((await chat.texts())[1], half, "nothing more came");
    if (mock) assert.equal(mock.hungUp, hungUp + 1, "the connection was closed");
    await chat.reload();
    assert.equal((await chat.texts())[1], half, "it was kept");
    // The button does the same, and what was said goes on from there.
    await chat.say("Go on");
    await chat.begun();
    await chat.click("Stop");
    await chat.idle();
    assert.match(await chat.facts(), /stopped$/);
    if (mock) assert.deepEqual(mock.asked.at(-1).messages.map(({ role }) => role), ["user", "assistant", "user"]);
  },

  async "the last answer is asked for again"({ chat, mock }) {
    await chat.begin(SHORT);
    await chat.ask(QUESTION);
    const before = await chat.texts();
    mock?.plan.push({ text: "Another answer." });
    await chat.click("Regenerate", ".answer");
    await chat.idle();
    const after = await chat.texts();
    assert.equal(after.length, 2);
    if (mock) {
      assert.deepEqual(after, [QUESTION, "Another answer."]);
      assert.deepEqual(mock.asked.at(-1), mock.asked.at(-2));
    } else assert.deepEqual(after, before, "the same seed, the same answer");
  },

  async "a message is edited and sent again"({ chat, page, mock }) {
    await chat.begin(SHORT);
    await chat.ask(QUESTION);
    await chat.ask("And then");
    // The first one, by mouse; given up, then by its button.
    await chat.click("Edit", ".question:first-of-type");
    await page.type(" and more");
    await page.press("Escape");
    assert.equal((await chat.texts())[0], QUESTION);
    assert.equal((await chat.texts()).length, 4);
    await chat.click("Edit", ".question:first-of-type");
    await page.type(" of peace");
    await chat.click("Send again");
    await chat.idle();
    const texts = await chat.texts();
    assert.equal(texts.length, 2, "what came after it is gone");
    assert.equal(texts[0], `${QUESTION} of peace`);
    if (mock) assert.deepEqual(mock.asked.at(-1).messages, [{ role: "user", content: `${QUESTION} of peace` }]);
  },

  async "a reload keeps the conversation, its numbers, and where it was"({ chat, page }) {
    await chat.begin(SHORT);
    await chat.ask(QUESTION);
    const [texts, facts, address] = [await chat.texts(), await chat.facts(), await page.value("location.href")];
    await chat.reload();
    assert.deepEqual(await chat.texts(), texts);
    assert.equal(await chat.facts(), facts);
    assert.equal(await page.value("location.href"), address);
    await chat.open("#no-such-conversation");
    assert.deepEqual(await chat.texts(), []);
    assert.equal(await page.value("location.hash"), "");
  },

  async "two conversations stand side by side; one is deleted and taken back"({ chat, page, mock }) {
    await chat.begin(SHORT);
    await chat.ask(QUESTION);
    const first = await chat.texts();
    await chat.click("New conversation");
    assert.deepEqual(await chat.texts(), []);
    await chat.ask("Another matter");
    const second = await chat.texts();
    assert.deepEqual(await page.value(`[...document.querySelectorAll("nav a")].map((link) => link.textContent)`), ["Another matter", QUESTION]);
    if (mock) assert.deepEqual(mock.asked.at(-1).messages, [{ role: "user", content: "Another matter" }], "it knows nothing of the first");
    await chat.click(QUESTION, "nav");
    await page.until(`document.title.startsWith(${JSON.stringify(QUESTION)})`);
    assert.deepEqual(await chat.texts(), first);
    assert.equal(await chat.text("nav [aria-current]"), QUESTION);
    await page.value("history.back()");
    await page.until(`document.title.startsWith("Another matter")`);
    assert.deepEqual(await chat.texts(), second);
    await chat.click("Delete: Another matter");
    assert.deepEqual(await chat.texts(), []);
    assert.deepEqual(await page.value(`[...document.querySelectorAll("nav a")].map((link) => link.textContent)`), [QUESTION]);
    await chat.click("Undo");
    await chat.click("Another matter", "nav");
    await page.until(`document.title.startsWith("Another matter")`);
    assert.deepEqual(await chat.texts(), second);
    await chat.click("Delete: Another matter");
    await chat.reload();
    assert.deepEqual(await page.value(`Object.keys(localStorage).filter((key) => key.startsWith("onebit.chat.conversation.")).length`), 1, "what is deleted is gone");
  },

  async "everything by keyboard"({ chat, page }) {
    await chat.begin(SHORT);
    const focused = () => page.value(`document.activeElement.getAttribute("aria-label") ?? document.activeElement.id ?? ""`);
    assert.equal(await focused(), "Message");
    await page.type("one");
    await page.press("Enter", "shift");
    await page.type("two");
    assert.equal(await page.value(`document.getElementById("input").value`), "one\ntwo");
    await page.press("Enter");
    await chat.idle();
    assert.equal((await chat.texts())[0], "one\ntwo");
    await page.press("ArrowUp");
    assert.equal(await focused(), "Edit your message");
    await page.press("Escape");
    assert.equal(await focused(), "Message");
    await page.press("ArrowUp");
    await page.type(" three");
    await page.press("Enter");
    await chat.idle();
    assert.deepEqual((await chat.texts()).map((text, at) => at === 0 ? text : ""), ["one\ntwo three", ""]);
    for (const keys of [["/"], ["k", "control"]]) {
      await page.value("document.getElementById('log').focus()");
      await page.press(...keys);
      assert.equal(await focused(), "Message", keys.join());
      assert.equal(await page.value(`document.getElementById("input").value`), "");
    }
    await page.type("/");
    assert.equal(await page.value(`document.getElementById("input").value`), "/", "a stroke is a stroke in a text");
    // Round the page: each stop is seen, and has a name.
    await page.value(`(document.getElementById("input").value = "", document.activeElement.blur())`);
    const stops = new Set();
    for (let step = 0; step < 25; step++) {
      await page.press("Tab");
      const [name, width, ring] = await page.value(`(() => {
        const one = document.activeElement;
        const style = getComputedStyle(one.matches("[type=radio]") ? one.nextElementSibling : one);
        return [one.getAttribute("aria-label") ?? (one.labels?.[0]?.textContent || one.textContent).trim(), style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth), getComputedStyle(one.closest("form") ?? one).boxShadow];
      })()`);
      if (name === "" || (await page.value("document.activeElement === document.body"))) continue;
      stops.add(name);
      assert.ok(width >= 2 || (name === "Message" && ring !== "none"), `${name} does not show that it has the focus`);
    }
    for (const name of ["New conversation", "Settings", "Auto", "Conversation", "Copy", "Edit", "Regenerate", "Message", "one", "Delete: one"]) assert.ok(stops.has(name), `Tab does not reach ${name}: ${[...stops]}`);
    // The settings open, keep what is typed, and give the focus back.
    await page.value(`document.getElementById("open-settings").focus()`);
    await page.press("Enter");
    assert.equal(await page.value(`document.getElementById("settings").open`), true);
    await page.press("Escape");
    assert.equal(await page.value(`document.getElementById("settings").open`), false);
    assert.equal(await page.value("document.activeElement.id"), "open-settings");
  },

  async "light and dark: as the system has it, and by the switch; all text has its contrast"({ chat, page, shot }) {
    await chat.begin(SHORT);
    const ground = () => page.value(`getComputedStyle(document.body).backgroundColor`);
    const both = {};
    for (const scheme of ["light", "dark"]) {
      await chat.prefers(scheme);
      both[scheme] = await ground();
      const readable = async (what) => {
        const [count, pale] = await chat.pale();
        assert.ok(count > 8, `texts were found: ${count}`);
        assert.deepEqual(pale, [], `${scheme}, ${what}`);
        await shot(`${what}-${scheme}`);
      };
      await readable("empty");
      await chat.ask(QUESTION);
      await readable("answer");
      await page.press("ArrowUp");
      await readable("edit");
      await page.press("Escape");
      await chat.click("Settings");
      await readable("settings");
      await page.press("Escape");
      await chat.click("New conversation");
    }
    assert.notEqual(both.light, both.dark);
    for (const [name, expected] of [["Light", both.light], ["Dark", both.dark]]) {
      await chat.click(name, "#theme");
      assert.equal(await ground(), expected);
      await chat.reload();
      assert.equal(await ground(), expected, "it is kept");
    }
    await chat.click("Auto", "#theme");
    await chat.prefers("light");
    assert.equal(await ground(), both.light);
  },

  async "a phone of 360 pixels: nothing lies beside it"({ chat, page, shot }) {
    await chat.begin(SHORT, PHONE);
    const fits = async (what) => {
      assert.deepEqual(await chat.overflow(), [], what);
      await shot(`phone-${what}`);
    };
    await fits("empty");
    await page.value(`document.getElementById("input").focus()`);
    await chat.ask(`${QUESTION} ${"verylongword".repeat(12)}`);
    await fits("answer");
    // The list opens over the page, and closes with a choice.
    await chat.click("Conversations and settings");
    await page.until(`document.getElementById("conversations").matches(":popover-open")`);
    await fits("list");
    await page.press("Escape");
    assert.equal(await page.value(`document.getElementById("conversations").matches(":popover-open")`), false);
    await chat.click("Conversations and settings");
    await chat.click("Settings", "#conversations");
    await fits("settings");
    await chat.click("Done");
    await chat.click("New conversation", "header");
    assert.deepEqual(await chat.texts(), []);
    // Where the keyboard takes half of the screen, the field stays above it.
    await page.size({ ...PHONE, height: 340 });
    await page.until(`document.getElementById("input").getBoundingClientRect().bottom <= 340 && document.getElementById("input").getBoundingClientRect().top > 100`);
    await fits("keyboard");
    await page.size(WIDE);
  },

  async "who has asked for less motion gets none"({ chat, page }) {
    await chat.begin(LONG);
    const moves = () => page.value(`document.getAnimations().length`);
    await chat.say(QUESTION);
    await chat.begun();
    await page.until(`document.getAnimations().length > 0`);
    await chat.media({ "prefers-reduced-motion": "reduce" });
    assert.equal(await moves(), 0);
    await page.press("Escape");
    await chat.idle();
    await chat.media({});
  },
};
