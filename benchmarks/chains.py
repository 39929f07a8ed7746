"""Annealed Langevin chains beside BlackJAX's MALA on the same potential, and cost per chain from 8 to 512 chains.

    python benchmarks/chains.py [--quick] [--only-ours]    # results/chains.json

Both samplers see one log-density, log N(z; 0, I) - gamma L(z), with L the potential of a path certificate of a network
of the default sizes on two spirals, gamma = 100; both make one gradient a step, adjust, and run in one compiled program
of many steps. What is compared: seconds of the same number of steps, by turns in one process, from the same places.
The acceptance of both at the same step is stated, so that nothing is gained by steps that go nowhere.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from facts import facts, installed

from mfresnet import Config, LayeredResNet
from mfresnet.certify import NetworkPredictor
from mfresnet.config import DataConfig
from mfresnet.data import load
from mfresnet.flow.langevin import Chains, advance, start
from mfresnet.flow.potential import PredictorPotential
from mfresnet.train.langevin import default_alpha

RESULTS = Path(__file__).parent / "results" / "chains.json"
GAMMA, STEP = 100.0, 2e-3
CHAINS = (8, 16, 32, 64, 128, 256, 512)
GOAL = 2.0


def problem(n: int) -> tuple[PredictorPotential, tuple[jax.Array, jax.Array], int]:
    """The potential, its data and the number of coordinates."""
    config = Config()
    data = load(DataConfig(name="two-spirals", n=n)).train
    sizes = {name: getattr(config.model, name) for name in ("depth", "width", "head_width")}
    model = LayeredResNet.create(jax.random.key(0), inputs=2, alpha=default_alpha(2), beta=120.0, **sizes)
    f = NetworkPredictor(model)
    potential = PredictorPotential(f, f.prior(), jnp.asarray(1.0, jnp.float32))
    return potential, (jnp.asarray(data.x, jnp.float32), jnp.asarray(data.y, jnp.float32).reshape(-1)), f.prior().size


def ours(potential: PredictorPotential, data: Any, size: int, chains: int, steps: int) -> Callable[[], Chains]:
    gammas, lengths = (jnp.full(steps, value, jnp.float32) for value in (GAMMA, STEP))
    begun = start(potential, data, size, chains, steps, jax.random.key(1))
    return lambda: advance(potential, begun, data, gammas, lengths, jax.random.key(2), 0, steps)


def mala(potential: PredictorPotential, data: Any, size: int, chains: int, steps: int) -> Callable[[], Any]:
    """BlackJAX's MALA as its documentation runs many chains: vmap of the kernel inside a scan."""
    import blackjax  # pyright: ignore[reportMissingImports]

    def log_density(z: jax.Array) -> jax.Array:
        return -0.5 * z @ z - GAMMA * potential(z, data)[0]

    sampler = blackjax.mala(log_density, STEP)
    states = jax.jit(jax.vmap(sampler.init))(start(potential, data, size, chains, 2, jax.random.key(1)).z)

    @jax.jit
    def run(states: Any, key: jax.Array) -> Any:
        def step(states: Any, key: jax.Array) -> Any:
            states, info = jax.vmap(sampler.step)(jax.random.split(key, chains), states)
            return states, (states.logdensity, info.acceptance_rate)

        return jax.lax.scan(step, states, jax.random.split(key, steps))

    return partial(run, states, jax.random.key(2))


def turns(runs: dict[str, Callable[[], Any]], steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds and processor seconds a step of each, by turns, medians."""
    for run in runs.values():
        jax.block_until_ready(run())
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            jax.block_until_ready(run())
            found[name].append(((time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps))
    return {
        name: {
            "seconds_per_step": median(wall for wall, _ in of),
            "processor_seconds_per_step": median(processor for _, processor in of),
            "rounds": rounds,
        }
        for name, of in found.items()
    }


def side_by_side(n: int, chains: int, steps: int, rounds: int, alone: bool) -> dict[str, Any]:
    """Both samplers on one potential, and how often each accepts."""
    given = (*problem(n), chains, steps)
    runs: dict[str, Callable[[], Any]] = {"mfresnet": ours(*given)}
    if not alone:
        runs["BlackJAX MALA"] = mala(*given)
    times = turns(runs, steps, rounds)
    last = runs["mfresnet"]()
    result: dict[str, Any] = {"n": n, "chains": chains, "steps": steps, "samplers": times}
    times["mfresnet"]["acceptance"] = float(last.acceptance.mean())
    times["mfresnet"]["loss_after"] = float(last.loss.mean())
    if not alone:
        states, (_, rates) = runs["BlackJAX MALA"]()
        losses = jax.jit(jax.vmap(lambda z: given[0](z, given[1])[0]))(states.position)
        times["BlackJAX MALA"]["acceptance"] = float(np.mean(rates))
        times["BlackJAX MALA"]["loss_after"] = float(losses.mean())
        for key in ("seconds_per_step", "processor_seconds_per_step"):
            result[f"ratio_of_{key}"] = times["BlackJAX MALA"][key] / times["mfresnet"][key]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 chains on few points, nothing written")
    parser.add_argument("--only-ours", action="store_true", help="without BlackJAX")
    given = parser.parse_args()
    alone = given.only_ours or installed("blackjax") is None
    if alone:
        print("BlackJAX is not installed: its side is left out")
    steps, rounds = (10, 3) if given.quick else (50, 7)
    compared = side_by_side(128 if given.quick else 512, 64, steps, rounds, alone)
    print(json.dumps(compared, indent=1))
    if given.quick:
        return
    potential, data, size = problem(512)
    counts = {m: ours(potential, data, size, m, 10) for m in CHAINS}
    found = turns({str(m): run for m, run in counts.items()}, 10, 5)
    cost = [
        {"chains": int(m), **{f"{key}_and_chain": of[key] / int(m) for key in of if key != "rounds"}}
        for m, of in found.items()
    ]
    for row in cost:
        print(row)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts kilobytes
    result = {
        "command": "python benchmarks/chains.py",
        "gamma": GAMMA,
        "step": STEP,
        "coordinates": size,
        "side_by_side": compared,
        "goal": GOAL,
        "cost_per_chain": cost,
        "peak_gb": peak,
        "blackjax": installed("blackjax"),
        "machine": facts(),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
