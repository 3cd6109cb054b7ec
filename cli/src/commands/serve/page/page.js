// The chat page of `onebit serve`: what is said and answered, and what keys and buttons do. A conversation is { id, updated, messages }; a message { role, content } and, if it is an
// answer, `end` (null while it is being written; "stop", "length", "stopped", "failed"), `failure` { kind, text }, and its numbers (`facts` in message.js).
import { answer, Lost, model, turns } from "./client.js";
import { button, grow, sends } from "./elements.js";
import { Answer, keyForm, Question, trouble } from "./message.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { fresh, Store, title } from "./store.js";

/** Milliseconds between two writings of an answer to the browser's storage. */
const KEEP_EVERY = 1000;
/** Pixels from the end of the conversation within which a reader follows it. */
const NEAR = 32;
/** What is wrong with an answer that the page's end cut off. */
const CLOSED = { kind: "lost", text: "The page was closed while this was written. What had come is kept." };

const $ = (id) => document.getElementById(id);
const [log, input, composer, notice, empty, newest] = ["log", "input", "composer", "notice", "empty", "newest"].map($);
const store = new Store();
const settings = new Settings(store, $("settings"));
const sidebar = new Sidebar($("conversations"), remove);

/** What stops the answer that is being written, by the conversation's id. */
const running = new Map();
let conversation = fresh();
let views = new Map();
let name = null;
let following = true;
let drawing = 0;
let leaving = false;

// What is shown.

function show(next) {
  conversation = next;
  views = new Map();
  log.replaceChildren(empty);
  following = true;
  say("");
  draw();
}

/** Brings the page in step with the conversation. */
function draw() {
  cancelAnimationFrame(drawing);
  drawing = 0;
  const { id, messages } = conversation;
  const free = !running.has(id);
  for (const [message, { node }] of views) {
    if (messages.includes(message)) continue;
    node.remove();
    views.delete(message);
  }
  messages.forEach((message, at) => {
    if (!views.has(message)) views.set(message, viewOf(message));
    const { node } = views.get(message);
    if (!node.isConnected) log.append(node);
    views.get(message).update({ free, last: at === messages.length - 1 });
  });
  empty.hidden = messages.length > 0;
  log.setAttribute("aria-busy", String(!free));
  composer.classList.toggle("running", !free);
  $("go").setAttribute("aria-label", free ? "Send" : "Stop");
  $("go").disabled = free && input.value.trim() === "";
  document.title = messages.length > 0 ? `${title(conversation)} – OneBit` : "OneBit";
  sidebar.show(store.conversations, id, (id) => running.has(id));
  follow();
}

/** Draws before the screen is next, however many pieces come until then. */
function drawSoon() {
  drawing ||= requestAnimationFrame(draw);
}

function viewOf(message) {
  const here = conversation;
  if (message.role === "user") return new Question(message, { focus, resend: (text) => resend(here, message, text) });
  const again = () => regenerate(here);
  const key = (key) => {
    settings.key = key;
    again();
  };
  return new Answer(message, { focus, again, key });
}

function say(text, ...actions) {
  notice.replaceChildren(text, ...actions);
  notice.hidden = text === "";
}

function focus() {
  // On a screen that is touched, the keyboard would cover the page.
  if (!matchMedia("(pointer: coarse)").matches) input.focus({ preventScroll: true });
}

// The end of the conversation stays in sight as long as the reader is there.

function follow() {
  if (following) log.scrollTop = log.scrollHeight;
  newest.hidden = following;
}

let top = 0;
log.addEventListener("scroll", () => {
  const away = log.scrollHeight - log.clientHeight - log.scrollTop;
  if (away < 2 || (log.scrollTop > top && away < NEAR)) following = true;
  else if (log.scrollTop < top) following = false;
  top = log.scrollTop;
  newest.hidden = following;
});
newest.addEventListener("click", () => {
  following = true;
  follow();
});
new ResizeObserver(follow).observe(log);

// What is said.

function send(text) {
  conversation.messages.push({ role: "user", content: text });
  history.replaceState(null, "", `#${conversation.id}`);
  input.value = "";
  grow(input);
  following = true;
  ask(conversation);
}

function resend(where, message, text) {
  if (running.has(where.id)) return;
  where.messages.splice(where.messages.indexOf(message), Infinity, { role: "user", content: text });
  following = true;
  ask(where);
  focus();
}

function regenerate(where) {
  if (running.has(where.id)) return;
  const former = where.messages.at(-1)?.role === "assistant" ? where.messages.pop() : null;
  ask(where, former);
}

/** Asks for the answer to a conversation's last question. `former` is the one that stood there: it stays if there is none in its place. */
async function ask(where, former = null) {
  const controller = new AbortController();
  const { signal } = controller;
  const { key } = settings;
  const message = { role: "assistant", content: "", end: null };
  const messages = turns(where.messages, settings.system);
  where.messages.push(message);
  where.updated = Date.now();
  running.set(where.id, controller);
  keep(where);
  draw();
  try {
    await meet({ key, signal });
    message.end = await write(where, message, answer({ model: name, messages, ...settings.drawing }, { key, signal }));
  } catch (problem) {
    message.end = signal.aborted ? "stopped" : "failed";
    if (!signal.aborted) message.failure = failureOf(problem, key, message.content !== "");
    if (message.content === "" && former?.content) Object.assign(message, { failure: null, ...former }, message.failure && { failure: message.failure });
    // It may have another model when it is back.
    if (!signal.aborted) name = null;
  }
  running.delete(where.id);
  if (store.conversation(where.id) === where) keep(where);
  draw();
  if (where === conversation && message.failure?.kind === "key" && input.value === "") log.querySelector(".answer .key input")?.focus();
}

/** Writes the parts of an answer into its message; returns why it ended. */
async function write(where, message, parts) {
  let [end, pieces, first, last, kept] = ["stop", 0, 0, 0, performance.now()];
  for await (const { text, finish, usage } of parts) {
    if (finish) end = finish;
    if (text) {
      last = performance.now();
      first ||= last;
      message.content += text;
      message.tokens = ++pieces;
    }
    if (usage) {
      const { prompt_tokens: prompt = 0, completion_tokens: tokens = 0, prompt_tokens_details: details } = usage;
      Object.assign(message, { prompt, tokens, cached: details?.cached_tokens ?? 0, exact: true });
    }
    // The first token's time is the prompt's.
    if (last > first) message.speed = (1000 * (message.tokens - 1)) / (last - first);
    if (last - kept > KEEP_EVERY && store.conversation(where.id) === where) {
      kept = last;
      keep(where);
    }
    if (where === conversation) drawSoon();
  }
  return end;
}

function failureOf(problem, key, half) {
  const { status, wait, message: text } = problem;
  if (leaving) return CLOSED;
  if (status === 401) return { kind: "key", text: key ? "The server does not take this API key. Which one is right?" : "The server asks for an API key." };
  if (status === 429 || status === 503) return { kind: "busy", text: `${sentence(text)} Try again ${wait ? `in ${wait} s` : "in a moment"}.` };
  if (problem instanceof Lost) return { kind: "lost", text: half ? "The connection was lost. What had come is kept." : "The server cannot be reached. Does onebit serve run?" };
  return { kind: "refused", text: sentence(text) };
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function stop() {
  running.get(conversation.id)?.abort();
}

function keep(where) {
  if (store.keep(where)) return;
  say("This browser has no room to keep this conversation: after a reload it is gone. Deleting others makes room.");
}

// Which conversation, and with which model.

function begin() {
  if (location.hash !== "") history.pushState(null, "", location.pathname + location.search);
  show(fresh());
  sidebar.close();
  focus();
}

function remove(gone) {
  running.get(gone.id)?.abort();
  store.remove(gone.id);
  if (gone === conversation) begin();
  const undo = () => {
    store.keep(gone);
    say("");
    draw();
  };
  draw();
  say("Deleted. ", button("Undo", undo, { className: "quiet" }));
}

/** Shows the conversation that the address names; a new one if it names none that is here. */
function fromAddress() {
  const known = store.conversation(location.hash.slice(1));
  if (!known && location.hash !== "") history.replaceState(null, "", location.pathname + location.search);
  show(known ?? fresh());
}

/** Asks the server for its model's name, once. */
async function meet({ key, signal } = {}) {
  name ??= await model({ key, signal });
  $("model").textContent = name;
  $("trouble").replaceChildren();
}

async function greet() {
  try {
    await meet(settings);
  } catch (problem) {
    const failure = failureOf(problem, settings.key, false);
    const withKey = (key) => {
      settings.key = key;
      greet();
    };
    $("trouble").replaceChildren(trouble(failure, failure.kind === "key" ? keyForm(withKey) : button("Try again", greet, { className: "plain" })));
  }
}

// Keys and buttons.

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running.has(conversation.id)) stop();
  else if (input.value.trim() !== "") send(input.value);
});
input.addEventListener("input", () => {
  grow(input);
  $("go").disabled = !running.has(conversation.id) && input.value.trim() === "";
});
input.addEventListener("keydown", (event) => {
  if (sends(event)) {
    event.preventDefault();
    if (!running.has(conversation.id)) composer.requestSubmit();
  } else if (event.key === "ArrowUp" && input.value === "" && !running.has(conversation.id)) {
    const asked = conversation.messages.findLast(({ role }) => role === "user");
    if (!asked) return;
    event.preventDefault();
    views.get(asked).edit();
  }
});
document.addEventListener("keydown", (event) => {
  const covered = sidebar.open || $("settings").open;
  const types = event.target.matches("input, textarea");
  if (event.key === "Escape" && !covered && !event.defaultPrevented) stop();
  const slash = event.key === "/" && !types && !event.ctrlKey && !event.metaKey && !event.altKey;
  if (covered || !(slash || (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)))) return;
  event.preventDefault();
  input.focus();
});
for (const fresh of document.querySelectorAll(".begin")) fresh.addEventListener("click", begin);
$("open-settings").addEventListener("click", () => {
  sidebar.close();
  settings.open();
});
$("theme").addEventListener("change", ({ target }) => (settings.theme = target.value));
window.addEventListener("hashchange", fromAddress);
window.addEventListener("pageshow", () => (leaving = false));
window.addEventListener("pagehide", () => {
  leaving = true;
  for (const id of running.keys()) if (store.conversation(id)) store.keep(store.conversation(id));
});
// A keyboard on the screen of some phones covers a page instead of making it lower. Who looks at it through a lens sees a part of it.
window.visualViewport?.addEventListener("resize", () => {
  if (visualViewport.scale === 1) document.documentElement.style.setProperty("--height", `${visualViewport.height}px`);
});
store.watch((id) => running.has(id), (id) => (id === conversation.id ? show(store.conversation(id) ?? fresh()) : draw()));

for (const { messages } of store.conversations) {
  const last = messages.at(-1);
  if (last?.role === "assistant" && last.end === null) Object.assign(last, { end: "failed", failure: CLOSED });
}
$("theme").elements[settings.theme].checked = true;
fromAddress();
greet();
focus();
document.body.dataset.state = "ready";
