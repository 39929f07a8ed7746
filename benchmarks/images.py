"""Image networks: ResNet-20 on CIFAR-10, plain and mean-field on matched seeds, and how fast that is.

On a GPU: three seeds of each rule for 160 epochs, bfloat16; then images/s beside PyTorch (channels last, bfloat16,
eager and compiled) by turns, and the share of the matmul peak measured on the same device. Results go to
``results/images.json`` with the machine's facts.

    python benchmarks/images.py [--data cifar10] [--epochs 160] [--model resnet20]
    python benchmarks/images.py --quick        # tiny, on any machine, nothing written
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from facts import facts

from mfresnet.config import build
from mfresnet.data.images import load_images
from mfresnet.errors import MfresnetError
from mfresnet.images.configuration import ImageConfig
from mfresnet.images.convolution import by_products, direct
from mfresnet.images.job import assemble_images
from mfresnet.images.resnet import STAGES, Architecture
from mfresnet.runs import train_images

RULES = "plain,mean-field"


def flops_per_image(architecture: Architecture, size: int = 32) -> float:
    """Of a training step of a resnetD: three times two times the multiplications of the convolutions forward."""
    before, total = architecture.stem, 9 * 3 * architecture.stem * size**2
    for stage in range(STAGES):
        after, pixels = architecture.channels[stage], (size >> stage) ** 2
        for index in range(architecture.blocks):
            total += pixels * 9 * (before * after + after * after)
            total += pixels * before * after if index == 0 and architecture.changes_shape(stage) else 0
            before = after
    return 6.0 * total


def check_model(parser: argparse.ArgumentParser, name: str) -> None:
    """Refuse what is no resnetD: FLOPs and the PyTorch network beside it are counted and written for these only."""
    try:
        architecture = Architecture.named(name)
    except MfresnetError as error:
        parser.error(str(error))
    if architecture.kind != "resnet":
        parser.error(f"--model {name}: FLOPs and the PyTorch network are those of a resnetD only, such as resnet20")


def timed(call: Any, repeats: int) -> float:
    """Seconds of one call, compiled before, the least of three rounds."""
    jax.block_until_ready(call())
    rounds = []
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(repeats):
            result = call()
        jax.block_until_ready(result)
        rounds.append((time.perf_counter() - begun) / repeats)
    return min(rounds)


def matmul_peak(n: int, dtype: str) -> float:
    """Floating-point operations per second of an n x n matrix product."""
    a = jax.random.normal(jax.random.key(0), (n, n), dtype)
    product = jax.jit(lambda a: a @ a)
    return 2 * n**3 / timed(lambda: product(a), 10)


def convolution_ways(seeds: int, batch: int, dtype: str) -> dict[str, float]:
    """Milliseconds of a 3 x 3 convolution of 16 channels, forward and back, vmapped over seeds, both ways."""
    x = jax.random.normal(jax.random.key(0), (seeds, batch, 32, 32, 16), dtype)
    w = jax.random.normal(jax.random.key(1), (seeds, 3, 3, 16, 16), dtype)
    found = {}
    for way in (direct, by_products):
        gradient = jax.jit(jax.vmap(jax.grad(lambda x, w, way=way: jnp.sum(jnp.sin(way(x, w))), (0, 1))))
        found[way.__name__] = 1e3 * timed(lambda gradient=gradient: gradient(x, w), 3)
    return found


def throughput(config: ImageConfig, seeds: int, steps: int) -> float:
    """Images per second over all seeds of a single rule, within an epoch."""
    own = {"train": {"seeds": seeds}, "blocks": {"rules": ("plain",)}}
    config = config.model_copy(
        update={name: getattr(config, name).model_copy(update=change) for name, change in own.items()}
    )
    job = assemble_images(config, load_images(config.data.name, n=config.data.n, n_test=config.data.n_test))
    networks, shared = job.networks, job.networks.shared
    states = networks.advance(job.init(), 1)
    steps = min(steps, shared.per_epoch - 1, networks.max_steps)
    jax.block_until_ready(states)
    begun = time.perf_counter()
    jax.block_until_ready(networks.advance(states, steps))
    return seeds * shared.batch * steps / (time.perf_counter() - begun)


def main() -> None:
    """Train, measure, print, and write ``results/images.json``."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="tiny networks and images, nothing written")
    options.add_argument("--data", default="cifar10", help="as `mfresnet image DATA`")
    options.add_argument("--model", default="resnet20", help="a resnetD")
    options.add_argument("--epochs", type=int, default=160)
    options.add_argument("--seeds", type=int, default=3)
    given = options.parse_args()
    check_model(options, given.model)
    quick, on_cpu = given.quick, jax.default_backend() == "cpu"
    precision = "float32" if on_cpu else "bfloat16"
    tree = {
        "data": {"name": "synthetic-images", "n": 64, "n_test": 32} if quick else {"name": given.data},
        "model": {"name": "resnet8" if quick else given.model, "width": 4 if quick else None},
        "blocks": {"rules": RULES},
        "train": {
            "seeds": 2 if quick else given.seeds,
            "epochs": 1 if quick else given.epochs,
            "batch_size": 16 if quick else 128,
            "precision": precision,
        },
        "record": {"report": False, "sensitivity": False},
    }
    config = build(tree, ImageConfig)
    architecture = Architecture.named(config.model.name, config.model.width)
    device = jax.devices()[0].device_kind
    print(f"{config.model.name}, {precision}, on {device}" + (": no GPU, figures of a CPU" if on_cpu else ""))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        summary = train_images(config, Path(folder) / "run", quiet=quick)
    seconds = time.perf_counter() - begun
    for name, rule in summary["rules"].items():
        print(f"test error, {name}: {rule['test_error']}")
    print(f"paired: {summary.get('paired')}; all of it in {seconds:.0f} s")

    from torch_images import images_per_second

    steps, width = 3 if quick else 300, config.model.width or 16
    rounds: dict[str, list[float]] = {}
    for _ in range(1 if quick else 3):  # by turns: what else the machine does hits all alike
        for seeds in dict.fromkeys((1, config.train.seeds)):
            rounds.setdefault(f"mfresnet, {seeds} seed(s)", []).append(throughput(config, seeds, steps))
        for compiled in (False,) if on_cpu else (False, True):
            rate = images_per_second(architecture.blocks, width, config.train.batch_size, steps, compiled)
            rounds.setdefault("pytorch, compiled" if compiled else "pytorch, eager", []).append(rate)
    peak = matmul_peak(256 if quick else 1024 if on_cpu else 8192, precision)
    work = flops_per_image(architecture)
    rates = {}
    for name, found in rounds.items():
        rate = float(np.median(found))
        rates[name] = {"images_per_s": rate, "rounds": found, "share_of_peak": rate * work / peak}
    for name, found in rates.items():
        print(f"{name}: {found['images_per_s']:.0f} images/s, {100 * found['share_of_peak']:.1f} % of the matmul peak")
    ways = convolution_ways(2 if quick else config.train.seeds, 8 if quick else 128, precision)
    print(f"one convolution, forward and back, milliseconds: {ways}")
    if not quick:
        result = {
            "machine": facts(),
            "device": device,
            "config": config.model_dump(),
            "seconds": seconds,
            "summary": summary,
            "matmul_peak_flops": peak,
            "flops_per_image": work,
            "throughput": rates,
            "convolution_ms": ways,
        }
        path = Path(__file__).parent / "results" / "images.json"
        path.write_text(json.dumps(result, indent=2, default=float) + "\n")


if __name__ == "__main__":
    main()
