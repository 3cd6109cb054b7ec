#!/usr/bin/env python3
"""Training steps of `onebit train` against the same steps in PyTorch, loss by loss.

    python3 trainer/tests/torch_twin.py --onebit target/debug/onebit [--device cpu|cuda] [--steps 20]

The model begins from the same weights (a model directory that this script writes), every step sees the same windows (there are as many as a
step takes), and both train in the hard phase: ternary weights, int8 activations, straight-through gradients. PyTorch computes in f32 on the CPU.
Prints a line a step and ends with status 1 if any loss is more than 1e-2 apart. Needs torch, numpy and safetensors.
"""
import argparse
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HIDDEN, FFN, LAYERS, HEADS, KV, SEQ, BATCH = 128, 256, 2, 4, 2, 64, 128
HEAD_DIM, EPS, THETA = HIDDEN // HEADS, 1e-5, 10000.0
# Many tokens a step, at a rate at which rounding stays rounding: Adam moves a weight by the whole rate even where its gradient is noise.
LR, DECAY, BETA1, BETA2, ADAM_EPS, CLIP = 1e-4, 0.1, 0.9, 0.95, 1e-8, 1.0


def ternary(w):
    gamma = w.abs().mean().clamp(min=1e-5)
    q = (w / gamma).round().clamp(-1, 1) * gamma
    return w + (q - w).detach()


def int8(x):
    s = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    q = (x * s).round().clamp(-128, 127) / s
    return x + (q - x).detach()


def norm(x, w):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * w


def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def loss_of(p, ids, targets):
    """Mean loss of the BitNet b1.58 2B4T block (ARCHITECTURE.md, 2.3) with a tied head."""
    b, t = ids.shape
    angles = torch.arange(t, device=ids.device)[:, None] * THETA ** (
        -torch.arange(0, HEAD_DIM, 2, device=ids.device) / HEAD_DIM)[None]
    cos, sin = angles.cos(), angles.sin()
    table = p["model.embed_tokens.weight"]
    x = table[ids]
    for i in range(LAYERS):
        w = lambda name: p[f"model.layers.{i}.{name}.weight"]
        linear = lambda name, x: F.linear(x, ternary(w(name)))
        h = int8(norm(x, w("input_layernorm")))
        heads = lambda y, n: y.view(b, t, n, HEAD_DIM).transpose(1, 2)
        q = rope(heads(linear("self_attn.q_proj", h), HEADS), cos, sin)
        k = rope(heads(linear("self_attn.k_proj", h), KV), cos, sin)
        v = heads(linear("self_attn.v_proj", h), KV)
        k, v = (y.repeat_interleave(HEADS // KV, 1) for y in (k, v))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, HEADS * HEAD_DIM)
        x = x + linear("self_attn.o_proj", int8(norm(o, w("self_attn.attn_sub_norm"))))
        h = int8(norm(x, w("post_attention_layernorm")))
        f = F.relu(linear("mlp.gate_proj", h)).square() * linear("mlp.up_proj", h)
        x = x + linear("mlp.down_proj", int8(norm(f, w("mlp.ffn_sub_norm"))))
    logits = F.linear(norm(x, p["model.norm.weight"]), table)
    return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def read_windows(path):
    """The windows of a token file (header: trainer/src/data/token_file/header.rs) that begin where its documents do, and its vocabulary's size."""
    data = open(path, "rb").read()
    width, vocab = struct.unpack_from("<II", data, 8)
    count, documents = struct.unpack_from("<QQ", data, 48)
    ids_at, index_at = struct.unpack_from("<QQ", data, 80)
    ids = np.frombuffer(data, {2: "<u2", 4: "<u4"}[width], count, ids_at)
    starts = np.frombuffer(data, "<u8", documents, index_at)
    windows = [ids[s:s + SEQ + 1] for s in starts if s + SEQ < count]
    assert len(windows) == BATCH, f"{len(windows)} windows"
    return np.array(windows, np.int64), vocab


def shapes(vocab):
    all = {"model.embed_tokens.weight": (vocab, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for i in range(LAYERS):
        for name, shape in {
            "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
            "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (KV * HEAD_DIM, HIDDEN),
            "self_attn.v_proj": (KV * HEAD_DIM, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
            "self_attn.attn_sub_norm": (HIDDEN,), "mlp.gate_proj": (FFN, HIDDEN), "mlp.up_proj": (FFN, HIDDEN),
            "mlp.ffn_sub_norm": (FFN,), "mlp.down_proj": (HIDDEN, FFN),
        }.items():
            all[f"model.layers.{i}.{name}.weight"] = shape
    return all


def config(vocab):
    return {
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV, "max_position_embeddings": SEQ, "rms_norm_eps": EPS, "rope_theta": THETA,
        "tie_word_embeddings": True, "vocab_size": vocab,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"},
    }


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--onebit", required=True)
    args.add_argument("--device", default="cpu")
    args.add_argument("--steps", type=int, default=20)
    args = args.parse_args()
    onebit = os.path.abspath(args.onebit)
    with tempfile.TemporaryDirectory() as here:
        at = lambda *name: os.path.join(here, *name)
        run = lambda *command: subprocess.run([onebit, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
        rng = np.random.default_rng(1)
        # As many documents as a step has windows, each longer than one: every step sees the same windows, in some order.
        words = ["red", "blue", "one", "two", "cat", "dog", "runs", "and", "then", "sleeps"]
        with open(at("text.jsonl"), "w") as text:
            for _ in range(BATCH):
                text.write(json.dumps({"text": " ".join(rng.choice(words, SEQ + 8))}) + "\n")
        run("tokenizer", "train", "--input", at("text.jsonl"), "--vocab-size", 270, "--output", at("tokenizer.json"))
        run("tokenize", "--input", at("text.jsonl"), "--tokenizer", at("tokenizer.json"), "--output", at("train.tokens"))
        windows, vocab = read_windows(at("train.tokens"))
        os.mkdir(at("begin"))
        json.dump(config(vocab), open(at("begin", "config.json"), "w"))
        weights = {name: (np.ones(shape) if len(shape) == 1 else rng.normal(0, 0.05, shape)).astype(np.float32)
                   for name, shape in shapes(vocab).items()}
        save_file(weights, at("begin", "model.safetensors"), metadata={"format": "pt"})
        run("train", "--init-from", at("begin"), "--data", at("train.tokens"), "--tokenizer", at("tokenizer.json"),
            "--output-dir", at("run"), "--device", args.device, "--batch-size", BATCH, "--seq-len", SEQ,
            "--align-documents", "--accumulation-steps", 1, "--max-steps", args.steps, "--lr", LR, "--lr-warmup-steps", 0, "--lr-decay", "none",
            "--weight-decay", DECAY, "--grad-clip-max-norm", CLIP, "--label-smoothing", 0, "--optimizer", "adamw",
            "--quant-warmup-steps", 0, "--quant-anneal-steps", 0)
        ours = [m["loss"] for m in map(json.loads, open(at("run", "metrics.jsonl"))) if "loss" in m]

    torch.manual_seed(0)
    p = {name: torch.tensor(w, requires_grad=True) for name, w in weights.items()}
    linears = [w for name, w in p.items() if "_proj" in name]
    others = [w for name, w in p.items() if "_proj" not in name]
    groups = [{"params": linears, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(BETA1, BETA2), eps=ADAM_EPS)
    windows = torch.tensor(windows)
    inputs, targets = windows[:, :-1], windows[:, 1:]
    worst = 0.0
    for step, found in enumerate(ours):
        loss = loss_of(p, inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(p.values(), CLIP)
        optimizer.step()
        apart = found - loss.item()
        worst = max(worst, abs(apart))
        print(f"step {step + 1:3}  onebit {found:.5f}  torch {loss.item():.5f}  apart {apart:+.5f}")
    print(f"{len(ours)} steps, at most {worst:.5f} apart")
    return 0 if len(ours) == args.steps and worst < 1e-2 else 1


if __name__ == "__main__":
    sys.exit(main())
