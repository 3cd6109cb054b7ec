// node web/golden.mjs MODULE.wasm…: each module gives the tokens of models/stories-mcu/golden.txt, says why it refuses a damaged model, and tells its speed.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Model } from "./onebit.js";

const folder = new URL("../models/stories-mcu/", import.meta.url);
const modelBytes = readFileSync(new URL("stories-mcu.1bit", folder));

/** The cases of a golden file, whose format is described in model/src/decode/golden.rs. */
export function cases(text) {
  const all = [];
  for (const line of text.split("\n").filter((line) => line && !line.startsWith("#"))) {
    const at = line.indexOf(" ");
    const [key, value] = [line.slice(0, at), line.slice(at + 1)];
    if (key === "case") all.push({ case: value });
    else all.at(-1)[key] = value;
  }
  return all;
}

function sampling(given) {
  const number = (key) => Number(given[key]);
  return {
    maxTokens: number("max_tokens"),
    temperature: number("temperature"),
    topK: number("top_k"),
    topP: number("top_p"),
    minP: number("min_p"),
    repetitionPenalty: number("repetition_penalty"),
    seed: BigInt(given.seed),
  };
}

function tokens(model, given) {
  model.configure({ context: Number(given.context), kv: given.kv });
  return [...model.generate(given.prompt, sampling(given))].map(({ id }) => id).filter((id) => id !== null);
}

/** Bytes as a broken download may have them: an error with a message, or other tokens; the module must not trap. */
function damage(model) {
  let [refused, ran] = [0, 0];
  const run = (bytes) => {
    try {
      model.load(bytes);
      model.configure({ context: 12 });
      for (const _ of model.generate("Anna was", { maxTokens: 3 }));
      ran += 1;
    } catch (error) {
      assert.ok(!(error instanceof WebAssembly.RuntimeError), `a trap: ${error.stack}`);
      assert.ok(error.message.length > 20, error.message);
      refused += 1;
    }
  };
  for (let end = 0; end < modelBytes.length; end += 9973) run(modelBytes.subarray(0, end));
  const cut = refused;
  assert.equal(ran, 0, "a file that ends early was taken for a model");
  const header = 8 + Number(modelBytes.readBigUInt64LE(0));
  for (let at = 0; at < modelBytes.length; at += at < header ? 61 : 9973) {
    const bytes = Uint8Array.from(modelBytes);
    bytes[at] ^= [1, 0x80, 0xff, 0x10][at % 4];
    run(bytes);
  }
  assert.ok(refused > cut + 20 && ran > 10, `${refused} refused, ${ran} ran`);
  return `${refused} damaged models refused, ${ran} ran`;
}

function speed(model, given) {
  model.load(modelBytes);
  model.configure({ context: Number(given.context), kv: given.kv });
  const rounds = [];
  for (let round = 0; round < 5; round++) {
    const start = performance.now();
    const count = [...model.generate(given.prompt, sampling(given))].length;
    rounds.push((1000 * count) / (performance.now() - start));
  }
  return Math.round(Math.max(...rounds));
}

const golden = cases(readFileSync(new URL("golden.txt", folder), "utf8"));
assert.ok(golden.length >= 8, "the golden file has its cases");
for (const path of process.argv.slice(2)) {
  const model = await Model.open(readFileSync(path), modelBytes);
  for (const given of golden) {
    const expected = given.ids.split(" ").map(Number);
    assert.deepEqual(tokens(model, given), expected, `${path}: ${given.case}`);
    // What compares is compared.
    assert.notDeepEqual(tokens(model, given), expected.with(2, expected[2] ^ 1));
  }
  console.log(`${path}: simd128 ${model.simd}, ${golden.length} cases as in the golden file, ${damage(model)}, ${speed(model, golden[0])} tokens a second`);
}
