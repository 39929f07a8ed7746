"""Path certificates of the rule langevin with its defaults alone: the trained network itself, from the training points.

    python benchmarks/path.py [NAME ...] [--seeds 3] [--quick]     # results/path.json, NAME a case or a study below

Nothing is tuned here: the defaults (alpha = 40/d, beta = 120, 8,000 steps, one in twenty of a table's training rows to
fix the map of the inputs, which the certificate leaves out) were fixed on other draws of two-spirals and on splits of
breast-cancer and digits-binary, which are part of one table each; these splits were seen once with a tenth of the rows
for the map ("before"). A reader who counts these looks as settings adds log(20)/n to the price. The schedule comes from
pilot chains on the certified points, which is free. Test points are read once, at the end. Beside the cases, three
studies:

flow       test error of the gradient flow on the same splits, with the chain's alpha
held-out   the same number of points in two parts: trained on the first, by Adam with the chain's alpha or, for
           breast-cancer, by a short flow; the exact binomial bound by the others, with every setting paid for that was
           tried on these splits
chains     seconds of 64 chains against one
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from facts import facts

import mfresnet
from mfresnet import Config, LayeredResNet
from mfresnet.bounds import held_out_certificate
from mfresnet.certify import NetworkPredictor, path
from mfresnet.flow import AnnealingSchedule
from mfresnet.train.langevin import default_alpha

RESULTS = Path(__file__).parent / "results" / "path.json"
# goal of the defaults, data set, training points (None: three quarters of the table)
CASES: dict[str, tuple[float, str, int | None]] = {
    "breast-cancer": (0.135, "breast-cancer", None),
    "digits-binary": (0.19, "digits-binary", None),
    "two-spirals-512": (0.14, "two-spirals", 512),
    "two-spirals-1024": (0.11, "two-spirals", 1024),
    "two-spirals-4096": (0.06, "two-spirals", 4096),
}

ALPHA = {name: default_alpha(d) for name, d in (("breast-cancer", 30), ("digits-binary", 64), ("two-spirals", 2))}
SHORT = (
    {"alpha": 0.3, "beta": 4, "depth": 5, "head_width": 256},
    {"solver": "euler", "time": 64, "steps": 64, "probes": 0, "head_probes": 0},
)
ADAM = {"rule": "adam"}
# goal, data set, points that train, points that are held out, settings tried on them, those of model and training
HELD_OUT: dict[str, tuple[float, str, int, int, int, dict[str, Any], dict[str, Any]]] = {
    "breast-cancer": (0.07, "breast-cancer", 120, 280, 4, *SHORT),
    "digits-binary": (0.11, "digits-binary", 560, 840, 2, {"alpha": ALPHA["digits-binary"]}, ADAM),
    "two-spirals-4096": (0.015, "two-spirals", 1024, 3072, 2, {"alpha": ALPHA["two-spirals"]}, ADAM),
}
QUIET = {"gram_every": 0, "kl_every": 0, "landscape": False, "solver_error": False}


def one(name: str, n: int | None, seed: int, **train: Any) -> dict[str, Any]:
    """Train, certify and describe one run."""
    config = Config(seed=seed, data={"name": name, "n": n}, train={"rule": "langevin"} | train, diagnostics=QUIET)
    begun, cpu = time.perf_counter(), time.process_time()
    result = mfresnet.fit(config)
    certificate = mfresnet.certify(result)["path"]
    return {
        "seed": seed,
        "certificate": certificate.value,
        "status": certificate.status,
        "train_error": certificate.terms["train error"],
        "test_error": result.summary["test.error"],
        **{name: certificate.details[name] for name in ("n", "c", "gamma", "acceptance")},
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def flow(seeds: range) -> dict[str, Any]:
    """Test errors of the gradient flow."""
    found = {}
    for case, (_, name, n) in CASES.items():
        model, train = {"alpha": ALPHA[name]}, {"probes": 0, "head_probes": 0}
        errors = []
        for seed in seeds:
            config = Config(seed=seed, data={"name": name, "n": n}, model=model, train=train, diagnostics=QUIET)
            errors.append(mfresnet.fit(config).summary["test.error"])
            print("flow", case, seed, errors[-1], flush=True)
        found[case] = {"test_errors": errors, "mean": float(np.mean(errors))}
    return found


def held_out(seeds: range) -> dict[str, Any]:
    """Binomial bounds by points that were not trained on."""
    found = {}
    for case, (goal, name, n, m, compared, model, train) in HELD_OUT.items():
        runs = []
        for seed in seeds:
            data = {"name": name, "n": n, "n_test": m}
            config = Config(seed=seed, data=data, model=model, train=train, diagnostics=QUIET)
            errors = round(m * mfresnet.fit(config).summary["test.error"])
            value = held_out_certificate(errors, m, compared=compared).value
            runs.append({"seed": seed, "errors": errors, "certificate": value})
            print("held-out", case, runs[-1], flush=True)
        values = [run["certificate"] for run in runs]
        found[case] = {
            "goal": goal, "n": n, "held_out": m, "compared": compared,
            "mean": float(np.mean(values)), "worst": max(values), "runs": runs,
        }  # fmt: skip
    return found


def chains(seeds: range) -> dict[str, Any]:
    """Wall and processor seconds of steps of the rule with its default network, 512 points, one chain and 64."""
    x = np.random.default_rng(0).normal(size=(512, 2)).astype(np.float32)
    y, steps = np.sign(x[:, 0]), 100
    f = NetworkPredictor(LayeredResNet.create(jax.random.key(0), inputs=2, head_width=Config().model.head_width))
    schedule = AnnealingSchedule.power(500.0, steps)
    wall, cpu = {}, {}
    for m in (1, 64):
        times = []
        for seed in [0, *seeds]:
            begun = time.perf_counter(), time.process_time()
            path(f, f.prior(), (x, y), schedule, jax.random.key(seed), chains=m)
            times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        wall[str(m)], cpu[str(m)] = np.min(times[1:], axis=0).tolist()  # the first compiles
    ratios = {"ratio": wall["64"] / wall["1"], "cpu_ratio": cpu["64"] / cpu["1"]}
    return {"steps": steps, "n": 512, "seconds": wall, "cpu_seconds": cpu} | ratios


STUDIES = {"flow": flow, "held-out": held_out, "chains": chains}


def main() -> None:
    """Run the cases that were named and write the results beside those of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join([*CASES, *STUDIES])} (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short chain, nothing written")
    options = parser.parse_args()
    if options.quick:
        print("quick", json.dumps(one("two-spirals", 64, 1, steps=100)))
        return
    stored = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"delta": 0.05, "cases": {}}
    for case in options.names or [*CASES, *STUDIES]:
        if case in STUDIES:
            stored[case] = STUDIES[case](range(1, options.seeds + 1)) | {"machine": facts()}
            RESULTS.write_text(json.dumps(stored, indent=1) + "\n")
            continue
        goal, name, n = CASES[case]
        runs = []
        for seed in range(1, options.seeds + 1):
            runs.append(one(name, n, seed))
            print(case, json.dumps(runs[-1]), flush=True)
            values = [run["certificate"] for run in runs]
            stored["cases"][case] = {
                "goal": goal, "n": runs[0]["n"], "mean": float(np.mean(values)), "worst": max(values), "runs": runs,
                "machine": facts(),
            }  # fmt: skip
            RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
