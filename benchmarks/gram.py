"""Speed and memory of the closed-form Gram matrix against Jacobian contractions.

    python benchmarks/gram.py --quick      the small sizes, a minute
    python benchmarks/gram.py              all four sizes
    python benchmarks/gram.py --large      lambda_min at n = 20,000 (dense, blocked) and 50,000 (matrix-free) only

Every measurement runs in a process of its own, so that its peak memory is its own. The baselines need torch
(extra `bench`); they are skipped, and said to be, where torch is missing or their Jacobian needs too much memory.
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
from facts import facts

SIZES = [(500, 10, 20, 20, 2), (500, 10, 200, 200, 10), (2000, 10, 100, 100, 10), (2000, 32, 512, 512, 64)]
METHODS = ["closed form, float32", "closed form, float64", "torch.func", "JAX jacrev"]
BASELINE_LIMIT = 16e9  # bytes
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


def timed(run: Callable[[], object], seconds: float = 3.0) -> dict:
    """Times after one warm-up run (compilation), for about ``seconds``, 3 to 30 runs."""
    run()
    times: list[float] = []
    processor: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 30):
        start, start_processor = time.perf_counter(), time.process_time()
        run()
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    # processor time (all cores together) also tells on a machine that others use
    return {
        "seconds": min(times),
        "median_seconds": median(times),
        "processor_seconds": min(processor),
        "runs": len(times),
    }


def matmul_rate() -> dict:
    """Floating-point operations a second of a float32 product of size 2000, by JAX and by NumPy."""
    import jax
    import jax.numpy as jnp

    a = np.random.default_rng(0).normal(size=(2000, 2000)).astype(np.float32)
    on_device, product = jnp.asarray(a), jax.jit(lambda a: a @ a)
    work = 2 * 2000**3
    return {
        "jax_gflops": work / timed(lambda: product(on_device).block_until_ready(), 1.0)["seconds"] / 1e9,
        "numpy_gflops": work / timed(lambda: a @ a, 1.0)["seconds"] / 1e9,
    }


def smallest(kind: str, n: int) -> dict:
    """lambda_min of G at d = 10, L = 10, M = K = 100; an operator with at most 512 Lanczos vectors.

    The network has 22,200 parameters: with more rows than that the value is 0 by its rank, and only products are timed.
    """
    from mfresnet.kernels.eigen import smallest_eigenvalue
    from mfresnet.kernels.gram import gram, gram_operator
    from mfresnet.kernels.output_adjoint import ranks_of

    model, x = network((n, 10, 100, 100, 10)), sphere(n, 10)
    start = time.perf_counter()
    matrix = gram(model, x, hold="total").total if kind == "dense" else gram_operator(model, x)
    built = time.perf_counter() - start
    rank = ranks_of(model)["total"]
    found = smallest_eigenvalue(matrix, rank=rank, max_basis=None if kind == "dense" else 512)
    searched = time.perf_counter() - start - built
    products = {}
    if kind == "operator":
        v = np.random.default_rng(0).normal(size=n)
        products = {"product": timed(lambda: matrix.matvec(v), 10.0)}
    return {
        "n": n, "kind": kind, "gram_seconds": built, "eigenvalue_seconds": searched,
        "processor_seconds": time.process_time(),
        "value": found.value, "error": found.error, "method": found.method, "converged": found.converged,
        "message": found.message, "rank_at_most": rank, **products,
    }  # fmt: skip


def worker(job: dict) -> dict:
    if job["kind"] == "rate":
        found = matmul_rate()
    elif job["kind"] == "gram":
        size = tuple(job["size"])
        run = runner(job["method"], size)
        found = timed(run)
        if size[0] * size[2] <= 200_000:
            exact = closed_gram(size, "float64")()
            found["relative_error"] = float(np.abs(run() - exact).max() / np.abs(exact).max())
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


def compare(sizes: list[tuple[int, ...]], rate: float) -> list[dict]:
    rows = []
    for size in sizes:
        n, depth, width = size[:3]
        for method in METHODS:
            if method in METHODS[2:] and jacobian_bytes(size) > BASELINE_LIMIT:
                found = {"skipped": f"its Jacobian needs {jacobian_bytes(size) / 1e9:.0f} GB"}
            else:
                found = in_process({"kind": "gram", "size": size, "method": method})
            if "seconds" in found and method == METHODS[0]:
                # two products of size n x n x M a layer; symmetry saves some of them, so the share can pass 1
                found["share_of_matmul_rate"] = 4 * depth * n * n * width / found["seconds"] / 1e9 / rate
            rows.append({"size": size, "method": method} | found)
            print(line(rows[-1]), flush=True)
        fast = next(row for row in rows if row["size"] == size and row["method"] == METHODS[0])
        for row in rows:
            if row["size"] == size and row["method"] in METHODS[2:] and "seconds" in row and "seconds" in fast:
                fast[f"times_faster_than_{row['method']}"] = row["seconds"] / fast["seconds"]
                print(f"{'':28}{row['seconds'] / fast['seconds']:.1f} times faster than {row['method']}")
    return rows


def line(row: dict) -> str:
    text = f"{row['size']!s:28}{row['method']:22}"
    if "skipped" in row:
        return text + f"skipped: {row['skipped']}"
    share = f"  {row['share_of_matmul_rate']:.0%} of matmul rate" if "share_of_matmul_rate" in row else ""
    return text + f"{row['seconds'] * 1e3:10.1f} ms {row['peak_gb']:7.2f} GB{share}"


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
        rate = in_process({"kind": "rate"})
        print(f"matmul, float32: JAX {rate['jax_gflops']:.0f}, NumPy {rate['numpy_gflops']:.0f} Gflop/s")
        rows = compare(SIZES[:1] if arguments.quick else SIZES, rate["jax_gflops"])
        result |= {"matmul": rate, "gram": rows, "quick": False}
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
