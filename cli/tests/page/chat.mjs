// The chat page as a person uses it, and as a test looks at it.
import assert from "node:assert/strict";

export const WIDE = { width: 1280, height: 860 };
export const PHONE = { width: 360, height: 740, mobile: true };

export class Chat {
  page;
  #url;

  constructor(page, url) {
    [this.page, this.#url] = [page, url];
  }

  /** Opens the page as if for the first time, with these settings. */
  async begin(settings = {}, size = WIDE) {
    await this.page.size(size);
    // What the page keeps as it goes must not come back: it is cleared in a page without a script.
    await this.page.call("Page.navigate", { url: `${this.#url}page.css` });
    await this.page.until(`location.pathname.endsWith("page.css") && document.readyState === "complete"`);
    await this.page.value(`localStorage.clear(), localStorage.setItem("onebit.chat.settings", ${JSON.stringify(JSON.stringify(settings))})`);
    await this.open();
  }

  async open(hash = "") {
    await this.page.call("Page.navigate", { url: this.#url + hash });
    await this.#ready();
  }

  async reload() {
    await this.page.value(`document.body.dataset.state = "leaving"`);
    await this.page.call("Page.reload");
    await this.#ready();
  }

  #ready() {
    return this.page.until(`document.body?.dataset.state === "ready" && location.pathname === "/" && (document.getElementById("model").textContent !== "OneBit" || document.querySelector("#trouble .trouble"))`);
  }

  /** Writes into the field that has the focus and sends it. */
  async say(text) {
    await this.page.type(text);
    await this.page.press("Enter");
  }

  /** Says something and waits for the whole answer. */
  async ask(text) {
    await this.say(text);
    await this.idle();
  }

  /** Waits until nothing is being written here. */
  idle() {
    return this.page.until(`!document.getElementById("composer").matches(".running")`);
  }

  /** Waits until an answer has begun. */
  begun() {
    return this.page.until(`document.getElementById("composer").matches(".running") && document.querySelector(".answer:last-of-type .said").textContent.length > 3`);
  }

  /** The texts of the conversation, in turn. */
  texts() {
    return this.page.value(`[...document.querySelectorAll("#log article .said")].map((said) => said.innerText)`);
  }

  /** The text of the last element that `selector` names; null if there is none that is seen. */
  text(selector) {
    return this.page.value(`[...document.querySelectorAll(${JSON.stringify(selector)})].filter((found) => found.checkVisibility()).at(-1)?.innerText ?? null`);
  }

  facts() {
    return this.text(".answer .facts");
  }

  /** Clicks, with a mouse, on the last button or link of that name that is seen in `within`. */
  async click(name, within = "body") {
    const place = await this.page.value(`(() => {
      const named = (one) => one.getAttribute("aria-label") ?? one.textContent.trim();
      const found = [...document.querySelectorAll(${JSON.stringify(within)})].flatMap((one) => [...one.querySelectorAll("button, a, label")]).filter((one) => named(one) === ${JSON.stringify(name)} && one.checkVisibility()).at(-1);
      found?.scrollIntoView({ block: "nearest" });
      const box = found?.getBoundingClientRect();
      return box && { x: box.x + box.width / 2, y: box.y + box.height / 2 };
    })()`);
    assert.ok(place, `there is no ${name} in ${within}`);
    for (const type of ["mousePressed", "mouseReleased"]) await this.page.call("Input.dispatchMouseEvent", { type, ...place, button: "left", clickCount: 1 });
  }

  prefers(scheme) {
    return this.media({ "prefers-color-scheme": scheme });
  }

  media(features) {
    return this.page.call("Emulation.setEmulatedMedia", { features: Object.entries(features).map(([name, value]) => ({ name, value })) });
  }

  /** What lies past the right edge of the window and is no content that scrolls by itself. */
  async overflow() {
    return this.page.value(`[...document.querySelectorAll("body, body *")].filter((one) => one.checkVisibility() && !one.closest("pre, .unseen, nav a") && one.getBoundingClientRect().right > innerWidth + 0.5)
      .map((one) => one.tagName + "." + one.className).concat(document.documentElement.scrollWidth > innerWidth || document.getElementById("log").scrollWidth > document.getElementById("log").clientWidth ? ["scrolls"] : [])`);
  }

  /** The texts that are seen with a contrast below 4.5 (WCAG 2.2, 1.4.3), with it. A button that does nothing now need have none. */
  async pale() {
    return this.page.value(`(() => {
      const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      const over = (colour, below) => {
        canvas.fillStyle = "rgb(" + below.join(" ") + ")";
        canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
      };
      const ground = (one) => one ? over(getComputedStyle(one).backgroundColor, ground(one.matches("dialog") ? null : one.parentElement)) : [255, 255, 255];
      const light = (colour) => colour.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
      const contrast = (colour, one) => {
        const [a, b] = [light(over(colour, ground(one))), light(ground(one))];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      };
      const seen = [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility() && !one.matches(".unseen, :disabled, noscript"));
      const texts = seen.filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== "")).map((one) => [one, getComputedStyle(one).color]);
      const hints = seen.filter((one) => one.placeholder).map((one) => [one, getComputedStyle(one, "::placeholder").color]);
      return [texts.length + hints.length, [...texts, ...hints].map(([one, colour]) => [contrast(colour, one), one.outerHTML.slice(0, 80)]).filter(([contrast]) => contrast < 4.5)];
    })()`);
  }
}
