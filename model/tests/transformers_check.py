"""What `onebit export --format hf` writes, opened by transformers: the logits must be ours.

    pip install torch transformers accelerate
    cargo build --release
    TORCHDYNAMO_DISABLE=1 python model/tests/transformers_check.py target/release/onebit DIR

makes two random models with transformers, of the shapes of BitNet b1.58 (ReLU squared, sub-norms, tied head) and of Llama (SwiGLU, head_dim of its own,
head of its own), lets `onebit` convert each into a packed directory, into a .1bit file, and from that into a directory again, and
compares the logits of transformers and of `onebit eval --logits` on every directory. Prints the largest difference of each; exits 1 above 1e-4.
DIR is made and holds what was converted.
"""
import json
import os
import shutil
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, BitNetConfig, BitNetForCausalLM, LlamaConfig, LlamaForCausalLM

BOUND = 1e-4
IDS = [1, 17, 42, 99, 200, 3, 7, 255, 128, 64, 5, 9]
ONLINE = dict(quant_method="bitnet", linear_class="autobitlinear", quantization_mode="online", modules_to_not_convert=None)


def shapes():
    common = dict(
        vocab_size=256, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, initializer_range=0.2,
    )
    rope = {"rope_type": "default", "rope_theta": 500000.0}
    yield "bitnet", BitNetForCausalLM(BitNetConfig(**common, tie_word_embeddings=True, rope_parameters=rope))
    yield "llama", LlamaForCausalLM(LlamaConfig(**common, tie_word_embeddings=False, head_dim=24, hidden_act="silu", rope_parameters=rope))


def onebit(binary, *args):
    ran = subprocess.run([binary, *args], capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"onebit {' '.join(args)}: {ran.stderr}")
    return ran.stdout


def theirs(directory):
    # What is not packed keeps the type of the file although another was asked for, so it is widened afterwards.
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.float()
    with torch.no_grad():
        return type(model.model.layers[0].self_attn.q_proj).__name__, model(torch.tensor([IDS]), use_cache=False).logits[0].float()


def ours(binary, model):
    said = json.loads(onebit(binary, "eval", "--model", model, "--ids", ",".join(map(str, IDS)), "--logits", "--json"))
    return torch.tensor(said["logits"])


def main(binary, out):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    worst = 0.0
    for name, model in shapes():
        for key, parameter in model.named_parameters():
            if "norm" in key:
                parameter.data = 1 + 0.1 * torch.randn_like(parameter)
        source = f"{out}/{name}"
        shutil.rmtree(source, ignore_errors=True)
        for dtype, kind in ((torch.bfloat16, "bf16"), (torch.float32, "f32")):
            master = f"{source}/{kind}"
            model.to(dtype).save_pretrained(master)
            config = json.load(open(f"{master}/config.json"))
            config["quantization_config"] = ONLINE
            json.dump(config, open(f"{master}/config.json", "w"), indent=2)
            packed, file, again = f"{master}-packed", f"{master}.1bit", f"{master}-again"
            onebit(binary, "export", "--model", master, "--format", "hf", "--output", packed)
            onebit(binary, "export", "--model", master, "--format", "hf", "--type", "master", "--output", f"{master}-master")
            onebit(binary, "export", "--model", master, "--format", "1bit", "--output", file)
            onebit(binary, "import", file, "--output-dir", again)
            same = open(f"{packed}/model.safetensors", "rb").read() == open(f"{again}/model.safetensors", "rb").read()
            if not same:
                sys.exit(f"{packed} and {again} hold other weights")
            for directory in (packed, f"{master}-master", again):
                layer, logits = theirs(directory)
                away = (logits - ours(binary, directory)).abs().max().item()
                worst = max(worst, away)
                size = os.path.getsize(f"{directory}/model.safetensors")
                print(f"{directory}: {layer}, {size} bytes, logits within ±{logits.abs().max():.2f}, largest difference {away:.2e}")
    print(f"largest difference {worst:.2e}, allowed {BOUND:.0e}")
    return worst <= BOUND


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(0 if main(sys.argv[1], sys.argv[2]) else 1)
