"""Path certificates of the rule langevin with its defaults alone: the trained network itself, from the training points.

    python benchmarks/path.py [NAME ...] [--seeds 3]     # results/path.json, NAME a case below

Nothing is tuned here: the defaults (alpha = 40/d, beta = 120, 8,000 steps) were fixed beforehand, on other draws of
two-spirals and on some of these splits of breast-cancer and digits-binary (seeds 1 and 2), which are part of one table
each; a reader who counts these looks as settings adds log(20)/n to the price. The schedule comes from pilot chains on
the certified points, which is free. A tenth of a table's training rows fixes the map of the inputs and is left out.
Test points are read once, at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from facts import facts

import mfresnet
from mfresnet import Config

RESULTS = Path(__file__).parent / "results" / "path.json"
# goal of the defaults, data set, training points (None: three quarters of the table)
CASES: dict[str, tuple[float, str, int | None]] = {
    "breast-cancer": (0.135, "breast-cancer", None),
    "digits-binary": (0.19, "digits-binary", None),
    "two-spirals-512": (0.14, "two-spirals", 512),
    "two-spirals-1024": (0.11, "two-spirals", 1024),
    "two-spirals-4096": (0.06, "two-spirals", 4096),
}


def one(name: str, n: int | None, seed: int) -> dict[str, Any]:
    """Train, certify and describe one run."""
    diagnostics = {"gram_every": 0, "kl_every": 0, "landscape": False}
    config = Config(seed=seed, data={"name": name, "n": n}, train={"rule": "langevin"}, diagnostics=diagnostics)
    begun, cpu = time.perf_counter(), time.process_time()
    result = mfresnet.fit(config)
    path = mfresnet.certify(result)["path"]
    return {
        "seed": seed,
        "certificate": path.value,
        "status": path.status,
        "train_error": path.terms["train error"],
        "test_error": result.summary["test.error"],
        **{name: path.details[name] for name in ("n", "c", "gamma", "acceptance")},
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def main() -> None:
    """Run the cases that were named and write the results beside those of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    stored = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"delta": 0.05, "cases": {}}
    for case in options.names or CASES:
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
