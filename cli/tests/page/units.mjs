// The parts of the chat page that need no browser: Markdown, Server-Sent Events, the turns of a conversation.
import assert from "node:assert/strict";
import { Events, turns } from "../../src/commands/serve/page/client.js";
import { inline, parse } from "../../src/commands/serve/page/markdown.js";

const p = (...inline) => ({ kind: "paragraph", inline });
const list = (start, ...items) => ({ kind: "list", ordered: start !== null, start: start ?? 0, items });
const strong = (...inline) => ({ kind: "strong", inline });
const em = (...inline) => ({ kind: "em", inline });
const code = (text) => ({ kind: "code", text });

const BLOCKS = [
  ["one\ntwo\n\nthree", p("one\ntwo"), p("three")],
  ["# A *b*\ntext", { kind: "heading", level: 1, inline: ["A ", em("b")] }, p("text")],
  ["#hash\n####### seven", p("#hash\n####### seven")],
  ["```rust\nfn a() {}\n\n*x*\n```\nafter", { kind: "code", language: "rust", text: "fn a() {}\n\n*x*" }, p("after")],
  ["```\nnot closed\n``", { kind: "code", language: "", text: "not closed\n``" }],
  ["~~~~ a b\n~~~\n~~~~~", { kind: "code", language: "a", text: "~~~" }],
  ["  ```\n  in\n out\n  ```", { kind: "code", language: "", text: "in\nout" }],
  ["- a\n- b", list(null, [p("a")], [p("b")])],
  ["3. a\n4. b\n\n5. c", list(3, [p("a")], [p("b")], [p("c")])],
  ["1. a\n   - x\n   - y\n2. b", list(1, [p("a"), list(null, [p("x")], [p("y")])], [p("b")])],
  ["1. a\n  - x\n2. b", list(1, [p("a"), list(null, [p("x")])], [p("b")])],
  ["- a\n  ```\n  code\n  ```\n- b", list(null, [p("a"), { kind: "code", language: "", text: "code" }], [p("b")])],
  ["- a\ngoes on\n\nnot", list(null, [p("a\ngoes on")]), p("not")],
  ["- a\n1. b", list(null, [p("a")]), list(1, [p("b")])],
  ["in\n1986. A year", p("in\n1986. A year")],
  ["text\n- a", p("text"), list(null, [p("a")])],
  ["> a\n> - b\n\nc", { kind: "quote", blocks: [p("a"), list(null, [p("b")])] }, p("c")],
  ["---\n* * *\n-- -", { kind: "rule" }, { kind: "rule" }, { kind: "rule" }],
  ["| a | b |\r\n|---|---|", p("| a | b |\n|---|---|")],
  ["", ],
];
for (const [text, ...blocks] of BLOCKS) assert.deepEqual(parse(text), blocks, JSON.stringify(text));

const INLINE = [
  ["a **b *c* d** e", "a ", strong("b ", em("c"), " d"), " e"],
  ["***b***", strong(em("b"))],
  ["2 * 3 * 4 and snake_case_name", "2 * 3 * 4 and snake_case_name"],
  ["_a_ __b__ ~~c~~", em("a"), " ", strong("b"), " ", { kind: "s", inline: ["c"] }],
  ["`*a*` ``b ` c`` ` open", code("*a*"), " ", code("b ` c"), " ` open"],
  ["**open and *open", "**open and *open"],
  ["\\*a\\* \\x ****", "*a* \\x ****"],
  ["<img src=x onerror=alert(1)> [a](javascript:b) &lt;", "<img src=x onerror=alert(1)> [a](javascript:b) &lt;"],
];
/** Neighbours that are text, as one. */
const joined = (parts) => parts.reduce((all, part) => {
  const next = part.inline ? { ...part, inline: joined(part.inline) } : part;
  if (typeof next === "string" && typeof all.at(-1) === "string") all.push(all.pop() + next);
  else all.push(next);
  return all;
}, []);
for (const [text, ...parts] of INLINE) assert.deepEqual(joined(inline(text)), parts, text);

// No text takes long, or more of the stack than there is.
for (const part of ["**a ", "*a _b ~~", "> ", "- ", "`a ``b ```", "  - a\n", "1. a\n   ", "# ", "\\", "[", "a** ", "```\n", "~~~a\n", "- a\n\n"]) {
  const text = part.repeat(200_000 / part.length);
  const start = performance.now();
  parse(text);
  assert.ok(performance.now() - start < 5000, `${JSON.stringify(part)}, many times: ${Math.round(performance.now() - start)} ms`);
}
// All that a text says stays, whatever it is cut from.
const SIGNS = ["*", "**", "_", "`", "```\n", "\n", "- ", "1. ", "> ", "# ", "word ", "ü", "~~", "<b>", " "];
const wordsOf = (block) => (typeof block === "string" ? block : [block.text, ...(block.inline ?? block.blocks ?? block.items?.flat() ?? []).map(wordsOf)].join(" "));
let state = 1;
const draw = (below) => (state = (state * 48271) % 0x7fffffff) % below;
for (let round = 0; round < 3000; round++) {
  const text = Array.from({ length: 1 + draw(40) }, () => SIGNS[draw(SIGNS.length)]).join("");
  const count = (of) => of.match(/word/g)?.length ?? 0;
  // The line of a fence is the name of its language.
  if (!/```|~~~/.test(text)) assert.equal(count(parse(text).map(wordsOf).join(" ")), count(text), JSON.stringify(text));
}

// A stream of events is the same in pieces of any length.
const STREAM = ": comment\r\ndata: a\n\nevent: x\ndata:b\ndata:  c\n\n\r\ndata: ü\r\rid: 1\n\ndata: last\r\n\r\ndata: not whole\n";
for (let size = 1; size <= STREAM.length; size++) {
  const events = new Events();
  const seen = [];
  for (let at = 0; at < STREAM.length; at += size) seen.push(...events.push(STREAM.slice(at, at + size)));
  assert.deepEqual(seen, ["a", "b\n c", "ü", "last"], `pieces of ${size}`);
}

const say = (role, content) => ({ role, content });
assert.deepEqual(turns([say("user", "a"), say("assistant", ""), say("user", "b"), { ...say("assistant", "c"), end: "stop" }, say("user", "d")], " s "), [
  say("system", " s "), say("user", "a\n\nb"), say("assistant", "c"), say("user", "d"),
]);
assert.deepEqual(turns([say("user", "a")], " \n"), [say("user", "a")]);
console.log("without a browser: Markdown, events and turns are as they should be");
