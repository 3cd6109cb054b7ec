// The list of conversations: at the side of a wide window, and a panel that opens over a narrow one.
import { button, el } from "./elements.js";
import { title } from "./store.js";

export class Sidebar {
  #node;
  #list;
  #removed;
  #shape = "";

  /** `removed(conversation)` is called where one is to go. */
  constructor(node, removed) {
    [this.#node, this.#list, this.#removed] = [node, node.querySelector("ul"), removed];
  }

  /** Whether it lies over the page now. */
  get open() {
    return this.#node.matches(":popover-open");
  }

  close() {
    if (this.open) this.#node.hidePopover();
  }

  /** `busy(id)`: an answer is being written there. */
  show(conversations, current, busy) {
    const entries = conversations.map((conversation) => ({ conversation, name: title(conversation), here: conversation.id === current, busy: busy(conversation.id) }));
    const shape = JSON.stringify(entries.map(({ conversation, name, here, busy }) => [conversation.id, name, here, busy]));
    if (shape === this.#shape) return;
    this.#shape = shape;
    const focused = this.#list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    this.#list.replaceChildren(...entries.map((entry) => this.#entry(entry)));
    if (focused) this.#list.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }

  #entry({ conversation, name, here, busy }) {
    const link = el("a", { href: `#${conversation.id}`, textContent: name, title: name, className: busy ? "busy" : "", onclick: () => this.close() });
    if (here) link.setAttribute("aria-current", "page");
    return el("li", {}, link, button("×", () => this.#removed(conversation), { className: "remove", "aria-label": `Delete: ${name}` }));
  }
}
