"""Speed and memory of the closed-form Gram matrix against Jacobian contractions.

    python benchmarks/gram.py --quick      the small sizes, a minute
    python benchmarks/gram.py              all sizes
    python benchmarks/gram.py --large      lambda_min at n = 20,000 (dense, blocked) and 50,000 (matrix-free) only

All methods of a size, and the float32 matrix product that they are measured against, run by turns in one process, and
medians are compared: what else the machine does hits all alike. Processor seconds are those of all cores together. The
peak memory of a method is that of one run in a process of its own. The baselines need torch (extra `bench`); they are
skipped, and said to be, where torch is missing or their Jacobian needs too much memory. PyTorch computes on one thread:
compare it by processor seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from facts import facts, installed

SIZES = [
    (100, 10, 20, 20, 2),
    (500, 10, 20, 20, 2),
    (500, 10, 200, 200, 10),
    (2000, 10, 100, 100, 10),
    (2000, 32, 512, 512, 64),
]
METHODS = ["closed form, float32", "closed form, float64", "torch.func", "JAX jacrev"]
BASELINE_LIMIT = 16e9  # bytes
PRODUCT, MATMUL = 2000, "matrix product"
RESULTS = Path(__file__).parent / "results" / "gram.json"


def network(size: tuple[int, ...]):
    import jax

    from mfresnet import LayeredResNet

    _, depth, width, head_width, d = size
    return LayeredResNet.create(jax.random.key(0), inputs=d, depth=depth, width=width, head_width=head_width)


def sphere(n: int, d: int) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def torch_gram(size: tuple[int, ...]) -> Callable[[], np.ndarray]:
    """The contraction of torch's tutorial on tangent kernels: vmap(jacrev) of one point, then einsum."""
    import torch
    from torch.func import jacrev, vmap

    torch.set_num_threads(1)  # more of them wait for each other by spinning where the machine does something else, too
    model, x = network(size), torch.tensor(sphere(size[0], size[4]))
    depth, width, head_width = size[1:4]
    alpha = float(model.alpha)
    nu = [torch.tensor(np.asarray(leaf)) for leaf in (model.encoder.u, model.encoder.w, model.encoder.b)]
    tau = [torch.tensor(np.asarray(leaf)) for leaf in (model.head.a, model.head.w, model.head.b)]

    def g(nu, tau, z):
        u, w, b = nu
        for layer in range(depth):
            z = z + alpha / (depth * width) * (torch.tanh(w[layer] @ z + b[layer]) @ u[layer])
        return torch.tanh(tau[1] @ z + tau[2]) @ tau[0] / head_width

    def run() -> np.ndarray:
        found = vmap(jacrev(g, argnums=(0, 1)), (None, None, 0))(nu, tau, x)
        parts = [sum(torch.einsum("icp,jcp->ij", j.flatten(2), j.flatten(2)) for j in part) for part in found]
        return (depth * width * parts[0] + head_width * parts[1]).numpy()

    return run


def jacrev_gram(size: tuple[int, ...]) -> Callable[[], np.ndarray]:
    """The same contraction, compiled, in JAX."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    model, x = network(size), jnp.asarray(sphere(size[0], size[4]))
    depth, width, head_width = size[1:4]

    @jax.jit
    def contraction(model, x):
        def g(encoder, head, point):
            moved = eqx.tree_at(lambda m: (m.encoder, m.head), model, (encoder, head))
            return moved(point[None])[0, 0] / model.beta

        found = jax.vmap(jax.jacrev(g, argnums=(0, 1)), (None, None, 0))(model.encoder, model.head, x)
        flat = [[leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(part)] for part in found]
        parts = [sum(leaf @ leaf.T for leaf in part) for part in flat]
        return depth * width * parts[0] + head_width * parts[1]

    return lambda: np.asarray(contraction(model, x))


def closed_gram(size: tuple[int, ...], dtype: str) -> Callable[[], np.ndarray]:
    from mfresnet.kernels.gram import gram

    model, x = network(size), sphere(size[0], size[4])
    return lambda: gram(model, x, dtype=dtype).total


def runner(method: str, size: tuple[int, ...]) -> Callable[[], np.ndarray]:
    if method == "torch.func":
        return torch_gram(size)
    if method == "JAX jacrev":
        return jacrev_gram(size)
    return closed_gram(size, method.split(", ")[1])


def turns(runs: dict[str, Callable[[], object]], seconds: float = 10.0) -> dict[str, dict]:
    """Seconds and processor seconds of each run, by turns after a warm-up, for about ``seconds``, 3 to 60 rounds."""
    for run in runs.values():
        run()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    begun = time.perf_counter()
    while len(times[next(iter(runs))]) < 3 or (
        time.perf_counter() - begun < seconds and len(times[next(iter(runs))]) < 60
    ):
        for name, run in runs.items():
            start, start_processor = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - start, time.process_time() - start_processor))
    return {
        name: {
            "seconds": median(wall for wall, _ in of),
            "least_seconds": min(wall for wall, _ in of),
            "processor_seconds": median(processor for _, processor in of),
            "rounds": len(of),
        }
        for name, of in times.items()
    }


def product() -> Callable[[], object]:
    """A float32 matrix product of size `PRODUCT`, compiled."""
    import jax
    import jax.numpy as jnp

    a = jnp.asarray(np.random.default_rng(0).normal(size=(PRODUCT, PRODUCT)), jnp.float32)
    compiled = jax.jit(lambda a: a @ a)
    return lambda: compiled(a).block_until_ready()


def compared(size: tuple[int, ...], methods: list[str]) -> dict:
    """The methods and a matrix product by turns."""
    runs = {method: runner(method, size) for method in methods}
    found = turns({MATMUL: product()} | runs)
    if size[0] * size[2] <= 200_000:
        exact = closed_gram(size, "float64")()
        for method, run in runs.items():
            found[method]["relative_error"] = float(np.abs(run() - exact).max() / np.abs(exact).max())
    return found


def smallest(kind: str, n: int) -> dict:
    """lambda_min of G at d = 10, L = 10, M = K = 100; an operator with at most 512 Lanczos vectors.

    The network has 22,200 parameters: with more rows than that the value is 0 by its rank, and only products are timed.
    """
    from mfresnet.kernels.eigen import smallest_eigenvalue
    from mfresnet.kernels.gram import gram, gram_operator
    from mfresnet.kernels.output_adjoint import ranks_of

    model, x = network((n, 10, 100, 100, 10)), sphere(n, 10)
    start, start_processor = time.perf_counter(), time.process_time()
    matrix = gram(model, x, hold="total").total if kind == "dense" else gram_operator(model, x)
    built, built_processor = time.perf_counter() - start, time.process_time() - start_processor
    rank = ranks_of(model)["total"]
    found = smallest_eigenvalue(matrix, rank=rank, max_basis=None if kind == "dense" else 512)
    searched = time.perf_counter() - start - built
    searched_processor = time.process_time() - start_processor - built_processor
    products = {}
    if kind == "operator":
        v = np.random.default_rng(0).normal(size=n)
        products = {"product": turns({"": lambda: matrix.matvec(v)}, 10.0)[""]}
    return {
        "n": n, "kind": kind, "gram_seconds": built, "eigenvalue_seconds": searched,
        "gram_processor_seconds": built_processor, "eigenvalue_processor_seconds": searched_processor,
        "value": found.value, "error": found.error, "method": found.method, "converged": found.converged,
        "message": found.message, "rank_at_most": rank, **products,
    }  # fmt: skip


def worker(job: dict) -> dict:
    if job["kind"] == "turns":
        found = compared(tuple(job["size"]), job["methods"])
    elif job["kind"] == "gram":
        runner(job["method"], tuple(job["size"]))()
        found = {}
    else:
        found = smallest(job["kind"], job["n"])
    # Linux counts kilobytes
    return found | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def in_process(job: dict) -> dict:
    done = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(job)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return {"skipped": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def jacobian_bytes(size: tuple[int, ...]) -> float:
    """Twice the Jacobian in float32: itself, and the copies its computation makes."""
    n, depth, width, head_width, d = size
    return 2 * 4 * n * (depth * width * (2 * d + 1) + head_width * (d + 2))


def compare(sizes: list[tuple[int, ...]]) -> list[dict]:
    rows = []
    for size in sizes:
        n, depth, width = size[:3]
        skipped = {}
        for method in METHODS:
            if method in METHODS[2:] and jacobian_bytes(size) > BASELINE_LIMIT:
                skipped[method] = f"its Jacobian needs {jacobian_bytes(size) / 1e9:.0f} GB"
            elif method == "torch.func" and installed("torch") is None:
                skipped[method] = "torch is not installed"
        found = in_process({"kind": "turns", "size": size, "methods": [m for m in METHODS if m not in skipped]})
        if "skipped" in found:
            raise SystemExit(found["skipped"])
        of = {method: {"skipped": skipped[method]} if method in skipped else found[method] for method in METHODS}
        for method in METHODS:
            if method not in skipped:
                of[method] |= in_process({"kind": "gram", "size": size, "method": method})
        fast, rate = of[METHODS[0]], found[MATMUL]
        # two products of size n x n x M a layer; symmetry saves some of them, so the share can pass 1
        work = 4 * depth * n * n * width / (2 * PRODUCT**3)
        fast |= {
            f"share_of_matmul_rate_{key}": work * rate[key] / fast[key] for key in ("seconds", "processor_seconds")
        }
        for method in METHODS[2:]:
            if method not in skipped:
                fast[f"times_faster_than_{method}"] = of[method]["seconds"] / fast["seconds"]
                ratio = of[method]["processor_seconds"] / fast["processor_seconds"]
                fast[f"times_less_processor_time_than_{method}"] = ratio
        for method, row in of.items():
            rows.append({"size": size, "method": method, "matmul_seconds": rate["seconds"]} | row)
            print(line(rows[-1]), flush=True)
    return rows


def line(row: dict) -> str:
    text = f"{row['size']!s:28}{row['method']:22}"
    if "skipped" in row:
        return text + f"skipped: {row['skipped']}"
    ratios = {key: f"{value:.2f}" for key, value in row.items() if key.startswith(("times", "share"))}
    times = f"{row['seconds'] * 1e3:10.1f} ms, of processors {row['processor_seconds'] * 1e3:.1f}"
    return f"{text}{times}, {row['peak_gb']:.2f} GB {ratios or ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest size, nothing written")
    parser.add_argument("--large", action="store_true", help="lambda_min at n = 20,000 and 50,000 only")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file to write (parts not run are kept)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(json.loads(arguments.worker))))
        return
    result = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    if arguments.large:
        jobs = [{"kind": "dense", "n": 20_000}, {"kind": "operator", "n": 50_000}]
        name = "lambda_min_large"
    else:
        jobs = [{"kind": "dense", "n": 500}, {"kind": "operator", "n": 500}]
        name = "lambda_min"
        rows = compare(SIZES[:1] if arguments.quick else SIZES)
        result |= {"gram": rows, "quick": arguments.quick, "machine": facts()}
        result.pop("matmul", None)
    found = []
    for job in jobs[:1] if arguments.quick else jobs:
        found.append(in_process(job))
        print(json.dumps(found[-1]), flush=True)
    result |= {name: found, f"machine_{name}": facts()}
    if arguments.quick:
        return
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
