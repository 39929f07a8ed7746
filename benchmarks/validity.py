"""Do certificates hold? Trained networks over many independent draws of the training data, true errors known.

Each draw of n training points, from a known distribution with known label noise, trains a network and its prior from
half of the points; every kind of certificate is compared with the true error of what it certifies, on a large fresh
test set. Shown: share of violated certificates with its exact 95 % interval (must not exceed delta), certificates
under pure-noise labels (must not be below chance), and tightness, certificate over true error.

    python benchmarks/validity.py [--quick] [--draws 32]     # results/validity.json

The draws of a condition differ in numbers only, so all train as batches of one compiled program.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mfresnet.bounds import (
    Certificate,
    DrawnPoint,
    GibbsPoint,
    PulledBack,
    clopper_pearson,
    drawn_certificate,
    draws,
    errors_by_heads,
    gibbs_certificate,
    held_out_certificate,
    kernel_certificate,
    kl_ball_certificate,
    kl_estimate,
    log_ratios_by_heads,
    pool,
    pull_back,
    theorem6_certificate,
)
from mfresnet.data.synthetic import sphere_teacher, two_spirals
from mfresnet.diagnostics.divergence import log_density_ratios
from mfresnet.errors import MfresnetError
from mfresnet.flow import Batch, Ensemble, Trainer, TrainState, batch_of, evaluate, flow, predict
from mfresnet.kernels.gram import gram
from mfresnet.kernels.precision import double_precision
from mfresnet.model import LayeredResNet, trainable

RESULTS = Path(__file__).parent / "results" / "validity.json"
CHANCE, RIDGE, ONES = 0.5, 1.0, (1.0, 1.0, 1.0)
DISTRIBUTIONS = ("two-spirals", "sphere-teacher")
NOISES = (0.0, 0.1, 0.2, 0.4, 0.5)  # of the labels; 1/2 is pure noise


@dataclass(frozen=True)
class Sizes:
    """What is trained, and on how much.

    Args:
        n: training points, half of which train the prior.
        test: points on which true errors are taken; the held-out comparator has n more of its own.
        steps: Euler steps of length ``step``/beta^2.
        times: steps at which certificates may stop: the grid of training times.
        probes: of each layer, of the head; the mean over Q needs many that share none.
        drawn: as many of them for drawn networks, and to pull back along the prior's flow.
        heads, residuals: grid of k' and N'.
        gibbs: (k', N') of the certificate of the mean, small so that many draws share no probe.
        count: drawn sub-networks.
        batch: draws of the data trained side by side.
    """

    n: int = 256
    test: int = 4000
    depth: int = 4
    width: int = 16
    head_width: int = 128
    alpha: float = 0.5
    beta: float = 3.0
    steps: int = 32
    step: float = 1.0
    times: tuple[int, ...] = (6, 14, 32)
    probes: tuple[int, int] = (64, 512)
    drawn: tuple[int, int] = (16, 256)
    heads: tuple[int, ...] = (16, 64, 256)
    residuals: tuple[int, ...] = (4, 16)
    gibbs: tuple[int, int] = (8, 4)
    count: int = 16
    batch: int = 16


class Draw(eqx.Module):
    """One draw of the data after training, or several with a leading axis."""

    start: LayeredResNet
    models: LayeredResNet  # at the recorded times, leading axis
    ensembles: Ensemble  # likewise
    prior: TrainState
    back: PulledBack  # the last ensemble along the prior's flow


def points(name: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Independent draws (x, y) in three dimensions, labels -1/+1 without noise.

    Spirals get a large third coordinate in place of a wide bias; norms do not matter to any certificate here.
    """
    if name == "two-spirals":
        x, y = two_spirals(2 * n, rng)
        rows = 2 * np.arange(n) + rng.integers(0, 2, n)  # the generator's labels alternate: a fair coin picks
        return np.hstack([8 * x[rows], np.full((n, 1), 4.0)]), y[rows]
    x, y = sphere_teacher(n, rng, dimension=3)
    return 2 * x, np.where(y > 0, 1.0, -1.0)


def noisy(y: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Each label flipped independently."""
    return np.where(rng.uniform(size=y.shape) < share, -y, y)


def few(ensemble: Any, sizes: Sizes) -> Any:
    """The first probes of an ensemble, or of one of its parts."""

    def cut(leaf: Any) -> Any:
        of_layers = leaf.shape[:2] == (sizes.depth, sizes.probes[0])
        return leaf[:, : sizes.drawn[0]] if of_layers else leaf[: sizes.drawn[1]]

    return jax.tree.map(cut, ensemble)


@partial(jax.jit, static_argnames="sizes")
def trained(key: jax.Array, data: Batch, part: Batch, *, sizes: Sizes) -> Draw:
    """Train every draw and its prior (``part``: the prior's half), and pull the last probes back along the prior."""
    h = sizes.step / sizes.beta**2

    def one(key: jax.Array, data: Batch, part: Batch) -> Draw:
        k_model, k_probes = jax.random.split(key)
        model = LayeredResNet.create(
            k_model, inputs=3, depth=sizes.depth, width=sizes.width, head_width=sizes.head_width,
            alpha=sizes.alpha, beta=sizes.beta, dtype="float64",
        )  # fmt: skip
        trainer = Trainer(flow("euler", h), trainable(model))
        begin = trainer.begin(model, k_probes, sizes.n, probes=sizes.probes)
        arrays, static = eqx.partition(begin, eqx.is_array)

        def run(batch: Batch, carry: Any, count: int) -> tuple[Any, LayeredResNet]:
            def step(carry: Any, _: None) -> tuple[Any, Any]:
                state = eqx.combine(carry, static)
                after, _ = trainer.step(state, batch, key)
                return eqx.filter(after, eqx.is_array), eqx.filter(state.model, eqx.is_array)

            return jax.lax.scan(step, carry, None, length=count)

        kept, carry, done = [], arrays, 0
        for time_ in sizes.times:
            carry, _ = run(data, carry, time_ - done)
            done = time_
            kept.append(eqx.combine(carry, static))
        models, ensembles = (
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *(getattr(state, part) for state in kept))
            for part in ("model", "ensemble")
        )
        prior, history = run(part, arrays, sizes.steps)
        history = eqx.combine(history, eqx.filter(begin.model, eqx.is_array, inverse=True))
        back = pull_back(history, part, few(kept[-1].ensemble.probes, sizes), h=h, trained=trainable(model))
        return Draw(model, models, ensembles, eqx.combine(prior, static), back)

    return jax.vmap(one)(key, data, part)


def ratios(ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray]:
    """R of the head's and of the encoder's probes."""
    found = [
        log_density_ratios(*(getattr(v, part) for v in (ensemble.probes, ensemble.start, ensemble.log_ratio)), ONES)
        for part in ("head", "encoder")
    ]
    return found[0], found[1]


@dataclass(frozen=True)
class Truth:
    """The distribution: fresh points without label noise, and the noise, of which error follows exactly."""

    test: Batch
    noise: float

    def __call__(self, clean: float) -> float:
        """True error of a predictor that errs on a share ``clean`` of the points without noise."""
        return self.noise + (1 - 2 * self.noise) * clean


def judged(draw: Draw, data: Batch, rest: Batch, fresh: Batch, truth: Truth, sizes: Sizes, seed: int, delta: float):
    """{kind: (certificate, true error of what it certifies)} for one draw of the data."""
    at = [jax.tree.map(lambda leaf, t=t: leaf[t], (draw.models, draw.ensembles)) for t in range(len(sizes.times))]
    every = [(model, ensemble, *ratios(ensemble)) for model, ensemble in at]
    times = [(model, few(ensemble, sizes), *ratios(few(ensemble, sizes))) for model, ensemble in at]
    key = jax.random.key(10_000 + seed)
    options = pool(times[0][1].probes) | {"most_residuals": max(sizes.residuals), "heads": max(sizes.heads)}
    chosen = {m: draws(jax.random.fold_in(key, m), sizes.count, residuals=m, **options) for m in sizes.residuals}
    found: dict[str, tuple[Certificate, float]] = {}

    def true_of(place: Any, heads: int, model: LayeredResNet, probes: Any) -> float:
        """Mean true error of the drawn networks."""
        return truth(float(errors_by_heads(place, probes, model, truth.test.x, truth.test.y, (heads,)).mean()))

    def best_drawn(kind: str, n: int, on: Batch, candidates: list, prior: str | None) -> None:
        listed = []
        for model, probes, head, encoder in candidates:
            for m in sizes.residuals:
                errors = errors_by_heads(chosen[m], probes, model, on.x, on.y, sizes.heads)
                logs = log_ratios_by_heads(chosen[m], encoder, head, sizes.heads)
                listed += [
                    (DrawnPoint(k, m, errors[:, g], logs[:, g]), model, probes) for g, k in enumerate(sizes.heads)
                ]
        words = {} if prior is None else {"prior": prior}
        certificate = drawn_certificate([point for point, *_ in listed], n, delta, **words)
        values = [drawn_certificate([p], n, delta, grid_size=len(listed), **words).value for p, *_ in listed]
        point, model, probes = listed[int(np.argmin(values))]
        found[kind] = certificate, true_of(chosen[point.residuals], point.heads, model, probes)

    best_drawn("drawn, data-free prior", len(data.x), data, [(m, e.probes, h, r) for m, e, h, r in times], None)
    model, ensemble, head, encoder = times[-1]
    prior = draw.prior
    assert prior.ensemble is not None
    zero = np.zeros(head.shape), np.zeros(encoder.shape)
    back = ratios(draw.back.ensemble)
    still = (prior.model, few(prior.ensemble.probes, sizes), *zero)
    moved = (model, ensemble.probes, head - back[0], encoder - back[1])
    words = f"the law trained on {sizes.n - len(rest.x)} other points"
    best_drawn("drawn, learned prior (Q = prior)", len(rest.x), rest, [still], words)
    if float(draw.back.residual) < 1e-7:
        best_drawn("drawn, learned prior (Q moved)", len(rest.x), rest, [moved], words)

    k, m = sizes.gibbs
    count = min(sizes.probes[1] // k, sizes.probes[0] // max(1, -(-m // sizes.depth)))
    full = options | pool(every[0][1].probes) | {"heads": k}
    apart = draws(jax.random.fold_in(key, 1), count, residuals=m, **full, disjoint=True)
    rows = []
    for one_model, one_ensemble, one_head, one_encoder in every:
        errors = errors_by_heads(apart, one_ensemble.probes, one_model, data.x, data.y, (k,))[:, 0]
        rows.append(GibbsPoint(k, m, errors, one_head, one_encoder))
    values = [gibbs_certificate([row], len(data.x), delta, tried=len(rows), priors=1).value for row in rows]
    model_, ensemble_, *_ = every[int(np.argmin(values))]
    model, ensemble, head, encoder = every[-1]
    found["Gibbs mean"] = gibbs_certificate(rows, len(data.x), delta), true_of(apart, k, model_, ensemble_.probes)

    laws = eqx.tree_at(lambda v: (v.encoder, v.head), model, (ensemble.probes.encoder, ensemble.probes.head))
    limits = [kl_estimate(r, delta / 4) for r in (head, encoder)]
    ball: dict[str, Any] = {
        "head_kl": limits[0].upper, "encoder_kl": limits[1].upper, "alpha": sizes.alpha, "beta": sizes.beta,
        "sigma": model.sigma, "delta": delta / 2,
    }  # fmt: skip
    margins = np.asarray(predict(laws, data.x) * data.y)[:, 0]
    of_laws = truth(float(evaluate(laws, truth.test, "squared", "binary")[1]))
    for kind, bound in (("KL ball", kl_ball_certificate), ("Theorem 6", theorem6_certificate)):
        with suppress(MfresnetError):  # laws that moved beyond the grid of radii get no such certificate
            found[kind] = bound(margins, **ball), of_laws

    of_network = truth(float(evaluate(model, truth.test, "squared", "binary")[1]))
    mistakes = round(float(evaluate(model, fresh, "squared", "binary")[1]) * len(fresh.x))
    found["held out (uses new points)"] = held_out_certificate(mistakes, len(fresh.x), delta), of_network

    total = gram(draw.start, data.x, hold="total").total + RIDGE * np.eye(len(data.x))
    weights = np.linalg.solve(total, np.asarray(data.y))
    rows_ = truth.test.x[:1000]
    values = gram(draw.start, rows_, other=data.x, hold="total").total @ weights
    clean = float(np.mean(values * np.asarray(truth.test.y[:1000]) <= 0))
    found["kernel (its machine)"] = kernel_certificate(total, data.y, delta), truth(clean)

    # a control that must fail: the train error, sold as a bound of the true error
    rate = float(evaluate(model, data, "squared", "binary")[1])
    naive = Certificate("naive", rate, 1 - delta, {"train error": rate}, (), False, "", "the network")
    found["control: train error, no bound"] = naive, of_network
    return found


def study(sizes: Sizes, count: int, conditions: list[tuple[str, float]], delta: float, say: Any = print) -> list[dict]:
    """One record a condition and kind: values and true errors of ``count`` draws of the data."""
    records = []
    for number, (name, noise) in enumerate(conditions):
        rng = np.random.default_rng([7, number])
        truth = Truth(batch_of(*points(name, sizes.test, rng), "float64"), noise)
        pairs: dict[str, list[tuple[float, float]]] = {}
        begun, spent = time.perf_counter(), 0.0
        for first in range(0, count, sizes.batch):
            clean = [points(name, 2 * sizes.n, rng) for _ in range(sizes.batch)]
            sets = [batch_of(x, noisy(y, noise, rng), "float64") for x, y in clean]
            data, fresh = ([jax.tree.map(lambda leaf, s=s: leaf[s], b) for b in sets] for s in halves(2 * sizes.n))
            part, rest = ([jax.tree.map(lambda leaf, s=s: leaf[s], b) for b in data] for s in halves(sizes.n))
            keys = jax.random.split(jax.random.key(1000 * number + first), sizes.batch)
            stacked = (jax.tree.map(lambda *leaves: jnp.stack(leaves), *v) for v in (data, part))
            all_ = jax.block_until_ready(trained(keys, *stacked, sizes=sizes))
            spent = time.perf_counter() - begun
            for place in range(min(sizes.batch, count - first)):
                one = jax.tree.map(lambda leaf, place=place: leaf[place], all_)
                found = judged(one, data[place], rest[place], fresh[place], truth, sizes, first + place, delta)
                for kind, (certificate, error) in found.items():
                    pairs.setdefault(kind, []).append((certificate.value, error))
        for kind, values in pairs.items():
            records.append({"data": name, "noise": noise, "kind": kind, "values": values})
        say(f"{name}, noise {noise:g}: {time.perf_counter() - begun:.1f} s ({spent:.1f} s to the last training)")
    return records


def halves(n: int) -> tuple[slice, slice]:
    """The first and the second half of n rows."""
    return slice(0, n // 2), slice(n // 2, n)


def summary(records: list[dict], delta: float) -> dict[str, dict[str, Any]]:
    """For each kind: violations with their interval, behaviour on pure noise, tightness."""
    table = {}
    for kind in dict.fromkeys(record["kind"] for record in records):
        values = np.concatenate([np.asarray(r["values"]) for r in records if r["kind"] == kind])
        pure = [v for r in records if r["kind"] == kind and r["noise"] == CHANCE for v, _ in r["values"]]
        broken = int(np.sum(values[:, 0] < values[:, 1]))
        low, high = clopper_pearson(broken, len(values), 0.05)
        signal = np.concatenate(
            [np.asarray(r["values"]) for r in records if r["kind"] == kind and r["noise"] < CHANCE] or [values]
        )
        said = signal[signal[:, 0] < CHANCE]
        table[kind] = {
            "draws": len(values),
            "violated": broken,
            "share": broken / len(values),
            "interval_95": [low, high],
            "exceeds_delta": bool(low > delta),
            "pure_noise.draws": len(pure),
            "pure_noise.below_chance": int(np.sum(np.asarray(pure) < CHANCE)),
            "informative.share": len(said) / len(signal),
            "ratio.median": float(np.median(said[:, 0] / np.maximum(said[:, 1], 1e-3))) if len(said) else None,
            "certificate.median": float(np.median(signal[:, 0])),
            "true.median": float(np.median(signal[:, 1])),
        }
    return table


def by_condition(records: list[dict]) -> list[dict[str, Any]]:
    """Means and violations of each condition and kind."""
    rows = []
    for record in records:
        values = np.asarray(record["values"])
        rows.append(
            {name: record[name] for name in ("data", "noise", "kind")}
            | {
                "draws": len(values),
                "certificate": float(values[:, 0].mean()),
                "true error": float(values[:, 1].mean()),
                "ratio": float(values[:, 0].mean() / max(values[:, 1].mean(), 1e-3)),
                "violated": int(np.sum(values[:, 0] < values[:, 1])),
            }
        )
    return rows


def main() -> None:
    """Run, print the tables and write ``results/validity.json``."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="4 draws a condition, small; nothing written")
    options.add_argument("--draws", type=int, default=32, help="draws of the training data for each condition")
    given = options.parse_args()
    delta, begun = 0.05, time.perf_counter()
    sizes = Sizes(n=128, test=1000, batch=4) if given.quick else Sizes(batch=min(16, given.draws))
    conditions = [(name, noise) for name in DISTRIBUTIONS for noise in (NOISES[::4] if given.quick else NOISES)]
    with double_precision():
        records = study(sizes, 4 if given.quick else given.draws, conditions, delta)
    table = summary(records, delta)
    print(f"{'kind':34} {'violated':>12} {'95 % interval':>17} {'noise < 1/2':>12} {'informative':>12} {'ratio':>6}")
    for kind, row in table.items():
        low, high = row["interval_95"]
        ratio = "-" if row["ratio.median"] is None else f"{row['ratio.median']:.2f}"
        print(
            f"{kind:34} {row['violated']:>5}/{row['draws']:<6} [{low:.4f}, {high:.4f}] "
            f"{row['pure_noise.below_chance']:>6}/{row['pure_noise.draws']:<5} {row['informative.share']:>12.2f} "
            f"{ratio:>6}"
        )
    if not given.quick:
        from facts import facts

        result: Mapping[str, Any] = {
            "machine": facts(),
            "command": f"python benchmarks/validity.py --draws {given.draws}",
            "delta": delta,
            "error_of_true_error": 0.5 / sqrt(sizes.test),
            "sizes": sizes.__dict__,
            "seconds": time.perf_counter() - begun,
            "kinds": table,
            "conditions": by_condition(records),
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
