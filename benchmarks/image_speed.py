"""Training steps of image networks on a CPU, plain and mean-field, beside PyTorch (channels last, eager and compiled).

    python benchmarks/image_speed.py [--models resnet8 resnet20] [--quick]     # results/image_speed.json

All of them by turns in one process, float32, batches of 128 images of 32 x 32 pixels, medians. PyTorch computes on one
thread, as the loops of a compiled step do here: processor seconds are what to compare. On an accelerator:
``benchmarks/images.py``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax
from facts import facts, installed

from images import flops_per_image, matmul_peak
from mfresnet.config import build
from mfresnet.data.images import load_images
from mfresnet.images.configuration import ImageConfig
from mfresnet.images.job import assemble_images
from mfresnet.images.resnet import Architecture

RESULTS = Path(__file__).parent / "results" / "image_speed.json"
STEPS = 2  # of a turn
GOAL, GOAL_OF_RULE = 1.3, 1.1
LIMITS = (
    "What limits: convolutions, which are matrix products of 16, 32 and 64 columns here. Timed alone, forward and "
    "back, those of the three stages reach 19, 33 and 41 Gflop/s of a core whose large products reach 86. Whole steps "
    "reach 28, those of PyTorch, whose convolutions are direct, 48 (eager) and 57 (compiled)."
)


def ours(model: str, rule: str, batch: int) -> Callable[[], None]:
    tree = {
        "data": {"name": "synthetic-images", "n": 64 * batch, "n_test": 64},
        "model": {"name": model},
        "blocks": {"rules": rule},
        "train": {"seeds": 1, "epochs": 1, "batch_size": batch, "precision": "float32"},
        "record": {"report": False, "sensitivity": False},
    }
    config = build(tree, ImageConfig)
    job = assemble_images(config, load_images(config.data.name, n=config.data.n, n_test=config.data.n_test))
    state: list[Any] = [job.networks.advance(job.init(), STEPS)]

    def run() -> None:
        state[0] = jax.block_until_ready(job.networks.advance(state[0], STEPS))

    return run


def theirs(model: str, batch: int, compiled: bool) -> Callable[[], None]:
    import torch
    from torch.nn import functional as F
    from torch_images import ResNet

    torch.set_num_threads(1)
    network = ResNet(Architecture.named(model, None).blocks).to(memory_format=torch.channels_last)
    descent = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    x = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
    y = torch.randint(10, (batch,))
    forward = torch.compile(network) if compiled else network

    def run() -> None:
        for _ in range(STEPS):
            loss = F.cross_entropy(forward(x), y)
            descent.zero_grad(set_to_none=True)
            loss.backward()
            descent.step()

    return run


def compare(model: str, batch: int, rounds: int, compiled: bool) -> dict[str, Any]:
    runs = {rule: ours(model, rule, batch) for rule in ("plain", "mean-field")}
    if installed("torch") is not None:
        runs["pytorch, eager"] = theirs(model, batch, False)
        if compiled:
            runs["pytorch, compiled"] = theirs(model, batch, True)
    for run in runs.values():
        run()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    found = {}
    for name, of in times.items():
        wall, processor = (median(one[k] for one in of) for k in (0, 1))
        images = batch * STEPS
        found[name] = {"images_per_s": images / wall, "images_per_processor_s": images / processor, "rounds": rounds}
    plain = found["plain"]["images_per_processor_s"]
    return {
        "model": model,
        "batch": batch,
        "flops_per_image": flops_per_image(Architecture.named(model, None)),
        "runs": found,
        "mean_field_over_plain": plain / found["mean-field"]["images_per_processor_s"],
        "faster_than": {
            name: plain / one["images_per_processor_s"] for name, one in found.items() if name.startswith("pytorch")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet8", "resnet20"])
    parser.add_argument("--quick", action="store_true", help="small batches, eager PyTorch only, nothing written")
    given = parser.parse_args()
    rows = []
    for model in given.models[:1] if given.quick else given.models:
        rows.append(compare(model, 8 if given.quick else 128, 2 if given.quick else 5, not given.quick))
        print(json.dumps(rows[-1], indent=1), flush=True)
    if not given.quick:
        goals = {"images_per_s_beside_pytorch": GOAL, "mean_field_over_plain_at_most": GOAL_OF_RULE}
        result = {
            "rows": rows,
            "goals": goals,
            "limits": LIMITS,
            "matmul_peak_flops": matmul_peak(1024, "float32"),
            "machine": facts(),
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
