"""Experiments that are judged by their result, not their speed, at full size: verdicts kept with the machine's facts.

    python benchmarks/experiments.py [NAME ...] [--quick]      # into results/experiments.json

kl         Theorem 5 of [C24]: how far the laws move against betabar
phase      lazy training and feature learning over (alpha, beta)
transfer   whether the best learning rate carries over in depth and width, with 10 seeds
own        finite-size errors of this project's network
embedding  the same between a fixed embedding and readout ([CCM26])
shallow    the exponent of depth with an embedding, of shallow wide networks: large bias, small sampling error
certificate-n, -noise, -gamma, -alpha, -beta, -depth, -width
           path certificates of two-spirals, by chains of 2,000 to 8,000 steps, against points (with a trained and a
           fixed encoder), label noise, last inverse temperature, scales and sizes

The rate and `chizat` are in sweeps.py and finite_size.py, which time them beside other implementations.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from facts import facts

from mfresnet.config import build, nest
from mfresnet.experiments import entry
from mfresnet.runs.sweeps import SweepDirectory, sweep

RESULTS = Path(__file__).parent / "results" / "experiments.json"
# one embedding and one dimension: the exponent of D is the business of the case "embedding"
SHALLOW = {"preset": "embedding", "dimension": "32", "embeddings": 1, "least": 2}
PATH = {"data.n": 512, "train.steps": 4000}  # half the default: many cells
SHORT = {"train.steps": 2000}  # a quarter
SMALL = {"data.n": 256, "train.steps": 8000, "seeds": 4}  # shorter chains are late in half of the cells
QUICK_PATH = {"data.n": 64, "train.steps": 100, "seeds": 1}


def against(*sets: str, **more: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A certificate sweep over these settings; where the grid has the points, no other number of them is given."""
    path, quick = PATH | {"set": sets, "seeds": 2} | more, QUICK_PATH | {"set": (sets[0].rsplit(",", 1)[0],)}
    if sets[0].startswith("data.n="):
        path.pop("data.n"), quick.pop("data.n")
    return "certificate", path, quick


# of each: the experiment, its settings, and those of a quick look instead
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "kl": ("kl", {}, {"betabar": "1,10,100", "seeds": 1}),
    "phase": ("phase", {}, {"alpha": "0.1,10", "beta": "1,100", "seeds": 1}),
    "transfer": ("transfer", {"seeds": 10}, {"depth": "4,16", "width": "8,32", "horizons": "20", "seeds": 2}),
    "own": ("finite-size", {"preset": "own"}, {"preset": "own", "depth": "1,3", "width": "1,3", "reference": 10}),
    "embedding": (
        "finite-size",
        {"preset": "embedding"},
        {"preset": "embedding", "depth": "1,3", "width": "1,3", "reference": 10, "dimension": "4,8"},
    ),
    "shallow": (
        "finite-size",
        SHALLOW | {"depth": "2,4,8", "width": "2048,4096", "reference": 64, "reference_width": 4096, "draws": 5},
        SHALLOW | {"depth": "2,4", "width": "16,32", "reference": 16, "reference_width": 32, "draws": 2},
    ),
    "certificate-noise": against("data.label_noise=0,0.1,0.2,0.3,0.4,0.5"),
    "certificate-n": against("data.n=128,256,512,1024", "train.freeze=none,encoder", **SHORT | {"seeds": 3}),
    "certificate-gamma": against("train.gamma=50,200,800,3200"),
    "certificate-alpha": against("model.alpha=5,20,80", **SMALL),
    "certificate-beta": against("model.beta=20,120,480", **SMALL),
    "certificate-depth": against("model.depth=1,5,10", **SMALL),
    "certificate-width": against("model.width=5,20,80", **SMALL),
}
QUICK = ("own", "certificate-noise")  # where none is named
MOST_POINTS, MOST_CELLS = 60, 100  # kept in the file


def one(name: str, quick: bool) -> dict[str, Any]:
    """Run one case and take its result."""
    experiment, full, small = CASES[name]
    values = small if quick else full
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        sweep(experiment, build(nest(values), entry(experiment).settings_type()), Path(folder) / "sweep", quiet=True)
        seconds = time.perf_counter() - begun
        done = SweepDirectory(Path(folder) / "sweep")
        found, rows = done.result, list(done.rows(MOST_CELLS).values())
    flags = "".join(
        f" --{key.replace('_', '-')} {one}"
        for key, value in values.items()
        for one in (value if isinstance(value, tuple) else (value,))
    )
    result = {key: found[key] for key in ("verdict", "passed", "fit", "notes")}
    if len(found["points"]) <= MOST_POINTS:
        result["points"] = found["points"]
    if experiment == "certificate":  # c, temperature and errors of each chain
        result["cells"] = rows
    return {"command": f"mfresnet sweep {experiment}{flags}", "machine": facts(), "seconds": seconds, **result}


def main() -> None:
    """Run the named cases (all by default), print what they say and keep the others' last results."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", choices=[*CASES, []], help="cases (default: all)")
    options.add_argument("--quick", action="store_true", help="tiny sizes of a few cases, nothing written")
    given = options.parse_args()
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in given.names or (QUICK if given.quick else CASES):
        found = kept[name] = one(name, given.quick)
        verdict = {True: "passed", False: "failed", None: "undecided"}[found["passed"]]
        print(f"{name}: {found['verdict']} ({verdict}, {found['seconds']:.0f} s)", flush=True)
        if not given.quick:
            RESULTS.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
