// Asks llama.cpp what it makes of a GGUF file: the ids of a text, how well it predicts them, and what it says on its own.
//
//     node score.mjs < request.json > answer.json
//
// request: { "model": path, "text": a text to score, "ids": its ids, "prompt": a text to go on from, "prompt_ids": its ids, "new": how many tokens }
// answer:  { "ids": the text's ids as llama.cpp has them, "nll": nats a token of "ids", each given all before it, "prompt_ids": ..., "greedy": ids }
//
// node-llama-cpp is found as every package is: NODE_PATH does not serve modules, so this file is copied beside node_modules to be run.
import { readFileSync } from "node:fs";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const request = JSON.parse(readFileSync(0, "utf8"));
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.warn, maxThreads: 2 });
const model = await llama.loadModel({ modelPath: request.model, gpuLayers: 0 });
const context = await model.createContext({ contextSize: request.context ?? 512, batchSize: 512, flashAttention: false });
const sequence = context.getSequence();

// Without the token before a text: both sides are given ids that begin alike.
const tokenize = (text) => (text === undefined ? undefined : Array.from(model.tokenize(text, true)));

// log softmax of a token.
function logProbability(logits, token) {
    let most = -Infinity;
    for (const logit of logits.values()) most = Math.max(most, logit);
    let sum = 0;
    for (const logit of logits.values()) sum += Math.exp(logit - most);
    return logits.get(token) - most - Math.log(sum);
}

let nll;
if (request.ids !== undefined) {
    const asked = request.ids.slice(0, -1).map((id) => [id, { generateNext: { logits: true } }]);
    const results = await sequence.controlledEvaluate(asked);
    let sum = 0;
    for (let i = 0; i + 1 < request.ids.length; i++) sum -= logProbability(results[i].next.logits, request.ids[i + 1]);
    nll = sum / (request.ids.length - 1);
    await sequence.clearHistory();
}

const greedy = [];
if (request.prompt_ids !== undefined) {
    let input = Array.from(request.prompt_ids);
    while (greedy.length < (request.new ?? 32)) {
        const asked = input.map((id, i) => (i + 1 < input.length ? id : [id, { generateNext: { logits: { filter: { tokens: [], includeTop: 1 } } } }]));
        const results = await sequence.controlledEvaluate(asked);
        const [best] = results[input.length - 1].next.logits.entries();
        greedy.push(best[0]);
        input = [best[0]];
    }
}
console.log(JSON.stringify({ ids: tokenize(request.text), prompt_ids: tokenize(request.prompt), nll, greedy }));
process.exit(0);
