// Conversations and settings, kept in the browser's storage: one entry a conversation, so that two windows write over each other only where they speak in the same one. Where
// there is no storage or no room, they live as long as the page.

const CONVERSATION = "onebit.chat.conversation.";
const SETTINGS = "onebit.chat.settings";

export class Store {
  #storage;
  #conversations = new Map();
  #settings = {};

  constructor() {
    try {
      this.#storage = window.localStorage;
      for (let at = 0; at < this.#storage.length; at++) this.#read(this.#storage.key(at));
    } catch {
      // A browser that keeps nothing for this page.
      this.#storage = null;
    }
  }

  /** The conversations, the latest first. */
  get conversations() {
    return [...this.#conversations.values()].sort((one, other) => other.updated - one.updated);
  }

  conversation(id) {
    return this.#conversations.get(id);
  }

  /** Keeps a conversation; false if it will be gone when the page is. */
  keep(conversation) {
    this.#conversations.set(conversation.id, conversation);
    return this.#write(CONVERSATION + conversation.id, conversation);
  }

  remove(id) {
    this.#conversations.delete(id);
    this.#storage?.removeItem(CONVERSATION + id);
  }

  get settings() {
    return this.#settings;
  }

  set settings(settings) {
    this.#settings = settings;
    this.#write(SETTINGS, settings);
  }

  /** Follows what another window changes: calls `told` with the id of a conversation that did, unless it is `busy` here. */
  watch(busy, told) {
    window.addEventListener("storage", ({ key }) => {
      const id = key?.startsWith(CONVERSATION) ? key.slice(CONVERSATION.length) : null;
      if (id !== null && busy(id)) return;
      if (id !== null && this.#storage.getItem(key) === null) this.#conversations.delete(id);
      else if (key !== null) this.#read(key);
      if (id !== null) told(id);
    });
  }

  /** Takes one entry in, if it is a conversation or the settings; what else is there is left alone. */
  #read(key) {
    try {
      const value = JSON.parse(this.#storage.getItem(key));
      if (key === SETTINGS) this.#settings = { ...value };
      else if (key.startsWith(CONVERSATION) && CONVERSATION + value.id === key && sound(value)) this.#conversations.set(value.id, value);
    } catch {
      // Damaged, or of another page of this address.
    }
  }

  #write(key, value) {
    try {
      this.#storage.setItem(key, JSON.stringify(value));
      return true;
    } catch {
      // No storage, or its quota is used up.
      return false;
    }
  }
}

function sound({ updated, messages }) {
  return Number.isFinite(updated) && messages.every(({ role, content }) => ["user", "assistant"].includes(role) && typeof content === "string");
}

/** A conversation without a word. Its id needs no secure context, which a page of another machine over HTTP has not. */
export function fresh() {
  const id = [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return { id, updated: Date.now(), messages: [] };
}

/** How a list names a conversation: by the first line that was said. */
export function title({ messages }) {
  const line = messages[0]?.content.trim().split("\n")[0] ?? "";
  return line === "" ? "New conversation" : line.slice(0, 80);
}
