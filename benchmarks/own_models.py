"""Models of a user: best learning rates from depth 4 to 64 with the scaling rules and without, memory of the operator.

    python benchmarks/own_models.py [--quick]           both parts
    python benchmarks/own_models.py --part transfer     a transformer and a convolutional net, minutes
    python benchmarks/own_models.py --part operator     J J^T v of a convolutional net at n = 10,000, minutes

The models of the first part are those of `tests/experiments/own_factories.py`. Each measurement of the second part
runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from facts import facts

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "own_models.json"
DEPTHS, WIDTH, STEPS, SEEDS = (4, 16, 64), 8, 40, 6
RATES = tuple(2.0**-k for k in range(11, 0, -1))
PARTS = ("transfer", "operator")
CASES = [(1000, 250), (10_000, 250), (1000, None), (2000, None)]  # (points, block)


def transfer(
    depths: tuple[int, ...] = DEPTHS, rates: tuple[float, ...] = RATES, steps: int = STEPS, seeds: int = SEEDS
) -> list[dict[str, object]]:
    """Best rates of both models, scaled and plain."""
    sys.path.insert(0, str(ROOT / "tests" / "experiments"))
    from own_factories import convolution, transformer

    from mfresnet.experiments.own_transfer import transfer as measure

    rows = []
    for factory in (transformer, convolution):
        for scaled in (True, False):
            grid = measure(factory, depths, rates, other=WIDTH, steps=steps, seeds=seeds, scaled=scaled)
            rows.append(
                {
                    "model": factory.__name__,
                    "scaled": scaled,
                    "depths": list(depths),
                    "best_rates": [rates[place] for place in grid.best],
                    "best_losses": [float(row.min()) for row in grid.losses],
                    "steps_moved": grid.steps_moved,
                    "at_edge": grid.at_edge,
                }
            )
            print(rows[-1], flush=True)
    return rows


def operator(points: int, block: int | None) -> dict[str, object]:
    """One product with J J^T of a convolutional net with 10 outputs on images of 32 x 32 x 3, in float64."""
    import jax
    import jax.numpy as jnp

    from mfresnet import empirical_operator

    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"first": (3, 3, 3, 16), "second": (3, 3, 16, 16), "third": (3, 3, 16, 16), "out": (16, 10)}
    params = {
        name: 0.2 * jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }

    def conv(h, w, stride):
        return jax.lax.conv_general_dilated(h, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def f(p, x):
        h = jnp.tanh(conv(x, p["first"], 2))
        h = h + jnp.tanh(conv(h, p["second"], 1))
        h = jnp.tanh(conv(h, p["third"], 2))
        return jnp.mean(h, axis=(1, 2)) @ p["out"]

    x = np.random.default_rng(0).normal(size=(points, 32, 32, 3)).astype(np.float32)
    v = np.random.default_rng(1).normal(size=10 * points)
    product = empirical_operator(f, params, x, block=block)
    product.matvec(v)
    begin = time.perf_counter()
    image = product.matvec(v)
    return {
        "points": points,
        "block": block,
        "seconds": round(time.perf_counter() - begin, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "inputs_mib": round(8 * x.size / 2**20),
        "quotient": float(v @ image / (v @ v)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="the other one keeps its last figures")
    parser.add_argument("--quick", action="store_true", help="tiny, nothing written")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(operator(*CASES[options.case])))
        return
    if options.quick:
        transfer((2, 4), RATES[::6], steps=2, seeds=1)
        print(operator(32, 16))
        return
    for part in PARTS if options.part is None else (options.part,):
        measure(part)


def measure(part: str) -> None:
    """Measure one part and write it beside the other one."""
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    machine = facts()
    if part == "transfer":
        rows = transfer()
    else:
        rows = []
        for case in range(len(CASES)):
            call = [sys.executable, __file__, "--part", "operator", "--case", str(case)]
            done = subprocess.run(call, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    stored[part] = {"machine": machine, "rows": rows}
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
