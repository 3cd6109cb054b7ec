// Elements of the page. Text gets into them as text nodes only; nothing here or elsewhere on the page parses HTML.
import { parse } from "./markdown.js";

/** An element with properties (`on…` are listeners, names with a hyphen and `role` are attributes) and children: elements and strings; null is left out. */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function button(label, onclick, properties = {}) {
  return el("button", { type: "button", textContent: label, onclick, ...properties });
}

/** A button that copies what `text` gives, and says so for a moment. */
export function copier(text) {
  const says = (words) => {
    copy.textContent = words;
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  };
  const copy = button("Copy", () => clip(text()).then(() => says("Copied"), () => says("Not copied")), { className: "quiet" });
  return copy;
}

async function clip(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // A page of another machine over HTTP has no clipboard of its own.
  const field = el("textarea", { value: text, className: "unseen" });
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  if (!copied) throw new Error("refused");
}

/** Makes a text field as high as its text; the style sheet has the limit. */
export function grow(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
}

/** Whether a key sends what a text field holds: Enter alone, and not the Enter that chooses a word in an input method, which one browser tells by the code 229 alone. */
export function sends(event) {
  return event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey && !event.isComposing && event.keyCode !== 229;
}

/** Shows Markdown that grows. Blocks that are as they were keep their elements: a selection in them stays, and an answer costs its last block alone. */
export class Markdown {
  #node;
  #keys = [];

  constructor(node) {
    this.#node = node;
  }

  show(text) {
    const blocks = parse(text);
    const keys = blocks.map((block) => JSON.stringify(block));
    blocks.forEach((block, at) => {
      if (keys[at] === this.#keys[at]) return;
      const before = this.#node.children[at];
      if (before?.matches(".code") && block.kind === "code" && before.dataset.language === block.language) before.querySelector("code").textContent = block.text;
      else if (before) before.replaceWith(draw(block));
      else this.#node.append(draw(block));
    });
    while (this.#node.children.length > blocks.length) this.#node.lastElementChild.remove();
    this.#keys = keys;
    this.#node.querySelector(".end")?.classList.remove("end");
    endOf(this.#node.lastElementChild)?.classList.add("end");
  }
}

/** The element in which the text of a block ends. */
function endOf(block) {
  const inside = block?.lastElementChild;
  return block?.matches("ul, ol, blockquote") || (block?.matches("li") && inside?.matches("ul, ol, p, blockquote, .code")) ? endOf(inside) : block;
}

function draw(block) {
  switch (block.kind) {
    case "code":
      return fenced(block);
    case "heading":
      // Below the page's own heading.
      return el(`h${Math.min(block.level + 1, 6)}`, {}, ...block.inline.map(span));
    case "list":
      return el(block.ordered ? "ol" : "ul", block.ordered ? { start: block.start } : {}, ...block.items.map(item));
    case "quote":
      return el("blockquote", {}, ...block.blocks.map(draw));
    case "rule":
      return el("hr");
    default:
      return el("p", {}, ...block.inline.map(span));
  }
}

function fenced({ language, text }) {
  const code = el("code", { textContent: text });
  const bar = el("div", { className: "bar" }, el("span", { textContent: language || "text" }), copier(() => code.textContent));
  const block = el("div", { className: "code" }, bar, el("pre", { tabIndex: 0, role: "region", "aria-label": `Code: ${language || "text"}` }, code));
  block.dataset.language = language;
  return block;
}

/** An item that begins with a paragraph has its text on the line of the marker. */
function item(blocks) {
  const [first, ...more] = blocks;
  if (first?.kind !== "paragraph") return el("li", {}, ...blocks.map(draw));
  return el("li", {}, ...first.inline.map(span), ...more.map(draw));
}

function span(part) {
  if (typeof part === "string") return part;
  if (part.kind === "code") return el("code", { textContent: part.text });
  return el(part.kind, {}, ...part.inline.map(span));
}
