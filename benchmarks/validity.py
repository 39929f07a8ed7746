"""Do certificates hold? Trained networks over many independent draws of the training data, true errors known.

Everything is trained and certified by what users call: `mfresnet.fit` and the pipeline of certificates for networks of
the flow, `mfresnet.certify.path` for Langevin chains. Every certificate is compared with the true error of what it
certifies, on a large fresh sample or, for linear chains, in closed form. A kind fails where more certificates are
violated than chance allows of a share delta, at a false-alarm rate of 1e-3 for each kind and delta; "detects" is the
smallest share of violations that this finds with probability 0.99. The control, the train error without a bound, must
fail. Shown beside: chains without the price of their path, which are violated more often than with it but, at these
sizes, less often than delta (the price itself is held by the exact test on pure noise in tests/certify), and for
linear chains the mean of v exp(-c), at most 1 in the theorem (`mfresnet.bounds.exact_tail`): of so heavy a tail
that a sample mean is far below.

    python benchmarks/validity.py [--quick] [--draws 5] [--chains 100]     # results/validity.json

``--draws`` of the networks, ``--chains`` of the chains, for each of 10 conditions: a distribution and a label noise.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from math import pi
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from violations import ALARM, evidence, judge, line, summary

import mfresnet
from mfresnet import Config
from mfresnet.bounds.exact_tail import FORMS, log_v
from mfresnet.bounds.path import path_bound
from mfresnet.certify import GaussianPrior, NetworkPredictor, Problem, path, run
from mfresnet.data import Dataset, Split
from mfresnet.data.synthetic import sphere_teacher, two_spirals
from mfresnet.data.transform import Transform
from mfresnet.flow import is_misclassified
from mfresnet.flow.annealing import AnnealingSchedule
from mfresnet.kernels.gram import gram
from mfresnet.model import LayeredResNet

RESULTS = Path(__file__).parent / "results" / "validity.json"
DELTAS = (0.05, 0.5)  # of the chains; the networks' certificates, which are less sharp, at the first
NOISES = (0.0, 0.1, 0.2, 0.4, 0.5)  # of the labels; 1/2 is pure noise
CONTROL = "control: "
# of the networks' certificates, where the true error of what they certify is found
TRUTH = {
    "pac_bayes": "test_error_of_draws", "held_out_part": "test_error_of_draws",
    "pac_bayes_learned": "test_error_of_draws", "gibbs": "test_error_of_draws", "kl_ball": "test_error_of_laws",
    "theorem6": "test_error_of_laws",
}  # fmt: skip

# of (kind, delta): (certificate, true error) of each draw
Values = dict[tuple[str, float], list[tuple[float, float]]]


@dataclass(frozen=True)
class Sizes:
    """What is trained, and on how much.

    Args:
        n: points of the networks, half of which train the prior; as many fresh ones are held out.
        test: points on which true errors are taken.
        points: of the chains.
        gamma, steps: last inverse temperature and length of the chains.
        network: settings of the configuration.
    """

    n: int = 128
    test: int = 4000
    points: int = 24
    gamma: float = 60.0
    steps: int = 60
    network: tuple[tuple[str, Any], ...] = (
        ("model", {"depth": 2, "width": 16, "head_width": 64, "alpha": 0.5, "beta": 3.0}),
        ("train", {"solver": "euler", "time": 16.0, "steps": 16, "probes": 32, "head_probes": 256}),
        ("record", {"metrics_every": 8, "snapshots": 2}),
        ("diagnostics", {"gram_every": 0, "kl_every": 0, "landscape": False, "solver_error": False}),
        ("certify", {"heads": (16, 64), "residuals": (2, 8), "draws": 16, "prior_share": 0.5, "prior_steps": 16}),
    )  # fmt: skip


def points(name: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Independent draws (x, y) in two or three dimensions, labels -1/+1 without noise."""
    if name == "two-spirals":
        x, y = two_spirals(2 * n, rng)
        rows = 2 * np.arange(n) + rng.integers(0, 2, n)  # the generator's labels alternate: a fair coin picks
        return np.hstack([8 * x[rows], np.full((n, 1), 4.0)]), y[rows]
    if name == "sphere-teacher":
        x, y = sphere_teacher(n, rng, dimension=3)
        return 2 * x, np.where(y > 0, 1.0, -1.0)
    x = rng.normal(size=(n, 4))
    return x, np.where(x[:, :1] > 0, 1.0, -1.0)


def noisy(y: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Each label flipped independently."""
    return np.where(rng.uniform(size=y.shape) < share, -y, y)


def networks(name: str, noise: float, seed: int, sizes: Sizes, rng: np.random.Generator) -> Values:
    """Certificates of one network, trained and certified as users do, on one draw of the data."""

    def dataset(n: int, share: float) -> Dataset:
        x, y = points(name, n, rng)
        return Dataset(name, x, noisy(y, share, rng), "binary", ("-1", "1"), tuple("abc"))

    def true(clean: float) -> float:
        """True error of a predictor that errs on a share ``clean`` of the points without noise."""
        return noise + (1 - 2 * noise) * clean

    train, test, fresh = dataset(sizes.n, noise), dataset(sizes.test, 0.0), dataset(sizes.n, noise)
    result = mfresnet.fit(Config(seed=seed, **dict(sizes.network)), Split(train, test, Transform("none", 3)))
    delta, found = DELTAS[0], Values()
    problem = result.problem(delta=delta)
    for kind, one in run(problem, (*TRUTH, "kernel")).items():
        ridge = float(one.details.get("ridge") or 0)
        clean = one.details[TRUTH[kind]] if kind in TRUTH else kernel_error(problem, ridge)
        found[kind, delta] = [(one.value, true(float(clean or 0)))]
    error = true(float(result.summary["test.error"]))
    other = replace(problem, data=replace(problem.data, x_test=fresh.x, y_test=fresh.y))
    found["held_out", delta] = [(run(other, ("held_out",))["held_out"].value, error)]
    found[CONTROL + "train error, no bound", delta] = [(float(result.summary["train.error"]), error)]
    return found


def kernel_error(problem: Problem, ridge: float) -> float:
    """Error of the kernel's machine on the first 1,000 test points."""
    train, test = problem.data.points, problem.data.test
    assert test is not None
    x, y = test.x[:1000], test.y[:1000]
    total = gram(problem.start, train.x, hold="total").total + ridge * np.eye(len(train.x))
    f = gram(problem.start, x, other=train.x, hold="total").total @ np.linalg.solve(total, np.asarray(train.y))
    return float(is_misclassified(np.asarray(f), np.asarray(y)).mean())


def linear(w: Any, x: Any) -> Any:
    """The predictor whose true error is an angle."""
    return x @ w


LINEAR = linear, GaussianPrior.standard(jnp.zeros(4), std=3.0)
NETWORK = NetworkPredictor(LayeredResNet.create(jax.random.key(0), inputs=3, depth=2, width=3, head_width=4, beta=10.0))
PREDICTORS = {"gaussian": LINEAR, "two-spirals": (NETWORK, NETWORK.prior())}


def chains(name: str, noise: float, seed: int, sizes: Sizes, rng: np.random.Generator) -> Values:
    """Certificates of two Langevin chains on one draw of the data, and v exp(-c) of the first where it is linear."""
    f, prior = PREDICTORS[name]
    n = sizes.points
    x, y = points(name, n, rng)
    y = noisy(y, noise, rng)[:, 0]
    schedule = AnnealingSchedule.power(sizes.gamma, sizes.steps, largest=0.3)
    done = path(f, prior, (x.astype(np.float32), y), schedule, jax.random.key(seed), chains=2, delta=DELTAS[0])
    if name == "gaussian":
        one, two, apart = exact_errors(np.asarray(done.params, np.float64))
    else:
        test, clean = points(name, sizes.test, rng)
        wrong = is_misclassified(np.asarray(jax.vmap(f, (0, None))(done.params, jnp.asarray(test, jnp.float32))), clean)
        one, two, apart = wrong[0].mean(), wrong[1].mean(), (wrong[0] != wrong[1]).mean()
    both = 0.5 * (one + two - apart)
    truths = {which: noise + (1 - 2 * noise) * part for which, part in (("chain", one), ("mean", 0.5 * (one + two)))}
    truths["vote"] = apart + both * (1 - noise) + (1 - apart - both) * noise  # a tie is an error
    found = Values()
    k, c = done.mistakes[-1], done.prices[-1]
    for which, certificate in done.certificates.items():
        found[f"path, {which}, tail", DELTAS[0]] = [(certificate.value, float(truths[which]))]
    for form, delta in (("kl", DELTAS[0]), ("kl", DELTAS[1]), ("tail", DELTAS[1])):
        for which, part in (("chain", slice(1)), ("mean", slice(None))):
            value = path_bound(k[part], c[part], n, delta, form=form)
            found[f"path, {which}, {form}", delta] = [(value, float(truths[which]))]
    for delta in DELTAS:  # what would be certified if the chain had not seen the points
        found["without its price: path, chain, tail", delta] = [
            (path_bound(k[:1], 0 * c[:1], n, delta), float(truths["chain"]))
        ]
    if name == "gaussian":
        for form in FORMS:
            value = float(np.exp(log_v(k[:1], n, truths["chain"], form)[0] - c[0]))
            found[f"v exp(-c), {form}", 0.0] = [(value, 1.0)]
    return found


def exact_errors(w: np.ndarray) -> tuple[float, float, float]:
    """Errors of two linear classifiers of Gaussian points, and where they differ: angles."""
    w = w / np.linalg.norm(w, axis=1, keepdims=True)
    one, two, apart = np.arccos(np.clip([w[0, 0], w[1, 0], w[0] @ w[1]], -1, 1)) / pi
    return float(one), float(two), float(apart)


STUDIES = {networks: ("two-spirals", "sphere-teacher"), chains: ("gaussian", "two-spirals")}


def study(counts: dict[Any, int], sizes: Sizes, noises: Any = NOISES, say: Any = print) -> list[dict[str, Any]]:
    """One record for each kind, delta and condition: certificates and true errors of all draws of the data."""
    records = []
    for one, count in counts.items():
        for number, (name, noise) in enumerate((name, noise) for name in STUDIES[one] for noise in noises):
            begun, pairs = time.perf_counter(), defaultdict(list)
            for seed in range(count):
                rng = np.random.default_rng([7, number, seed])
                for key, values in one(name, noise, 1000 * number + seed, sizes, rng).items():
                    pairs[key] += values
            for (kind, delta), values in pairs.items():
                records.append({"data": name, "noise": noise, "kind": kind, "delta": delta, "values": values})
            say(f"{one.__name__}, {name}, noise {noise:g}: {time.perf_counter() - begun:.1f} s", flush=True)
    return records


def main() -> None:
    """Run, print the table and write ``results/validity.json``."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="few draws without noise, nothing written")
    options.add_argument("--draws", type=int, default=5, help="draws of the data for each condition, networks")
    options.add_argument("--chains", type=int, default=100, help="the same for chains")
    given = options.parse_args()
    begun, sizes = time.perf_counter(), Sizes(n=64, test=1000) if given.quick else Sizes()
    counts = {networks: given.draws, chains: given.chains} if not given.quick else {networks: 1, chains: 2}
    records = study(counts, sizes, NOISES[:1] if given.quick else NOISES)
    rows = summary(records)
    print("\n".join(map(line, rows)))
    for row in evidence(records):
        print(f"{row['kind']}: mean {row['mean']:.4f} +- {row['stderr']:.4f} over {row['draws']} draws")
    if not given.quick:
        from facts import facts

        conditions = [
            {name: record[name] for name in ("data", "noise", "kind", "delta")}
            | judge(np.array(record["values"]), record["delta"])
            for record in records
            if record["delta"] > 0
        ]
        result = {
            "machine": facts(),
            "command": f"python benchmarks/validity.py --draws {given.draws} --chains {given.chains}",
            "false_alarm": ALARM,
            "error_of_true_error": 0.5 / sizes.test**0.5,
            "sizes": asdict(sizes) | {"network": dict(sizes.network)},
            "seconds": time.perf_counter() - begun,
            "kinds": rows,
            "evidence": evidence(records),
            "conditions": conditions,
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
