"""Training beside eager PyTorch, memory against depth, start-up times: ``make bench``.

Three measurements, written with the machine's facts to ``benchmarks/results/train.json``:

1. The network of the rate experiment of [C24] (two spirals, d = 2, L = 10, M = K = 20, tanh, Adam 0.01, full
   batch, alpha = 10, beta = 20) in mfresnet and in eager PyTorch, by turns in one process. mfresnet trains all
   seeds in one compiled program; PyTorch trains one after another. Time is per step and run (seed).
2. The gradient at depth 100 to 10,000 with states recomputed in segments: compiled temporary memory that
   grows with the points (that of n = 512 less that of n = 1, where only particle-shaped arrays are left), and time per
   layer.
3. ``mfresnet --help``, and what ``import mfresnet`` with all its public names adds to JAX and Equinox.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from facts import facts
from torch_networks import PlainNet, StackedNet

from mfresnet.data import two_spirals
from mfresnet.flow import Options, Trainer, batch_of, field, optimiser
from mfresnet.model import LayeredResNet, trainable

RESULTS = Path(__file__).parent / "results" / "train.json"
NETWORK = {"depth": 10, "width": 20, "head_width": 20, "alpha": 10.0, "beta": 20.0}
GOALS = {
    "ratio at n = 64 and 512, 3 seeds": 20.0,
    "compile_s": 5.0,
    "memory": 4.0,
    "time_per_layer": 1.6,
    "help_s": 0.5,
    "import_s": 0.3,
}


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


# --- 1. training ---------------------------------------------------------------------------------


def spirals(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, 2) and labels (n, 1) of the two spirals."""
    x, y = two_spirals(n, np.random.default_rng(0))
    return np.asarray(x, np.float32), np.asarray(y, np.float32).reshape(n, 1)


class Ours:
    """All seeds in one compiled program of ``most`` steps."""

    def __init__(self, x: np.ndarray, y: np.ndarray, seeds: int, most: int):
        self.most = most
        keys = jax.random.split(jax.random.key(0), seeds)
        data, key = batch_of(x, y), jax.random.key(1)

        def begin(k: jax.Array):
            return trainer_of(create(k)).begin(create(k), key, len(x))

        def create(k: jax.Array) -> LayeredResNet:
            return LayeredResNet.create(k, inputs=2, **NETWORK)

        def trainer_of(model: LayeredResNet) -> Trainer:
            return Trainer(optimiser("adam", 0.01), trainable(model))

        trainer = trainer_of(create(keys[0]))

        def advance(state, count):
            return trainer.advance(state, data, key, count, most)

        over_seeds = eqx.filter_vmap(advance, in_axes=(eqx.if_array(0), None))
        self.state = eqx.filter_vmap(begin)(keys) if seeds > 1 else begin(keys[0])
        program = eqx.filter_jit(over_seeds if seeds > 1 else advance)
        count = jnp.asarray(most, jnp.int32)
        self.compile_s = seconds(lambda: setattr(self, "program", program.lower(self.state, count).compile()))
        self.count = count

    def run(self) -> np.ndarray:
        """``most`` steps of every seed; their losses."""
        self.state, losses = self.program(self.state, self.count)
        return np.asarray(losses)


class Theirs:
    """One seed after another, ``steps`` steps each, in eager PyTorch."""

    def __init__(self, network: type, x: np.ndarray, y: np.ndarray, seeds: int, steps: int):
        self.x, self.y, self.steps = torch.from_numpy(x), torch.from_numpy(y), steps
        torch.manual_seed(0)
        self.runs = []
        for _ in range(seeds):
            model = network(inputs=2, **NETWORK)
            self.runs.append((model, torch.optim.Adam(model.parameters(), lr=0.01)))

    def run(self) -> None:
        """``steps`` steps of every seed."""
        for model, optimizer in self.runs:
            for _ in range(self.steps):
                optimizer.zero_grad()
                loss = 0.5 * torch.mean((model(self.x) - self.y) ** 2)
                loss.backward()
                optimizer.step()
                loss.item()  # a training loop looks at its loss


def training(sizes: list[int], repeats: int, steps: int) -> list[dict]:
    """Milliseconds per step and run, the repeats of all networks by turns."""
    rows = []
    for n in sizes:
        x, y = spirals(n)
        for seeds in (1, 3):
            ours = Ours(x, y, seeds, steps)
            eager = {
                "torch": Theirs(PlainNet, x, y, seeds, max(2, steps // 10)),
                "torch_stacked": Theirs(StackedNet, x, y, seeds, max(2, steps // 10)),
            }
            times: dict[str, list[float]] = {"mfresnet": [], **{name: [] for name in eager}}
            first = ours.run()
            for each in eager.values():
                each.run()
            for _ in range(repeats):
                times["mfresnet"].append(1e3 * seconds(ours.run) / (steps * seeds))
                for name, each in eager.items():
                    times[name].append(1e3 * seconds(each.run) / (each.steps * seeds))
            last = ours.run()
            if not last.mean() < first.mean():
                raise SystemExit(f"the loss did not fall at n = {n}: the benchmark measures nothing")
            medians = {name: statistics.median(values) for name, values in times.items()}
            rows.append(
                {
                    "n": n,
                    "seeds": seeds,
                    "compile_s": ours.compile_s,
                    "ms_per_step_and_run": medians,
                    "ms_least": {name: min(values) for name, values in times.items()},
                    "ratio": medians["torch"] / medians["mfresnet"],
                    "ratio_stacked": medians["torch_stacked"] / medians["mfresnet"],
                    "ratio_least": min(times["torch"]) / min(times["mfresnet"]),
                }
            )
            print(
                f"  n {n:5d}  seeds {seeds}  mfresnet {medians['mfresnet']:7.3f} ms  torch {medians['torch']:7.2f} ms"
                f" (stacked {medians['torch_stacked']:6.2f})  ratio {rows[-1]['ratio']:5.1f}"
                f" ({rows[-1]['ratio_stacked']:5.1f})  compile {ours.compile_s:4.1f} s",
                flush=True,
            )
    return rows


# --- 2. depth ------------------------------------------------------------------------------------


def depths(sizes: list[int], repeats: int) -> list[dict]:
    """Memory and time of the field with recomputation, M = K = 64, n = 512, d = 2."""
    x, y = spirals(512)
    data, rows, compiled = batch_of(x, y), [], []
    for depth in sizes:
        model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=depth, width=64, head_width=64)
        trained = trainable(model)
        arrays, static = eqx.partition(model, eqx.is_array)

        def velocity(arrays, data, static=static, trained=trained):
            return field(eqx.combine(arrays, static), trained, data, Options(recompute=True))[:2]

        program = jax.jit(velocity).lower(arrays, data).compile()
        one_point = jax.jit(velocity).lower(arrays, batch_of(x[:1], y[:1])).compile()
        used, fixed = (each.memory_analysis().temp_size_in_bytes / 2**20 for each in (program, one_point))
        rows.append({"depth": depth, "temporary_mib": used, "activation_mib": used - fixed})
        compiled.append((program, arrays))
    times: list[list[float]] = [[] for _ in sizes]
    for _ in range(repeats + 1):
        for (program, arrays), depth, values in zip(compiled, sizes, times, strict=True):
            turns = max(1, 1000 // depth)
            begun = time.perf_counter()
            for _ in range(turns):
                jax.block_until_ready(program(arrays, data))
            values.append(1e6 * (time.perf_counter() - begun) / (turns * depth))
    for row, values in zip(rows, times, strict=True):
        row["us_per_layer"] = statistics.median(values[1:])
        row["memory_ratio"] = row["activation_mib"] / rows[0]["activation_mib"]
        row["time_ratio"] = row["us_per_layer"] / rows[0]["us_per_layer"]
        print(
            f"  L {row['depth']:6d}  activations {row['activation_mib']:7.2f} MiB (x {row['memory_ratio']:.2f})"
            f"  {row['us_per_layer']:7.1f} us per layer (x {row['time_ratio']:.2f})",
            flush=True,
        )
    return rows


# --- 3. start-up ---------------------------------------------------------------------------------


def startup(repeats: int) -> dict[str, float]:
    """Median seconds of fresh processes; the first, which compiles bytecode, is not counted."""
    commands = {
        "python": ["-c", "pass"],
        "help": ["-m", "mfresnet", "--help"],
        "base": ["-c", "import jax, equinox"],
        "import": ["-c", "import jax, equinox, mfresnet"],
        "names": ["-c", "import jax, equinox; from mfresnet import *"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats + 1):
        for name, command in commands.items():
            call = [sys.executable, *command]
            times[name].append(seconds(lambda call=call: subprocess.run(call, check=True, stdout=subprocess.DEVNULL)))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    # pairs of neighbouring processes, so that a busy machine disturbs both alike
    adds = {
        name: statistics.median(b - a for a, b in list(zip(times["base"], times[name], strict=True))[1:])
        for name in ("import", "names")
    }
    out = {
        "help_s": medians["help"],
        "python_s": medians["python"],
        "base_import_s": medians["base"],
        "import_adds_s": adds["import"],
        "public_names_add_s": adds["names"],
    }
    print(
        f"  mfresnet --help {out['help_s']:.2f} s;  import mfresnet adds {out['import_adds_s']:.3f} s to"
        f" JAX and Equinox ({out['base_import_s']:.2f} s), all its public names {out['public_names_add_s']:.2f} s",
        flush=True,
    )
    return out


def verdicts(result: dict) -> dict[str, dict]:
    """Each figure to reach, what was measured, and whether it was reached."""
    fast = [row["ratio"] for row in result["training"] if row["seeds"] == 3 and row["n"] in (64, 512)]
    deepest = result["depth"][-1]
    measured = {
        "ratio at n = 64 and 512, 3 seeds": min(fast),
        "compile_s": max(row["compile_s"] for row in result["training"]),
        "memory": deepest["memory_ratio"],
        "time_per_layer": deepest["time_ratio"],
        "help_s": result["startup"]["help_s"],
        "import_s": result["startup"]["import_adds_s"],
    }
    return {
        name: {
            "measured": value,
            "goal": GOALS[name],
            "reached": value >= GOALS[name] if name.startswith("ratio") else value <= GOALS[name],
        }
        for name, value in measured.items()
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats and sizes, nothing written")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes (default: %(default)s)")
    options = parser.parse_args()
    quick = options.quick
    result: dict = {"machine": facts(), "quick": quick, "torch_threads": torch.get_num_threads()}
    print("training, median ms per step and run (stacked: one tensor for all layers):", flush=True)
    result["training"] = training([64, 512] if quick else [64, 512, 2048], 1 if quick else 9, 40 if quick else 200)
    print("memory and time against depth (recomputation in segments):", flush=True)
    result["depth"] = depths([100, 1000] if quick else [100, 1000, 10_000], 2 if quick else 5)
    print("start-up, median of fresh processes:", flush=True)
    result["startup"] = startup(2 if quick else 9)
    result["goals"] = verdicts(result)
    print("goals:")
    for name, verdict in result["goals"].items():
        word = "reached" if verdict["reached"] else "MISSED"
        print(f"  {name:34} {verdict['measured']:8.3g}  goal {verdict['goal']:4g}  {word}")
    if quick:
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
