"""Theorem 5 of [C24] measured: ``mfresnet sweep kl`` at its default size, its result kept with the machine's facts.

python benchmarks/laws.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from facts import facts

from mfresnet.config import build
from mfresnet.experiments import entry
from mfresnet.runs.sweeps import SweepDirectory, sweep

RESULTS = Path(__file__).parent / "results" / "laws.json"


def main() -> None:
    """Run, print the result and write ``results/laws.json``."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="few betas, one seed, nothing written")
    quick = options.parse_args().quick
    settings = build({"betabar": "1,10,100", "seeds": 1} if quick else {}, entry("kl").settings_type())
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        sweep("kl", settings, Path(folder) / "sweep")
        seconds = time.perf_counter() - begun
        found = SweepDirectory(Path(folder) / "sweep").result
    result = {key: found[key] for key in ("verdict", "passed", "fit", "points", "notes")}
    print(f"{found['verdict']} ({seconds:.0f} s)\n{json.dumps(found['fit'], indent=2)}")
    if not quick:
        facts_and_result = {"machine": facts(), "settings": settings.model_dump(), "seconds": seconds, **result}
        RESULTS.write_text(json.dumps(facts_and_result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
