// The page: loads module and model, and streams a story with its speed.
import { hasSimd, Model } from "./onebit.js";

const MODULE = hasSimd() ? "onebit-simd128.wasm" : "onebit.wasm";
const MODEL = "stories-mcu.1bit";
/** Milliseconds of generating after which the page may draw. */
const SLICE = 16;

const $ = (id) => document.getElementById(id);
const [form, button, story, speed, error] = ["form", "go", "story", "speed", "error"].map($);
let model = null;
let running = false;

async function bytesOf(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: the server answered ${response.status} ${response.statusText}; web/build.sh puts it there`);
  return new Uint8Array(await response.arrayBuffer());
}

function told(problem) {
  error.textContent = problem ? String(problem.message ?? problem) : "";
  error.hidden = !problem;
}

function describe(name, size) {
  $("model-name").textContent = `${name}, ${Math.round(size / 1000).toLocaleString("en")} KB, ${model.contextLimit} tokens of context; the module computes ${model.simd ? "with" : "without"} SIMD128`;
}

/** Lets the page draw and take clicks. */
const breathe = () => new Promise((resolve) => setTimeout(resolve));

async function generate() {
  running = true;
  button.textContent = "Stop";
  // Read aloud once it is whole.
  story.setAttribute("aria-busy", "true");
  told(null);
  const prompt = $("prompt").value;
  story.replaceChildren(Object.assign(document.createElement("span"), { className: "given", textContent: prompt }));
  const answer = story.appendChild(document.createElement("span"));
  let [tokens, computing, text, slice] = [0, 0, "", performance.now()];
  const show = () => {
    answer.textContent = text;
    speed.textContent = tokens === 0 ? "" : `${tokens} tokens, ${Math.round((1000 * tokens) / Math.max(computing, 0.001)).toLocaleString("en")} a second`;
  };
  try {
    const options = { seed: BigInt($("seed").value || 0), temperature: Number($("temperature").value) };
    for (const token of model.generate(prompt, options)) {
      tokens += token.id === null ? 0 : 1;
      text += token.text;
      const now = performance.now();
      if (now - slice < SLICE) continue;
      computing += now - slice;
      show();
      await breathe();
      if (!running) break;
      slice = performance.now();
    }
    if (running) computing += performance.now() - slice;
    show();
  } catch (problem) {
    told(problem);
  }
  running = false;
  button.textContent = "Tell a story";
  story.removeAttribute("aria-busy");
  document.body.dataset.state = "done";
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running = false;
  else generate();
});

$("file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  running = false;
  await breathe();
  try {
    model.load(new Uint8Array(await file.arrayBuffer()));
    describe(file.name, file.size);
    button.disabled = false;
    told(null);
  } catch (problem) {
    // The module has no model now.
    button.disabled = true;
    $("model-name").textContent = "none";
    told(new Error(`${file.name}: ${problem.message}`));
  }
});

try {
  model = await Model.open(await bytesOf(MODULE));
  // Another model may be taken where this one cannot be had.
  $("file").disabled = false;
  const modelBytes = await bytesOf(MODEL);
  model.load(modelBytes);
  describe(MODEL, modelBytes.length);
  button.disabled = false;
  document.body.dataset.state = "ready";
  // A link to a story: page#seed=3&prompt=Once
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of ["prompt", "seed", "temperature"]) if (given.has(name)) $(name).value = given.get(name);
  if (given.size > 0) generate();
} catch (problem) {
  $("model-name").textContent = "none";
  told(problem);
  document.body.dataset.state = "failed";
}
