"""What only an accelerator can show, each part one command; on a machine without one, tried at small size.

    python benchmarks/accelerator.py                      # all parts, hours; into results/accelerator.json
    python benchmarks/accelerator.py --part gram chains   # some of them
    python benchmarks/accelerator.py --quick              # tiny sizes on any machine, nothing written

suite     the fast tests of the mathematics, computed on the device
images    (needs the extra bench) images/s and share of the measured matmul peak beside PyTorch (channels last,
          bfloat16, eager and compiled)
table1    ResNet-20 plain and mean-field on CIFAR-10, three matched seeds, 160 epochs ([L20], table 1)
gram      one product with the Gram matrix of 100,000 points, matrix-free, float32
chains    4,096 annealed Langevin chains on 1,024 points of two spirals, and their certificate
depth     training steps of a network of 10,000 layers

Each part runs in processes of its own; kept are its seconds, what it printed last, and the machine's facts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from facts import facts

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "accelerator.json"
FOLDERS = ("model", "flow", "kernels", "diagnostics", "bounds", "certify")
GRAM = """
import time, jax, numpy as np
from mfresnet import LayeredResNet
from mfresnet.kernels import gram_operator
n, d = {n}, 32
x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
model = LayeredResNet.create(jax.random.key(0), inputs=d, depth=10, width={width}, head_width={width})
product = gram_operator(model, x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)
v = np.ones(n)
product.matvec(v)
begun = time.perf_counter()
quotient = v @ product.matvec(v) / n
print(f"n = {{n}}: {{time.perf_counter() - begun:.3f}} s a product, Rayleigh quotient {{quotient:.4g}}")
"""


def commands(quick: bool, out: Path) -> dict[str, list[str]]:
    """The command of each part."""
    program, train = [sys.executable, "-m", "mfresnet"], ["train", "two-spirals", "--quiet", "--record.report", "false"]
    mute = ["--diagnostics.gram-every", "0", "--diagnostics.kl-every", "0", "--diagnostics.landscape", "false"]
    tests = ["tests/bounds/test_kl_inverse.py"] if quick else [f"tests/{folder}" for folder in FOLDERS]
    table = ["--rows", "resnet20", "--rules", "plain,mean-field", "--out", str(out / "table1"), "--quiet"]
    small = [
        "--data",
        "synthetic-images",
        "--n",
        "64",
        "--n-test",
        "32",
        "--width",
        "2",
        "--epochs",
        "1",
        "--batch-size",
        "32",
    ]
    return {
        "suite": [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests],
        "images": [sys.executable, "benchmarks/images.py", *(["--quick"] if quick else [])],
        "table1": [*program, "sweep", "table1", *table, *([*small, "--seeds", "1"] if quick else ["--seeds", "3"])],
        "gram": [sys.executable, "-c", GRAM.format(n=200 if quick else 100_000, width=8 if quick else 512)],
        "chains": [
            *program, *train, *mute, "--train.rule", "langevin", "--out", str(out / "chains"),
            "--train.chains", "8" if quick else "4096", "--data.n", "64" if quick else "1024",
            *(["--train.steps", "50"] if quick else []),
        ],
        "depth": [
            *program, *train, *mute, "--train.rule", "adam", "--train.steps", "10", "--out", str(out / "depth"),
            "--model.depth", "200" if quick else "10000", "--model.width", "64",
        ],
    }  # fmt: skip


def main() -> None:
    """Run the parts, print what each said last, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = list(commands(True, Path()))
    parser.add_argument("--part", nargs="+", choices=parts, default=parts)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, nothing written")
    given = parser.parse_args()
    device = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.devices()[0].device_kind)"], capture_output=True, text=True
    ).stdout.strip()
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for part in given.part:
        with tempfile.TemporaryDirectory() as folder:
            machine, begun = facts(), time.perf_counter()
            done = subprocess.run(commands(given.quick, Path(folder))[part], cwd=ROOT, capture_output=True, text=True)
        last = done.stdout.strip().splitlines()[-12:]
        kept[part] = {
            "device": device, "machine": machine, "seconds": round(time.perf_counter() - begun, 2),
            "passed": done.returncode == 0, "printed": last,
        }  # fmt: skip
        print(f"== {part} on {device}: {'passed' if done.returncode == 0 else 'FAILED'}", *last, sep="\n", flush=True)
        if done.returncode:
            print(done.stderr[-2000:], flush=True)
        if not given.quick:
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
