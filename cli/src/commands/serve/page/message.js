// How one message looks: a question with its editor; an answer with what went wrong, its numbers and what can be done with it.
import { button, copier, el, grow, Markdown, sends } from "./elements.js";

/** Elements of a question. `actions.resend(text)` asks it again with other words. */
export class Question {
  node = el("article", { className: "question", "aria-label": "You" });
  #message;
  #actions;
  #free = true;

  constructor(message, actions) {
    [this.#message, this.#actions] = [message, actions];
    this.#read();
  }

  /** `free`: no answer is being written, so that the question may change. */
  update({ free }) {
    if (free === this.#free) return;
    this.#free = free;
    if (!this.node.matches(".editing")) this.#read();
  }

  edit() {
    const field = el("textarea", { value: this.#message.content, rows: 1, "aria-label": "Edit your message", oninput: () => grow(field) });
    const send = () => field.value.trim() !== "" && this.#actions.resend(field.value);
    const cancel = () => {
      this.#read();
      this.#actions.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (!sends(event) && event.key !== "Escape") return;
      event.preventDefault();
      if (event.key === "Enter") send();
      else cancel();
    });
    this.node.classList.add("editing");
    this.node.replaceChildren(field, el("div", { className: "actions" }, button("Send again", send, { className: "primary" }), button("Cancel", cancel, { className: "plain" })));
    grow(field);
    field.focus();
  }

  #read() {
    this.node.classList.remove("editing");
    const actions = el("div", { className: "actions" }, copier(() => this.#message.content), button("Edit", () => this.edit(), { className: "quiet", hidden: !this.#free }));
    this.node.replaceChildren(el("div", { className: "said", textContent: this.#message.content }), actions);
  }
}

/** Elements of an answer. `actions.again()` asks for another one, `actions.key(key)` goes on with an API key. */
export class Answer {
  node = el("article", { className: "answer", "aria-label": "Answer" });
  #message;
  #actions;
  #said = el("div", { className: "said" });
  #facts = el("p", { className: "facts" });
  #below = el("div", { className: "below" });
  #markdown = new Markdown(this.#said);
  #shown = "";
  #shape = "";

  constructor(message, actions) {
    [this.#message, this.#actions] = [message, actions];
    this.node.append(this.#said, this.#below);
  }

  /** `last`: it can be asked for again. `free`: nothing is being written in this conversation. */
  update({ last, free }) {
    const { content, end, failure } = this.#message;
    if (content !== this.#shown) this.#markdown.show(content);
    this.#shown = content;
    this.#facts.textContent = facts(this.#message);
    this.node.classList.toggle("writing", end === null);
    this.node.setAttribute("aria-busy", String(end === null));
    // What is below changes seldom: a key that is being typed into it must not go.
    const shape = JSON.stringify([last && free, end, failure, content === ""]);
    if (shape === this.#shape) return;
    this.#shape = shape;
    const focused = this.#below.contains(document.activeElement);
    this.#below.replaceChildren(...this.#parts(last && free).filter((part) => part !== null));
    if (focused) this.#actions.focus();
  }

  #parts(last) {
    const { content, end, failure } = this.#message;
    if (end === null) return [content === "" ? el("p", { className: "waiting", textContent: "reading" }) : null, this.#facts];
    const asksKey = failure?.kind === "key" && last;
    const again = last && !asksKey ? button(failure ? "Try again" : "Regenerate", this.#actions.again, { className: failure ? "plain" : "quiet" }) : null;
    const copy = content === "" ? null : copier(() => this.#message.content);
    const actions = el("div", { className: "actions" }, copy, failure ? null : again, this.#facts);
    return [failure ? trouble(failure, asksKey ? keyForm(this.#actions.key) : again) : null, actions];
  }
}

/** What went wrong, with what helps. */
export function trouble({ text }, help) {
  return el("div", { className: "trouble", role: "alert" }, el("p", { textContent: text }), help);
}

/** Asks for the API key and hands it on. */
export function keyForm(given) {
  const field = el("input", { type: "password", autocomplete: "off", required: true, spellcheck: false, "aria-label": "API key", placeholder: "API key" });
  const onsubmit = (event) => {
    event.preventDefault();
    given(field.value.trim());
  };
  return el("form", { className: "key", onsubmit }, field, el("button", { className: "primary", textContent: "Continue" }));
}

/** The line below an answer: tokens, tokens a second, and of the prompt how many the server had kept from before. */
function facts({ content, end, tokens, speed, prompt, cached, exact }) {
  const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
  const about = exact || end === null ? "" : "about ";
  const parts = [];
  if (tokens > 0) parts.push(`${about}${number(tokens)} ${tokens === 1 ? "token" : "tokens"}`);
  if (speed > 0) parts.push(`${about}${number(speed)} a second`);
  if (prompt > 0) parts.push(`prompt ${number(prompt)}, ${number(cached)} cached`);
  if (end === "stop" && content === "") parts.push("an answer without text");
  if (end === "length") parts.push("ended at the limit of tokens");
  if (end === "stopped") parts.push(content === "" ? "stopped before the first word" : "stopped");
  return parts.join(" · ");
}
