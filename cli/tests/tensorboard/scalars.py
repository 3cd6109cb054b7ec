"""Compares event files with metrics.jsonl, as TensorBoard reads them: scalars.py METRICS EVENTS."""

import json
import math
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NAMES = {"loss": "loss/training", "val_loss": "loss/validation", "val_ppl": "perplexity/validation", "lr": "learning_rate"}


def f32(x):
    """As an event file holds it."""
    return struct.unpack("f", struct.pack("f", x))[0]


def expected(path):
    """Steps and values of each scalar."""
    scalars = {}
    with open(path, encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            found = {tag: line[name] for name, tag in NAMES.items() if name in line}
            if "loss" in line:
                found["perplexity/training"] = math.exp(line["loss"])
            for layer in line.get("layers", []):
                found[f"zeros/{layer['name']}"] = layer["zero"]
                found[f"flips/{layer['name']}"] = layer["flip"]
            for tag, value in found.items():
                scalars.setdefault(tag, []).append((line["step"], f32(value)))
    return scalars


metrics, events = sys.argv[1:]
wanted = expected(metrics)
assert {"loss/training", "loss/validation", "zeros/0.mlp.up_proj", "flips/0.mlp.up_proj"} <= wanted.keys(), wanted.keys()
# Sampled otherwise.
reader = EventAccumulator(events, size_guidance={"scalars": 0})
reader.Reload()
tags = set(reader.Tags()["scalars"])
speed = "speed/tokens_per_second"
assert tags == wanted.keys() | {speed}, tags ^ (wanted.keys() | {speed})
count = 0
for tag, points in wanted.items():
    found = [(event.step, event.value) for event in reader.Scalars(tag)]
    assert [step for step, _ in found] == [step for step, _ in points], (tag, found, points)
    for (step, a), (_, b) in zip(found, points):
        # The exponential of another library may differ in its last digit.
        assert math.isclose(a, b, rel_tol=1e-6), (tag, step, a, b)
    count += len(found)
speeds = reader.Scalars(speed)
assert speeds and all(event.value > 0 for event in speeds)
times = [event.wall_time for event in reader.Scalars("loss/training")]
assert times == sorted(times) and times[0] > 1.5e9
print(f"TensorBoard read {count} values of {len(wanted)} scalars as metrics.jsonl has them")
