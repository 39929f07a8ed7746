"""Accuracy and time of MeanFieldResNetClassifier's defaults beside scikit-learn's tuned MLPClassifier and SVC.

    python benchmarks/estimators.py             all, some minutes
    python benchmarks/estimators.py --ours      the baselines' numbers are taken from the last run
    python benchmarks/estimators.py --quick     wine alone, a small network of few steps, nothing written

5-fold cross-validation, StratifiedKFold shuffled with seed 0. The baselines are tuned on these very folds, which
flatters them; ours runs with its defaults. Every accuracy is a mean over the 5 folds and `--seeds` starts.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from facts import facts
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC

from mfresnet.sklearn import MeanFieldResNetClassifier

DATA = {"breast-cancer": load_breast_cancer, "digits": load_digits, "wine": load_wine}
SCALERS = [StandardScaler(), MinMaxScaler((-1, 1))]
GRIDS = {
    "SVC": (SVC(), {"scale": SCALERS, "fit__C": [0.3, 1, 3, 10], "fit__gamma": ["scale", 0.01, 0.03]}),
    "MLPClassifier": (
        MLPClassifier(max_iter=200, random_state=0),
        {"scale": SCALERS, "fit__alpha": [1e-4, 1.0]},
    ),
}
RESULTS = Path(__file__).parent / "results" / "estimators.json"


def folds() -> StratifiedKFold:
    return StratifiedKFold(5, shuffle=True, random_state=0)


def tuned(name: str, x: np.ndarray, y: np.ndarray) -> dict:
    estimator, grid = GRIDS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search = GridSearchCV(
            Pipeline([("scale", StandardScaler()), ("fit", estimator)]), grid, cv=folds(), refit=False
        )
        search.fit(x, y)
    best = search.best_index_
    return {
        "accuracy": float(search.best_score_),
        "seconds_a_fit": float(search.cv_results_["mean_fit_time"][best]),
        "chosen": {key: str(value) for key, value in search.best_params_.items()},
        "tried": len(search.cv_results_["params"]),
    }


def ours(x: np.ndarray, y: np.ndarray, seeds: int, **settings: int) -> dict:
    scores, times = [], []
    for seed in range(seeds):
        for train, test in folds().split(x, y):
            start = time.perf_counter()
            found = MeanFieldResNetClassifier(random_state=seed, **settings).fit(x[train], y[train])
            times.append(time.perf_counter() - start)
            scores.append(found.score(x[test], y[test]))
    means = np.reshape(scores, (seeds, 5)).mean(axis=1)
    return {
        "accuracy": float(means.mean()),
        "accuracy_of_each_seed": means.tolist(),
        "first_fit_seconds": times[0],
        "seconds_a_fit": float(np.median(times)),
        "seeds": seeds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", action="store_true", help="keep the baselines of the last run")
    parser.add_argument("--seeds", type=int, default=3, help="starts of the network (default 3)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="wine alone, a small network, nothing written")
    arguments = parser.parse_args()
    if arguments.quick:
        x, y = load_wine(return_X_y=True)
        print(tuned("SVC", x, y), ours(x, y, 1, depth=2, width=8, head_width=8, max_iter=20, probes=0, head_probes=0))
        return
    result = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    table = result.setdefault("accuracy", {})
    print(f"{'':15}{'SVC':>8}{'MLP':>8}{'ours':>8}{'points behind':>15}{'first fit':>11}{'a fit':>8}")
    for name, load in DATA.items():
        x, y = load(return_X_y=True)
        row = table.setdefault(name, {})
        for baseline in GRIDS:
            if not (arguments.ours and baseline in row):
                row[baseline] = tuned(baseline, x, y)
        row["ours"] = found = ours(x, y, arguments.seeds)
        best = max(row[baseline]["accuracy"] for baseline in GRIDS)
        row["points_behind"] = 100 * (best - found["accuracy"])
        shown = "".join(f"{100 * row[key]['accuracy']:8.2f}" for key in (*GRIDS, "ours"))
        times = f"{found['first_fit_seconds']:10.1f}s{found['seconds_a_fit']:7.1f}s"
        print(f"{name:15}{shown}{row['points_behind']:15.2f}{times}", flush=True)
        write(result, arguments.output)


def write(result: dict, path: Path) -> None:
    """After each data set, so that a run that is stopped loses little."""
    result["defaults"] = {key: str(value) for key, value in MeanFieldResNetClassifier().get_params().items()}
    result["machine"] = facts()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
