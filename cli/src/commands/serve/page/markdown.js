// The Markdown that models write, as plain objects: paragraphs, headings, fenced code, lists, quotes, rules; inside them code, strong, emphasis, struck out. All else, HTML and
// links among it, is text. The work grows with the length of the text, whatever it holds.
//
// A block is { kind: "paragraph" | "heading", level?, inline } | { kind: "code", language, text } | { kind: "list", ordered, start, items: [blocks] } |
// { kind: "quote", blocks } | { kind: "rule" }. Inline is a list of strings and of { kind: "code", text } | { kind: "strong" | "em" | "s", inline }.

/** Lists and quotes nest so deep; what is deeper is a paragraph. */
const DEEPEST = 6;

const FENCE = /^( {0,3})(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(\S.*)$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/;

/** The blocks of a text. */
export function parse(text) {
  return blocksOf(text.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n"), 0);
}

function blocksOf(lines, depth) {
  const blocks = [];
  const take = (block, next) => (blocks.push(block), next);
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    const [fence, heading, nests] = [FENCE.exec(line), HEADING.exec(line), depth < DEEPEST];
    if (line.trim() === "") at++;
    else if (fence) at = take(...code(lines, at, fence));
    else if (heading) at = take({ kind: "heading", level: heading[1].length, inline: inline(heading[2].trimEnd()) }, at + 1);
    else if (RULE.test(line)) at = take({ kind: "rule" }, at + 1);
    else if (nests && QUOTE.test(line)) at = take(...quote(lines, at, depth));
    else if (nests && ITEM.test(line)) at = take(...list(lines, at, depth));
    else at = take(...paragraph(lines, at, nests));
  }
  return blocks;
}

function code(lines, at, [, indent, fence, info]) {
  const closes = (line) => line.trim().length >= fence.length && line.trim() === fence[0].repeat(line.trim().length);
  let end = at + 1;
  while (end < lines.length && !closes(lines[end])) end++;
  const text = lines.slice(at + 1, end).map((line) => line.slice(Math.min(indent.length, indentOf(line))));
  return [{ kind: "code", language: info.trim().split(/\s/)[0], text: text.join("\n") }, end + 1];
}

function quote(lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end++;
  return [{ kind: "quote", blocks: blocksOf(lines.slice(at, end).map((line) => line.replace(QUOTE, "")), depth + 1) }, end];
}

function list(lines, at, depth) {
  const ordered = (item) => /\d/.test(item[2]);
  const first = ITEM.exec(lines[at]);
  const items = [];
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item || ordered(item) !== ordered(first) || item[1].length > first[1].length + 1 || RULE.test(lines[at])) break;
    const inside = [lines[at].slice(item[0].length)];
    // What is indented by two columns more than the marker is of the item, and so is a line that merely goes on.
    const belongs = (line, blank) => indentOf(line) >= item[1].length + 2 || !(blank || starts(line) || ITEM.test(line));
    for (at++; at < lines.length; ) {
      let next = at;
      while (next < lines.length && lines[next].trim() === "") next++;
      if (next === lines.length || !belongs(lines[next], next > at)) break;
      for (; at <= next; at++) inside.push(lines[at].slice(Math.min(item[0].length, indentOf(lines[at]))));
    }
    items.push(blocksOf(inside, depth + 1));
    let next = at;
    while (next < lines.length && lines[next].trim() === "") next++;
    if (next < lines.length && ITEM.test(lines[next])) at = next;
    else break;
  }
  return [{ kind: "list", ordered: ordered(first), start: Number.parseInt(first[2], 10) || 0, items }, at];
}

function paragraph(lines, at, nests) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() !== "" && !(nests && starts(lines[end]))) end++;
  return [{ kind: "paragraph", inline: inline(lines.slice(at, end).map((line) => line.trim()).join("\n")) }, end];
}

/** Whether a line ends a paragraph above it. "1986. A year" does not: of numbers, only 1 begins a list there. */
function starts(line) {
  const item = ITEM.exec(line);
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || (item !== null && line.length > item[0].length && (!/\d/.test(item[2]) || /^0*1\D/.test(item[2])));
}

const indentOf = (line) => line.length - line.trimStart().length;

/** The parts of a line of text. Each mark is open at most once, so that marks nest no deeper than there are kinds. */
export function inline(text) {
  const frames = [{ parts: [] }];
  const put = (part) => part !== "" && frames.at(-1).parts.push(part);
  const endless = new Set();
  const marks = /\\[!-/:-@[-`{-~]|`+|\*+|_+|~~/g;
  let from = 0;
  for (let mark; (mark = marks.exec(text)); from = marks.lastIndex) {
    put(text.slice(from, mark.index));
    const run = mark[0];
    if (run[0] === "\\") put(run[1]);
    else if (run[0] === "`") {
      const end = endless.has(run.length) ? -1 : closing(text, marks.lastIndex, run.length);
      if (end < 0) {
        endless.add(run.length);
        put(run);
      } else {
        put({ kind: "code", text: text.slice(marks.lastIndex, end).replace(/^ (.*\S.*) $/s, "$1") });
        marks.lastIndex = end + run.length;
      }
    } else emphasis(frames, run, text[mark.index - 1] ?? " ", text[marks.lastIndex] ?? " ");
  }
  put(text.slice(from));
  while (frames.length > 1) unwind(frames);
  return frames[0].parts;
}

/** Where the next run of exactly `length` backticks begins; -1 if there is none. */
function closing(text, from, length) {
  const runs = /`+/g;
  runs.lastIndex = from;
  for (let run; (run = runs.exec(text)); ) if (run[0].length === length) return run.index;
  return -1;
}

const KINDS = { "*": "em", "**": "strong", _: "em", __: "strong", "~~": "s" };

function emphasis(frames, run, before, after) {
  const word = (letter) => run[0] === "_" && /[\p{L}\p{N}]/u.test(letter);
  const [opens, closes] = [/\S/.test(after) && !word(before), /\S/.test(before) && !word(after)];
  let left = run.length > 3 ? "" : run;
  if (left === "") frames.at(-1).parts.push(run);
  while (left !== "") {
    const open = closes ? frames.findLastIndex((frame) => frame.mark?.[0] === run[0] && frame.mark.length <= left.length && frame.parts.length > 0) : -1;
    if (open > 0) {
      while (frames.length > open + 1) unwind(frames);
      const { mark, parts } = frames.pop();
      frames.at(-1).parts.push({ kind: KINDS[mark], inline: parts });
      left = left.slice(mark.length);
      continue;
    }
    const mark = left.length > 1 ? left.slice(0, 2) : left;
    if (opens && KINDS[mark] && !frames.some((frame) => frame.mark === mark)) frames.push({ mark, parts: [] });
    else frames.at(-1).parts.push(mark);
    left = left.slice(mark.length);
  }
}

/** A mark that nothing closes is text. */
function unwind(frames) {
  const { mark, parts } = frames.pop();
  const { parts: outer } = frames.at(-1);
  outer.push(mark);
  for (const part of parts) outer.push(part);
}
