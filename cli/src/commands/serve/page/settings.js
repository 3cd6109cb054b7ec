// The settings, in a dialog: kept as they are typed, as long as they are valid. What is empty is the server's to choose.

const NUMBERS = ["temperature", "top_p", "top_k", "max_tokens", "seed"];
const THEMES = ["auto", "light", "dark"];

export class Settings {
  #store;
  #dialog;
  #form;

  constructor(store, dialog) {
    [this.#store, this.#dialog, this.#form] = [store, dialog, dialog.querySelector("form")];
    this.#form.addEventListener("input", ({ target }) => target.validity.valid && this.#set(target.name, target.value));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close();
    });
    this.#form.addEventListener("reset", () => {
      const { key, theme } = this.#store.settings;
      this.#store.settings = { key, theme };
      // Once the fields are empty.
      setTimeout(() => this.#fill());
    });
    // A click beside the dialog.
    dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
    this.theme = this.theme;
  }

  open() {
    this.#fill();
    this.#dialog.showModal();
  }

  get key() {
    return this.#store.settings.key ?? "";
  }

  set key(key) {
    this.#set("key", key);
  }

  get system() {
    return this.#store.settings.system ?? "";
  }

  get theme() {
    const { theme } = this.#store.settings;
    return THEMES.includes(theme) ? theme : "auto";
  }

  set theme(theme) {
    this.#set("theme", theme);
    document.documentElement.dataset.theme = theme;
  }

  /** How an answer is drawn: of the options of the API those that are set. */
  get drawing() {
    const { settings } = this.#store;
    const set = NUMBERS.filter((name) => (settings[name] ?? "") !== "" && Number.isFinite(Number(settings[name])));
    return Object.fromEntries(set.map((name) => [name, Number(settings[name])]));
  }

  #set(name, value) {
    this.#store.settings = { ...this.#store.settings, [name]: value };
  }

  #fill() {
    const { settings } = this.#store;
    for (const field of this.#form.elements) if (field.name) field.value = settings[field.name] ?? "";
  }
}
