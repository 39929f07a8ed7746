"""The default rate sweep, compilation included, beside the same 30 trainings in eager PyTorch.

Both train the network of [C24]'s rate experiment (two spirals, d = 2, L = 10, M = K = 20, tanh, Adam 0.01, full
batch, alpha = 10, beta = 20, 1000 steps) for n = 8 .. 4096 and 3 seeds on the same data, and take the test error on
1024 points.
mfresnet's time is that of the command itself in a fresh process: imports, data, compilation, training, files and
report. PyTorch's is that of the loop alone, its import and data left out.

    python benchmarks/sweeps.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from facts import facts
from torch_networks import PlainNet, StackedNet

from mfresnet.config import DataConfig
from mfresnet.data import load

RESULTS = Path(__file__).parent / "results" / "sweeps.json"
NETWORK = {"depth": 10, "width": 20, "head_width": 20, "alpha": 10.0, "beta": 20.0}
GOAL = 15.0


def ours(sizes: list[int], seeds: int, steps: int, cache: str) -> dict:
    """Seconds of the command, which keeps its programs in ``cache``, and its result."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "sweep"
        flags = ["--n", ",".join(map(str, sizes)), "--seeds", str(seeds), "--train.steps", str(steps)]
        command = [sys.executable, "-m", "mfresnet", "sweep", "rate", *flags, "--out", str(out), "--quiet"]
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"MFRESNET_CACHE": cache})
        seconds = time.perf_counter() - begun
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return {"seconds": seconds, "verdict": result["verdict"], "fit": result["fit"], "points": result["points"]}


def theirs(network: type, sizes: list[int], seeds: int, steps: int) -> dict:
    """Seconds of the same trainings one after another in eager PyTorch, and the mean test errors."""
    data = {
        (n, seed): load(DataConfig(name="two-spirals", n=n, n_test=1024), seed) for n in sizes for seed in range(seeds)
    }
    errors, seconds = {}, {}
    for n in sizes:
        begun, found = time.perf_counter(), []
        for seed in range(seeds):
            split = data[n, seed]
            x, y, x_test, y_test = (
                torch.tensor(v, dtype=torch.float32) for part in (split.train, split.test) for v in (part.x, part.y)
            )
            torch.manual_seed(seed)
            model = network(inputs=2, **NETWORK)
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
            for _ in range(steps):
                optimizer.zero_grad()
                loss = 0.5 * torch.mean((model(x) - y) ** 2)
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                found.append(float((model(x_test) * y_test <= 0).float().mean()))
        seconds[n], errors[n] = time.perf_counter() - begun, sum(found) / seeds
        print(f"  {network.__name__} n {n:5d}: {seconds[n]:6.1f} s, test error {errors[n]:.4f}", flush=True)
    return {"seconds": sum(seconds.values()), "seconds_by_n": seconds, "test_errors": errors}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few sizes and steps, nothing written")
    parser.add_argument("--stacked", action="store_true", help="also PyTorch with all layers in one tensor")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes (default: %(default)s)")
    options = parser.parse_args()
    sizes = [8, 64, 512] if options.quick else [2**k for k in range(3, 13)]
    seeds, steps = (2, 50) if options.quick else (3, 1000)
    result: dict = {"machine": facts(), "quick": options.quick, "sizes": sizes, "seeds": seeds, "steps": steps}
    result["torch_threads"] = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as cache:  # empty, then with the programs of the first start
        result["mfresnet"] = ours(sizes, seeds, steps, cache)
        result["second_start_seconds"] = ours(sizes, seeds, steps, cache)["seconds"]
    print(f"mfresnet sweep rate: {result['mfresnet']['seconds']:.1f} s, {result['mfresnet']['verdict']}", flush=True)
    for name, network in {"torch": PlainNet, **({"torch_stacked": StackedNet} if options.stacked else {})}.items():
        result[name] = theirs(network, sizes, seeds, steps)
        result[f"ratio_{name}"] = result[name]["seconds"] / result["mfresnet"]["seconds"]
        result[f"ratio_{name}_second_start"] = result[name]["seconds"] / result["second_start_seconds"]
        ratios = result[f"ratio_{name}"], result[f"ratio_{name}_second_start"]
        print(f"{name}: {result[name]['seconds']:.1f} s, {ratios[0]:.1f} and {ratios[1]:.1f} times", flush=True)
    result["goal"] = {"ratio": GOAL, "reached": result["ratio_torch"] >= GOAL}
    if not options.quick:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written to {options.out}")


if __name__ == "__main__":
    main()
