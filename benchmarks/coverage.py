"""How often confidence limits of the KL fail: on Gaussian laws of known KL, and on the probes of a real flow.

Limits are those of `mfresnet.diagnostics.estimate` (Student's and Hall's, of the mean of R), beside Student's limit
alone and Student's limit of the mean of exp(-R) - 1 + R. On a real flow many probes are followed once. Their mean
stands for the KL, and samples of the size of a run are drawn from them with replacement.

    python benchmarks/coverage.py [--samples 100000] [--quick]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from math import log, sqrt
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from facts import facts
from scipy.special import stdtrit

from mfresnet.bounds.binomial import clopper_pearson
from mfresnet.config import build
from mfresnet.data import load
from mfresnet.diagnostics.divergence import log_density_ratios
from mfresnet.diagnostics.estimate import hall_quantile, moments, upper_limit
from mfresnet.train.job import assemble
from mfresnet.train.start import initial_scales

RESULTS = Path(__file__).parent / "results" / "coverage.json"
DELTAS = (0.05, 1e-3, 1.6e-5)
SIZES = {"head": (1, 512), "encoder": (10, 32)}  # (layers, probes): the defaults of a run
DIMENSION = 4
SCALES = {0.1: 1.1, 0.5: 0.76, 1.0: 1.5, 2.0: 1.0, 4.0: 2.1}  # KL: standard deviation of the law
RUN = {
    "data": {"n": 64},
    "model": {"depth": 4},
    "train": {"time": 20, "steps": 20, "probes": 1024, "head_probes": 8192},
}
Sample = Callable[[np.random.Generator, int], np.ndarray]  # samples of shape (count, layers, probes)


def gaussian(kl: float, size: tuple[int, int]) -> Sample:
    """R of N(shift e_1, scale^2 I) against N(0, I), which has that KL."""
    scale = SCALES[kl]
    shift = sqrt(2 * kl - DIMENSION * (scale**2 - 1 - 2 * log(scale)))

    def sample(rng: np.random.Generator, count: int) -> np.ndarray:
        z = rng.normal(size=(count, *size))
        square = z**2 + rng.chisquare(DIMENSION - 1, size=z.shape)
        return 0.5 * ((scale**2 - 1) * square + shift**2) + scale * shift * z - DIMENSION * log(scale)

    return sample


def flow_ratios(run: dict[str, Any]) -> dict[str, np.ndarray]:
    """R of many probes of a small run, shapes (1, P) and (L, P)."""
    config = build(run)
    job = assemble(config, load(config.data, config.seed))
    state, _ = job.trainer.advance(job.state, job.train, job.key, jnp.asarray(job.steps), job.steps)
    scales, ensemble = initial_scales(config), state.ensemble
    assert ensemble is not None
    return {
        part: np.atleast_2d(
            log_density_ratios(
                *(getattr(v, part) for v in (ensemble.probes, ensemble.start, ensemble.log_ratio)),
                getattr(scales, part),
            )
        )
        for part in ("head", "encoder")
    }


def resampled(ratios: np.ndarray, probes: int) -> Sample:
    """Samples of ``probes`` of each layer."""

    def sample(rng: np.random.Generator, count: int) -> np.ndarray:
        places = rng.integers(ratios.shape[1], size=(count, ratios.shape[0], probes))
        return ratios[np.arange(ratios.shape[0])[:, None], places]

    return sample


def student(values: np.ndarray, delta: float) -> np.ndarray:
    """Student's upper limit."""
    value, stderr, _, freedom = moments(values)
    return value + stdtrit(freedom, 1 - delta) * stderr


def failures(sample: Sample, kl: float, count: int, seed: int) -> dict[str, Any]:
    """Shares of samples whose limits lie below the KL, and of intervals at 95 % that hold it."""
    rng, block = np.random.default_rng([11, seed]), 2000
    broken = {delta: np.zeros(3, int) for delta in DELTAS}
    held = 0
    for _ in range(count // block):
        values = sample(rng, block)
        value, stderr, skewness, freedom = moments(values)
        t = stdtrit(freedom, 0.975)
        low, high = value - stderr * hall_quantile(t, -skewness), value + stderr * hall_quantile(t, skewness)
        held += int(np.sum((low <= kl) & (kl <= high)))
        nonnegative = np.exp(-values) - 1 + values
        for delta in DELTAS:
            limits = (upper_limit(value, stderr, skewness, freedom, delta), student(values, delta))
            broken[delta] += [int(np.sum(limit < kl)) for limit in (*limits, student(nonnegative, delta))]
    done = count // block * block
    return {
        "kl": kl,
        "samples": done,
        "interval 95 % covers": held / done,
        "upper limits": [
            {
                "delta": delta,
                "fails": int(counts[0]) / done,
                "fails, 95 % interval": list(clopper_pearson(int(counts[0]), done, 0.05)),
                "Student alone fails": int(counts[1]) / done,
                "Student of exp(-R) - 1 + R fails": int(counts[2]) / done,
            }
            for delta, counts in broken.items()
        ],
    }


def main() -> None:
    """Run the study, print it and write ``results/coverage.json``."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--samples", type=int, default=100_000, help="samples of each law")
    options.add_argument("--quick", action="store_true", help="2,000 samples and few probes, nothing written")
    given = options.parse_args()
    count, few = given.samples, {"train": RUN["train"] | {"probes": 32, "head_probes": 512}}
    count, run = (2000, RUN | few) if given.quick else (count, RUN)
    rows = []
    for part, size in SIZES.items():
        for kl in SCALES:
            rows.append({"law": "Gaussian", "sizes of": part, **failures(gaussian(kl, size), kl, count, len(rows))})
            print(json.dumps(rows[-1]), flush=True)
    for part, ratios in flow_ratios(run).items():
        sample = resampled(ratios, SIZES[part][1])
        row = {"law": "flow on two-spirals", "sizes of": part}
        rows.append(row | failures(sample, float(ratios.mean()), count, len(rows)))
        print(json.dumps(rows[-1]), flush=True)
    if given.quick:
        return
    command = f"python benchmarks/coverage.py --samples {count}"
    result = {"machine": facts(), "command": command, "run": RUN, "rows": rows}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
