"""What an image run records: a row for each epoch, the sensitivity of its blocks, and the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..images import ImageState, kendall, order_entropy
from ..images.job import ImageJob
from ..images.paired import over_seeds, paired
from ..images.sensitivity import first_order_share, gram_shares, of_seed, removal, swaps

SAMPLE = 1000  # test images of the sensitivity, drawn: a folder has them class by class
GRAM_IMAGES, GRAM_PARAMETERS = 4, 2_000_000  # most images and parameters of the Gram shares: a Jacobian each


def epoch_row(job: ImageJob, name: str, state: ImageState, epoch: int, tested: bool) -> dict[str, Any]:
    """The numbers of an epoch; every list runs over seeds, those of families over (seed, stage).

    t is the depth coordinate s/N of each block; "distance" is Kendall's between the order and the starting one, over
    its largest value N(N - 1)/2.
    """
    trainer, tally = job.trainers[name], state.tally
    steps = np.maximum(np.asarray(tally.steps), 1)
    row: dict[str, Any] = {
        "rule": name,
        "epoch": epoch,
        "train_loss": np.asarray(tally.loss) / steps,
        "train_error": np.asarray(tally.wrong) / (steps * trainer.batch),
    }
    if tested:
        loss, error = trainer.evaluate(state, job.test)
        share = np.rint(np.asarray(error, float) * len(job.test)) / len(job.test)  # exact, not float32's
        # a network that is not finite has no error, though argmax names a class
        row |= {"test_loss": np.asarray(loss), "test_error": np.where(np.isfinite(loss), share, np.nan)}
    places = trainer.architecture.places
    if trainer.rule.moves:
        row["swaps"] = np.stack([np.asarray(s) for s in tally.swaps], 1)
        row["entropy"] = [
            [order_entropy(np.asarray(seen[k])) for seen in tally.occupancy] for k in range(len(job.seeds))
        ]
        most = [max(place.count * (place.count - 1) // 2, 1) for place in places]
        start = [jnp.arange(place.count) for place in places]
        row["distance"] = [
            [int(kendall(a, b[k])) / top for a, b, top in zip(start, state.orders, most, strict=True)]
            for k in range(len(job.seeds))
        ]
    for key in state.weights.coordinates[0]:
        scale = {"s": [max(place.count, 1) for place in places]}.get(key, [1] * len(places))
        row[{"s": "t"}.get(key, key)] = [
            [np.asarray(c[key][k]) / top for c, top in zip(state.weights.coordinates, scale, strict=True)]
            for k in range(len(job.seeds))
        ]
    return row


def block_sensitivity(job: ImageJob, name: str, state: ImageState) -> dict[str, Any]:
    """Removal and swap of blocks, first-order paths and Gram shares of the first seed, on drawn test images."""
    trainer, one = job.trainers[name], of_seed(state, 0)
    drawn = np.random.default_rng(job.config.seed).permutation(len(job.test))[:SAMPLE]
    x, y = job.test.x[drawn], np.asarray(job.test.y)[drawn]
    found = {
        "images": len(y),
        "removal": _named(removal(trainer, one, x, y)),
        "swap": _named(swaps(trainer, one, x, y)),
        "first_order_share": first_order_share(trainer, one, x),
    }
    if sum(leaf.size for leaf in jax.tree.leaves(one.weights.network)) <= GRAM_PARAMETERS:
        found["gram_share"] = _named(gram_shares(trainer, one, x[:GRAM_IMAGES]))
    return found


def _named(values: Mapping[Any, float]) -> dict[str, float]:
    """Stages and blocks counted from 1, as a reader does."""
    return {
        key if isinstance(key, str) else f"stage {key[0] + 1}, block {key[1] + 1}": value
        for key, value in values.items()
    }


def image_summary(job: ImageJob, rows: Sequence[Mapping[str, Any]], status: str) -> dict[str, Any]:
    """Status, errors of each rule over seeds, and paired differences to the plain network, from the rows written."""
    rules: dict[str, Any] = {}
    errors: dict[str, dict[int, list[Any]]] = {}  # by rule and epoch
    for name, trainer in job.trainers.items():
        own = [row for row in rows if row.get("rule") == name]
        tested = [row for row in own if "test_error" in row]
        if not tested:
            continue
        errors[name] = {row["epoch"]: row["test_error"] for row in tested}
        lost = [seed for seed, value in zip(job.seeds, own[-1]["train_loss"], strict=True) if value is None]
        rules[name] = {
            "epochs": own[-1]["epoch"],
            "finished": own[-1]["epoch"] == trainer.epochs or len(lost) == len(job.seeds),
            "tested": tested[-1]["epoch"],
            "test_error": over_seeds(tested[-1]["test_error"]),
            "test_errors": tested[-1]["test_error"],
            "train_loss": over_seeds(own[-1]["train_loss"]),
            "diverged_seeds": lost,
        }
        if "swaps" in own[-1]:
            rules[name]["swaps"] = over_seeds(
                [float(np.sum([r["swaps"][k] for r in own])) for k in range(len(job.seeds))]
            )
    summary: dict[str, Any] = {
        "status": status,
        "seeds": job.seeds,
        "test.n": len(job.split.test),
        "train.n": len(job.split.train),
        "rules": rules,
    }
    gone = {name: rule["diverged_seeds"] for name, rule in rules.items() if rule["diverged_seeds"]}
    if gone and status == "completed":
        summary["status"] = "diverged"
        summary["diverged.message"] = "; ".join(f"{name}: seed {', '.join(map(str, s))}" for name, s in gone.items())
    if "plain" in errors:
        summary["paired"] = {
            f"{name} minus plain": _matched(errors["plain"], own)
            for name, own in errors.items()
            if name != "plain" and own.keys() & errors["plain"].keys()
        }
    return summary


def _matched(first: Mapping[int, list[Any]], second: Mapping[int, list[Any]]) -> dict[str, Any]:
    """The paired difference at the last epoch that both rules tested: in a run that was stopped, one is far ahead."""
    epoch = max(first.keys() & second.keys())
    return {"epoch": epoch, **paired(first[epoch], second[epoch])}
