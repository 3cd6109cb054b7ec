// A model in a WebAssembly module, for pages and for Node. The functions of the module are described in src/lib.rs.
//
//     const model = await Model.open(moduleBytes, modelBytes);
//     for (const { id, text } of model.generate("Anna was a", { seed: 1n })) show(text);

const ENDED = -1;
const FAILED = -2;
const KV = { f32: 0, f16: 1, int8: 2 };

/** The smallest module with an instruction of SIMD128; an engine without it says that it is none. */
const SIMD_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

/** Whether this engine runs modules with SIMD128. */
export function hasSimd() {
  return WebAssembly.validate(SIMD_PROBE);
}

/** The sampling that story models are shown with. `temperature` 0 always takes the most likely token. */
export const STORIES = { temperature: 0.6, topK: 50, topP: 0.8, minP: 0, repetitionPenalty: 1, seed: 0n };

export class Model {
  #exports;

  constructor(exports) {
    this.#exports = exports;
  }

  /** Compiles the module and loads a model, where one is given. Throws an Error that says what is wrong with them. */
  static async open(moduleBytes, modelBytes = null) {
    const { instance } = await WebAssembly.instantiate(moduleBytes, {});
    const model = new Model(instance.exports);
    if (modelBytes) model.load(modelBytes);
    return model;
  }

  /** Takes another model in place of the one before: the bytes of a `.1bit` file. */
  load(modelBytes) {
    this.#input(modelBytes);
    this.#checked(this.#exports.onebit_load());
    this.configure();
  }

  /** Tokens of prompt and answer that the model was made for. */
  get contextLimit() {
    return this.#exports.onebit_context_limit() >>> 0;
  }

  /** Whether the module was compiled with SIMD128. */
  get simd() {
    return this.#exports.onebit_simd() === 1;
  }

  /** How many tokens are held, and how keys and values are kept: "f32", "f16" or "int8". */
  configure({ context = this.contextLimit, kv = "f32" } = {}) {
    this.#checked(this.#exports.onebit_options(context, KV[kv] ?? -1));
  }

  /** The tokens of an answer one by one, each as { id, text }; the last part of the text may come with the id null. */
  *generate(prompt, { maxTokens = this.contextLimit, ...sampling } = {}) {
    const { temperature, topK, topP, minP, repetitionPenalty, seed } = { ...STORIES, ...sampling };
    this.#input(new TextEncoder().encode(prompt));
    const begin = this.#exports.onebit_begin;
    this.#checked(begin(maxTokens, temperature, topK, topP, minP, repetitionPenalty, BigInt.asUintN(64, BigInt(seed))));
    for (;;) {
      const id = this.#exports.onebit_next();
      if (id === FAILED) throw new Error(this.#output());
      const text = this.#output();
      if (id !== ENDED) yield { id, text };
      else {
        if (text) yield { id: null, text };
        return;
      }
    }
  }

  #input(bytes) {
    const place = this.#exports.onebit_input(bytes.length) >>> 0;
    if (place === 0) throw new Error(`there is no room for ${bytes.length} bytes in the module's memory: at most 4 GiB`);
    new Uint8Array(this.#exports.memory.buffer, place, bytes.length).set(bytes);
  }

  #output() {
    const [place, size] = [this.#exports.onebit_output() >>> 0, this.#exports.onebit_output_size()];
    return new TextDecoder().decode(new Uint8Array(this.#exports.memory.buffer, place, size));
  }

  #checked(status) {
    if (status === FAILED) throw new Error(this.#output());
  }
}
