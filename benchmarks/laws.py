"""Theorem 5 of [C24] measured: the largest KL divergence along training against betabar = beta/n.

The theorem says KL(tau_t || tau_0), KL(nu_t || nu_0) <= C_KL(d, alpha) / (Lambda^2 betabar^2). Data and
networks are fixed, beta runs over two decades, training lasts a fixed number of natural units n/beta^2.
The slope of log KL_max against log betabar is fitted for each seed; the interval is Student's over seeds.

    python benchmarks/laws.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from facts import facts
from scipy import stats

from mfresnet.diagnostics import initial_kernel, kl_to_start
from mfresnet.flow import Trainer, batch_of, evaluate, flow
from mfresnet.model import ScaledResNet, trainable


def main() -> None:
    """Run, print the table and write ``results/laws.json``."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few betas, one seed, nothing written")
    quick = options.parse_args().quick
    n, d, units, rows = 32, 8, 40.0, 20
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.sign(rng.normal(size=(n, 1)))
    data = batch_of(x, y, "float64")
    lambda0 = initial_kernel(x, "tanh").lambda_min.value
    betas = np.geomspace(1, 100, 3 if quick else 7) * n
    seeds = range(1 if quick else 5)
    print(f"n = {n}, d = {d}, Lambda = {lambda0:.4f}, {units:g} units of n/beta^2")
    cells = []
    begun = time.perf_counter()
    for seed in seeds:
        for beta in betas:
            # antithetic particles: f = 0 at the start, as in the limit; else beta times the sampling error is fitted
            model = ScaledResNet.create(
                jax.random.key(seed), inputs=d, depth=10, width=64, head_width=512, alpha=1.0, beta=beta,
                antithetic=True, dtype="float64",
            )  # fmt: skip
            trainer = Trainer(flow("adaptive", units * n / beta**2 / rows, 1e-5), trainable(model))
            state = trainer.begin(model, jax.random.key(seed + 1000), n, probes=(128, 2048))
            kls = []
            for _ in range(rows):
                state, _ = trainer.advance(state, data, jax.random.key(0), jnp.asarray(1), 1)
                encoder, head = kl_to_start(state.ensemble)
                kls.append((encoder.controlled.value, head.controlled.value))
            largest = np.max(kls, axis=0)
            loss = float(evaluate(state.model, data, "squared", "binary")[0])
            betabar = beta / n
            cells.append(
                {"seed": seed, "betabar": betabar, "loss": loss, "kl_encoder": largest[0], "kl_head": largest[1]}
                | {"C_encoder": largest[0] * (lambda0 * betabar) ** 2, "C_head": largest[1] * (lambda0 * betabar) ** 2}
            )
            print("  ".join(f"{key} {value:.4g}" for key, value in cells[-1].items()), flush=True)
    result = {"n": n, "d": d, "lambda0": lambda0, "seconds": time.perf_counter() - begun, "cells": cells}
    for part in ("encoder", "head"):
        slopes = [
            np.polyfit(
                np.log([c["betabar"] for c in cells if c["seed"] == s]),
                np.log([c[f"kl_{part}"] for c in cells if c["seed"] == s]),
                1,
            )[0]
            for s in seeds
        ]
        half = (
            stats.t.ppf(0.975, len(slopes) - 1) * np.std(slopes, ddof=1) / len(slopes) ** 0.5
            if len(slopes) > 1
            else None
        )
        result[f"slope_{part}"] = {"mean": float(np.mean(slopes)), "half_width_95": half}
        result[f"C_hat_{part}"] = max(c[f"C_{part}"] for c in cells)
        print(f"{part}: slope {np.mean(slopes):.3f} +- {half}, C_hat {result[f'C_hat_{part}']:.3g} (theory: slope -2)")
    if not quick:
        path = Path(__file__).parent / "results" / "laws.json"
        path.write_text(json.dumps({"machine": facts(), **result}, indent=2, default=float) + "\n")


if __name__ == "__main__":
    with jax.enable_x64(True):  # KL of 1e-10 is a difference of numbers of order 1
        main()
