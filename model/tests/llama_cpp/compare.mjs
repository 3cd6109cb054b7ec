// Scores GGUF files that `onebit export` wrote with llama.cpp, and the models that they were made from with `onebit`, and compares.
//
//     node compare.mjs ONEBIT MODEL GGUF TEXT PROMPT NEW
//
// ONEBIT is the binary, MODEL what the file GGUF was made from, TEXT a file to score. Three things must agree:
//   into how many tokens PROMPT and the beginning of TEXT are divided, each side with its own tokenizer;
//   the perplexity of the text, within 0.5 %: llama.cpp quantises activations by blocks of 256, `onebit` by token;
//   what is said after PROMPT at temperature 0, NEW tokens of it, as text.
//
// Beside this file must lie node_modules with node-llama-cpp and its prebuilt llama.cpp.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const [onebit, ours, gguf, textFile, prompt, howMany] = process.argv.slice(2);
const TOLERANCE = 0.005;
const text = readFileSync(textFile, "utf8").trim();
const run = (...args) => JSON.parse(execFileSync(onebit, [...args, "--json"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }));

const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 2 });
const model = await llama.loadModel({ modelPath: gguf, gpuLayers: 0 });
const context = await model.createContext({ contextSize: Math.min(512, model.trainContextSize), batchSize: 512, flashAttention: false });
const sequence = context.getSequence();

function tokenize(text) {
    const ids = Array.from(model.tokenize(text, true));
    return model.tokens.shouldPrependBosToken ? [model.tokens.bos, ...ids] : ids;
}

// log softmax of a token.
function logProbability(logits, token) {
    let most = -Infinity;
    for (const logit of logits.values()) most = Math.max(most, logit);
    let sum = 0;
    for (const logit of logits.values()) sum += Math.exp(logit - most);
    return logits.get(token) - most - Math.log(sum);
}

// Nats a token, each given all before it.
async function score(ids) {
    const asked = ids.slice(0, -1).map((id) => [id, { generateNext: { logits: true } }]);
    const results = await sequence.controlledEvaluate(asked);
    await sequence.clearHistory();
    const sum = ids.slice(1).reduce((sum, id, i) => sum - logProbability(results[i].next.logits, id), 0);
    return sum / (ids.length - 1);
}

async function greedy(ids, n) {
    const said = [];
    let input = ids;
    while (said.length < n) {
        const last = input.length - 1;
        const best = { generateNext: { logits: { filter: { tokens: [], includeTop: 1 } } } };
        const results = await sequence.controlledEvaluate(input.map((id, i) => (i < last ? id : [id, best])));
        const [[id]] = results[last].next.logits.entries();
        said.push(id);
        input = [id];
    }
    return said;
}

const failures = [];
const check = (what, holds, detail) => holds || failures.push(`${what}: ${detail}`);

const ids = tokenize(text).slice(0, context.contextSize);
const scored = run("eval", "--model", ours, "--ids", ids.join(","));
const theirs = await score(ids);
const ratio = Math.exp(theirs - scored.loss);
check("perplexity", Math.abs(ratio - 1) <= TOLERANCE, `llama.cpp has ${ratio.toFixed(5)} times ours`);

const answer = run("generate", "--model", ours, "--prompt", prompt, "--max-tokens", howMany, "--temperature", "0", "--repetition-penalty", "1");
const promptIds = tokenize(prompt);
// Not up to a space: SentencePiece removes one at the end, llama.cpp leaves it.
const beginning = text.slice(0, 300).trimEnd();
const divided = run("generate", "--model", ours, "--prompt", beginning, "--max-tokens", "1");
for (const [what, theirs, counted] of [
    ["prompt", promptIds.length, answer.prompt_tokens],
    ["text", tokenize(beginning).length, divided.prompt_tokens],
]) {
    check(`tokens of the ${what}`, theirs === counted, `${theirs} and ours ${counted}`);
}
const said = await greedy(promptIds, answer.ids.length);
check("greedy text", said.join() === answer.ids.join(), `llama.cpp says ${JSON.stringify(model.detokenize(said))}, ours ${JSON.stringify(answer.text)}`);

console.log(
    `${gguf.split("/").pop()}: ${ids.length} tokens, perplexity ${Math.exp(theirs).toFixed(4)} in llama.cpp, ${Math.exp(scored.loss).toFixed(4)} here, ratio ${ratio.toFixed(5)}; ` +
        `${answer.ids.length} greedy tokens: ${JSON.stringify(answer.text.slice(0, 60))}…`,
);
failures.forEach((failure) => console.error(`FAILED ${gguf}: ${failure}`));
process.exit(failures.length ? 1 : 0);
