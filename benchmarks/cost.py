"""Predicted against measured seconds of training, measuring and certifying, over runs of many shapes.

The constants of the machine are measured beside each run, by turns, so that both see the same load. Measured is the
processor time of compiled steps, after compilation; the smaller of two repetitions. For solvers that choose their
steps the number of fields is predicted too. Of `measure` and `certify` it is the wall time of a second call in the
same process, as large eigenvalue problems use all cores: run it on an idle machine.

    python benchmarks/cost.py [--quick]    # writes benchmarks/results/cost.json
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

from mfresnet import Config
from mfresnet.data import load
from mfresnet.runs import certify, measure, predict_certify, predict_measure, train
from mfresnet.train.cost import measure_machine, predict_cost
from mfresnet.train.job import assemble

RESULTS = Path(__file__).parent / "results" / "cost.json"
WITHIN = 0.4
ADAM: dict[str, Any] = {"rule": "adam", "steps": 100}
NONE = {"probes": 0, "head_probes": 0}
RUNS: list[dict[str, Any]] = [  # n, dimension, depth, width, head width, train
    {"n": 64, "train": ADAM},
    {"n": 512, "train": ADAM},
    {"n": 4096, "train": ADAM},
    {"n": 512, "depth": 40, "train": ADAM},
    {"n": 512, "depth": 160, "train": ADAM},
    {"n": 512, "width": 200, "head_width": 200, "train": ADAM},
    {"n": 512, "d": 30, "train": ADAM},
    {"n": 256, "d": 100, "width": 100, "head_width": 100, "train": ADAM},
    {"n": 2048, "d": 10, "depth": 20, "width": 64, "head_width": 64, "train": ADAM},
    {"n": 1024, "train": ADAM | {"batch_size": 64}},
    {"n": 512, "train": ADAM | {"precision": "float64"}},
    {"n": 256, "train": {"solver": "heun", "steps": 40, "time": 20.0, **NONE}},
    {"n": 256, "train": {"solver": "heun", "steps": 40, "time": 20.0}},
    {"n": 512, "d": 30, "train": {"solver": "heun", "steps": 40, "time": 20.0, "probes": 8, "head_probes": 64}},
    {"n": 256, "train": {"solver": "euler", "steps": 80, "time": 20.0}},
    {"n": 256, "train": {"steps": 20, "time": 200.0, **NONE}},
    {"n": 256, "train": {"steps": 100, "time": 1000.0, **NONE}},
    {"n": 512, "train": {"steps": 100, "time": 1000.0}},
    {"n": 256, "train": {"solver": "adaptive", "steps": 20, "time": 200.0, **NONE}},
    {"n": 256, "train": {"solver": "adaptive", "steps": 20, "time": 200.0, "probes": 8, "head_probes": 64}},
]


def compare(run: dict[str, Any]) -> dict[str, Any]:
    """Predicted and measured seconds of one run."""
    data = {"name": "random-labels", "dimension": run["d"]} if "d" in run else {"name": "two-spirals"}
    model = {key: run[key] for key in ("depth", "width", "head_width") if key in run}
    config = Config(data={**data, "n": run["n"], "n_test": 64}, model=model, train=run["train"])
    double = config.train.precision == "float64"
    with jax.enable_x64(double):
        job = assemble(config, load(config.data, config.seed))
        steps = job.steps

        def advance() -> float:
            begun = time.process_time()
            jax.block_until_ready(job.trainer.advance(job.state, job.train, job.key, jnp.asarray(steps), steps))
            return time.process_time() - begun

        advance()
        seen = []
        for _ in range(2):
            with jax.enable_x64(False):
                cost = predict_cost(job.config, *job.train.x.shape, job.train.y.shape[1], measure_machine())
            seen.append((advance(), cost.seconds))
    measured, predicted = (float(min(values)) for values in zip(*seen, strict=True))
    return {"run": run, "fields": list(cost.counts.values()), "exact": cost.exact, "limit": cost.limit,
            "measured_s": measured, "predicted_s": predicted, "ratio": predicted / measured}  # fmt: skip


FINISHED: list[dict[str, Any]] = [  # n, dimension, depth, width, head width, Gram rows, share of a trained prior
    {"n": 512},
    {"n": 8192},
    {"n": 2048, "gram_points": 2000},
    {"n": 1024, "width": 200, "head_width": 200, "gram_points": 1000},
    {"n": 512, "d": 30, "depth": 20},
    {"n": 1024, "prior_share": 0.5},
    {"n": 1024, "heads": (16, 512), "residuals": (40,), "probes": 64, "head_probes": 2048},
]


def compare_finished(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Predicted and measured seconds of measuring and of certifying a run of 40 Euler steps."""
    data = {"name": "random-labels", "dimension": run["d"]} if "d" in run else {"name": "two-spirals"}

    def given(*names: str) -> dict[str, Any]:
        return {name: run[name] for name in names if name in run}

    config = Config(
        data={**data, "n": run["n"], "n_test": 256},
        model=given("depth", "width", "head_width"),
        train={"solver": "euler", "steps": 40, "time": 10.0, **given("probes", "head_probes")},
        diagnostics=given("gram_points"),
        certify=given("prior_share", "heads", "residuals"),
        record={"report": False},
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        train(config, path, quiet=True, say=ignore)
        for name, work, predict in (("measure", measure, predict_measure), ("certify", certify, predict_certify)):
            work(path, say=ignore)
            seen = []
            for _ in range(2):
                cost, begun = predict(path), time.perf_counter()
                work(path, say=ignore)
                seen.append((time.perf_counter() - begun, cost.seconds))
            measured, predicted = (float(min(values)) for values in zip(*seen, strict=True))
            rows.append({"run": {"command": name, **run}, "fields": list(cost.counts.values()), "exact": cost.exact,
                         "limit": cost.limit, "measured_s": measured, "predicted_s": predicted,
                         "ratio": predicted / measured})  # fmt: skip
    return rows


def ignore(text: str) -> None:
    """What a run says."""


def main() -> None:
    """Compare all runs, print the ratios and write ``results/cost.json``."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="the first run of each kind, nothing written")
    quick = options.parse_args().quick
    machine, rows = facts(), []
    work = [(lambda run: [compare(run)], run) for run in (RUNS[:1] if quick else RUNS)]
    work += [(compare_finished, run) for run in (FINISHED[:1] if quick else FINISHED)]
    for compared, run in work:
        for row in compared(run):
            rows.append(row)
            print(json.dumps(row), flush=True)
        jax.clear_caches()
    inside = int(np.sum([abs(row["ratio"] - 1) <= WITHIN for row in rows]))
    print(f"{inside} of {len(rows)} within {WITHIN:.0%}")
    if quick:
        return
    RESULTS.write_text(
        json.dumps({"facts": machine, "within": WITHIN, "inside": inside, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
