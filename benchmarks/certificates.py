"""Certificates of three data sets beside their test errors: the best that settings chosen on training points reach.

    python benchmarks/certificates.py [NAME ...]     # results/certificates.json, NAME one of the cases below

Settings were chosen by what random-feature kernels on the training points predict, and by the certificates of a few
runs, never by test errors; `certify.settings` of each case counts what was tried, generously, and the union bound pays
for it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from facts import facts

from mfresnet.cli import main as mfresnet
from mfresnet.runs import read_certificates

RESULTS = Path(__file__).parent / "results" / "certificates.json"
QUIET = (
    "--record.report false --diagnostics.gram-every 0 --diagnostics.kl-every 0 --diagnostics.landscape false --quiet"
)
CASES: dict[str, tuple[float, str]] = {
    "breast-cancer": (
        0.17,
        "breast-cancer --data.n 400 --model.depth 5 --model.width 20 --model.head-width 256 --model.alpha 0.3 "
        "--model.beta 8 --model.initial.head-b 0.5 --train.solver euler --train.time 64 --train.steps 64 "
        "--train.probes 32 --train.head-probes 1024 --record.metrics-every 1 --record.snapshots 8 "
        "--certify.heads 64,256,1024 --certify.residuals 20,80 --certify.settings 24 "
        "--certify.prior-share 0.3 --certify.prior-steps 64",
    ),
    "digits-binary": (
        0.25,
        "digits-binary --data.n 1400 --data.n-test 397 --model.depth 5 --model.width 20 --model.head-width 512 "
        "--model.alpha 0.3 --model.beta 8 --model.initial.head-w 3 --train.solver euler --train.time 128 "
        "--train.steps 64 --train.probes 32 --train.head-probes 2048 --record.metrics-every 1 --record.snapshots 8 "
        "--certify.heads 256,1024,2048 --certify.residuals 20,80 --certify.settings 24 "
        "--certify.prior-share 0.4 --certify.prior-steps 64",
    ),
    "two-spirals": (
        0.10,
        "two-spirals --data.n 4096 --model.depth 4 --model.width 20 --model.head-width 512 "
        "--model.alpha 0.1 --model.beta 3 --model.initial.head-w 12 --model.initial.head-b 8 --train.solver euler "
        "--train.time 100 --train.steps 50 --train.probes 32 --train.head-probes 1024 --record.metrics-every 1 "
        "--record.snapshots 8 --certify.heads 128,256,1024 --certify.residuals 16,64 --certify.settings 24 "
        "--certify.prior-share 0.25 --certify.prior-steps 50",
    ),
}


def one(name: str) -> dict[str, Any]:
    """Train, certify and describe one case."""
    target, command = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        begun = time.perf_counter()
        if code := mfresnet(["train", *command.split(), *QUIET.split(), "--out", str(out)]):
            raise SystemExit(code)
        seconds = time.perf_counter() - begun
        found, refused = read_certificates(out)
        record = json.loads((out / "certificates.json").read_text())
    best = found["pac_bayes_learned"]  # named before the runs: the better of two would cost another factor of 2
    return {
        "command": f"mfresnet train {command}",
        "target": target,
        "reached": best.value,
        "certificate": best.name,
        "test.error.of.draws": best.details["test_error_of_draws"],
        "test.error.of.network": record["test.error"],
        "certificates": {
            name: {"value": c.value, "terms": dict(c.terms), "standing": c.standing, "details": c.details}
            for name, c in found.items()
        },
        "refused": refused,
        "over_time": record["over_time"],
        "seconds": seconds,
        "seconds.certify": record["seconds"],
    }


def main(names: list[str]) -> None:
    """Run the named cases (all by default) and keep the others' last results."""
    kept = json.loads(RESULTS.read_text())["cases"] if RESULTS.exists() else {}
    for name in names or CASES:
        kept[name] = one(name)
        found = kept[name]
        print(f"{name}: {found['reached']:.4f} (target {target_of(found)}), {found['certificate']}")
        RESULTS.write_text(json.dumps({"machine": facts(), "cases": kept}, indent=1) + "\n")


def target_of(found: dict[str, Any]) -> str:
    """The figure asked for."""
    return f"<= {found['target']}"


if __name__ == "__main__":
    main(sys.argv[1:])
