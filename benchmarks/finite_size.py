"""The finite-size experiment (preset chizat of [Ch25]) beside a plain NumPy transcription, in one run.

    python benchmarks/finite_size.py [--quick] [--keep-times]

Both sides train the same networks from the same particles, in the same precision; ours is timed from the cells to
all rows, compilation and the drawing of particles included. NumPy trains one network of each size (all of
one draw's references and of seed 0) in full and its time is multiplied by the number of seeds and draws, which differ
in nothing that costs time; for networks of more than ``WHOLE`` particle steps it makes a tenth of the steps, times ten.
The largest difference of the states at the end is reported over the networks that NumPy trained in full and that have
L M >= 100, and what float32 loses against float64 on a part of the grid. (Smaller networks oscillate under steps of
size D: rounding decides which way they go, so that two programs, or two precisions, part ways.)
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from facts import facts

from mfresnet.experiments import create

WHOLE = 3_000_000  # particles times steps that NumPy makes in full


def transcription(task, w: np.ndarray, out: np.ndarray, steps: int) -> np.ndarray:
    """Theory, section 9, with NumPy's products: w (L, D, M), out (L, D, M), which are changed in place."""
    depth, state, width = w.shape
    n, dtype = len(task.z), w.dtype.type
    z, y = task.z.astype(dtype), task.y.astype(dtype)
    gain, share, rate = dtype(1 / state), dtype(task.scales["alpha"] / (depth * width)), dtype(task.scales["rate"])

    def forward() -> tuple[list[np.ndarray], list[np.ndarray]]:
        states, activations = [z], []
        for inner, outer in zip(w, out, strict=True):
            activations.append(np.tanh(gain * (states[-1] @ inner)))
            states.append(states[-1] + share * (activations[-1] @ outer.T))
        return states, activations

    for _ in range(steps):
        states, activations = forward()
        p = (states[-1] - y) / dtype(n * state)
        for layer in reversed(range(depth)):
            s = activations[layer]
            e = gain * (p @ out[layer]) * (1 - s * s)
            back = share * (e @ w[layer].T)
            out[layer] -= rate * (p.T @ s)
            w[layer] -= rate * (states[layer].T @ e)
            p = p + back
    return forward()[0][-1]


def plain(experiment, cells: list[dict], precision: str) -> tuple[float, dict[int, np.ndarray]]:
    """Seconds of the transcription for all cells, and the states of the networks it trained in full, by place."""
    settings, seconds, states = experiment.settings, 0.0, {}
    for place, cell in enumerate(cells):
        if cell["draw"] != 0 or cell["seed"] != settings.seed:
            continue
        task, times = experiment.problem(cell), settings.draws * (settings.seeds if cell["kind"] == "network" else 1)
        part = 1 if cell["depth"] * cell["width"] * settings.steps <= WHOLE or settings.steps < 20 else 10
        begun = time.perf_counter()
        w, out = (np.array(v, precision) for v in experiment.start(cell))
        drawn = time.perf_counter()
        state = transcription(task, w, out, settings.steps // part)
        ended = time.perf_counter()
        seconds += times * ((drawn - begun) + part * (ended - drawn))
        if part == 1:
            states[place] = state
    return seconds, states


def ours(experiment, cells: list[dict]) -> tuple[float, list[dict], object]:
    """Seconds from the cells to all rows, the rows, and what they say (not timed: NumPy does not analyse)."""
    begun = time.perf_counter()
    rows = [cell | row for cell, row in zip(cells, experiment.run(cells), strict=True)]
    seconds = time.perf_counter() - begun
    return seconds, rows, experiment.analyse(rows)


def main() -> None:
    """Run, print and write ``results/finite_size.json``."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="small grid, one draw, nothing written")
    options.add_argument("--keep-times", action="store_true", help="of the last run: on a busy machine")
    given = options.parse_args()
    quick, path = given.quick, Path(__file__).parent / "results" / "finite_size.json"
    small = {"depth": "1,3,10,32", "width": "1,3,10,32", "reference": 100, "draws": 1}
    settings = small if quick else {}
    experiment = create("finite-size", settings)
    cells = experiment.cells()
    our_seconds, rows, result = ours(experiment, cells)
    print(f"ours: {our_seconds:.1f} s for {len(cells)} networks, compilation included\n  {result.verdict}", flush=True)
    seconds, states = plain(experiment, cells, experiment.settings.precision)
    apart = max(
        float(np.abs(np.ravel(v) - rows[place]["state"]).max())
        for place, v in states.items()
        if cells[place]["depth"] * cells[place]["width"] >= 100
    )
    print(
        f"NumPy, same precision: {seconds:.1f} s, {seconds / our_seconds:.2f} times; states apart at most {apart:.2g}"
    )

    # what rounding costs: the same part of the grid in both precisions, against the smallest error measured
    part = {"depth": "10,100", "width": "10,100", "reference": 101, "draws": 1, "seeds": 2}
    part = part if not quick else part | {"depth": "10", "width": "10", "reference": 11}
    found = {}
    for precision in ("float32", "float64"):
        probe = create("finite-size", part | {"precision": precision})
        found[precision] = np.array([row["state"] for row in ours(probe, probe.cells())[1]])
    floor = float(np.sqrt(np.mean((found["float32"] - found["float64"]) ** 2, axis=1)).max())
    least = min(point["error"] for point in result.points)
    print(f"float32 is {floor:.2g} from float64; the smallest error measured is {least:.2g}")
    if not quick:
        kept = json.loads(path.read_text()) if given.keep_times else {}
        record = {
            "machine": facts(),
            "timed": kept.get("timed", facts()),
            "settings": experiment.settings.model_dump(),
            "seconds": kept.get("seconds", our_seconds),
            "numpy_seconds": kept.get("numpy_seconds", seconds),
            "times": kept.get("times", seconds / our_seconds),
            "states_apart": apart,
            "float32_floor": floor,
            "smallest_error": least,
            **result.as_dict(),
        }
        path.write_text(json.dumps(record, indent=2, default=float) + "\n")


if __name__ == "__main__":
    main()
