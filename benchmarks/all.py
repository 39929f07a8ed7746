"""Every benchmark of this folder, one after another, each in a process of its own.

    python benchmarks/all.py [NAME ...]          # hours; into results
    python benchmarks/all.py --quick             # whether all of them work: five minutes, nothing written

A benchmark is a script with a ``main`` and an option ``--quick``. One that fails does not stop the others. What needs
an accelerator is left out where there is none, unless it is named.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from mfresnet import enable_compilation_cache

FOLDER = Path(__file__).parent
SCRIPTS = {
    file.stem: file for file in sorted(FOLDER.glob("*.py")) if "\ndef main(" in file.read_text() and file.stem != "all"
}
ALSO = {"gram": ["--large"]}  # a second call
ACCELERATOR = ("accelerator", "images")  # the second has a small form for every machine


def has_accelerator() -> bool:
    """Whether JAX finds one; asked in a process of its own, which gives it back."""
    ask = "import jax; raise SystemExit(jax.default_backend() == 'cpu')"
    return subprocess.run([sys.executable, "-c", ask], stderr=subprocess.DEVNULL).returncode == 0


def processor() -> float:
    """Processor seconds of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run them, print how long each took, and fail if one did."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", choices=[*SCRIPTS, []], help="benchmarks (default: all)")
    options.add_argument("--quick", action="store_true", help="each at its smallest, nothing written")
    given = options.parse_args()
    if given.quick:
        enable_compilation_cache()  # the processes inherit it; a measurement decides for itself
    left_out = () if given.names or has_accelerator() else ACCELERATOR[: 1 if given.quick else None]
    failed: list[str] = []
    for name in given.names or SCRIPTS:
        if name in left_out:
            print(f"=== {name}: left out, there is no accelerator", flush=True)
            continue
        calls = [["--quick"]] if given.quick else [[], *([ALSO[name]] if name in ALSO else [])]
        for words in calls:
            print(f"=== {' '.join([name, *words])}", flush=True)
            begun, before = time.perf_counter(), processor()
            code = subprocess.run([sys.executable, SCRIPTS[name], *words]).returncode
            failed += [name] if code else []
            took = f"{time.perf_counter() - begun:.0f} s, {processor() - before:.0f} s of processors"
            print(f"=== {name}: {'failed' if code else 'done'} in {took}", flush=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
