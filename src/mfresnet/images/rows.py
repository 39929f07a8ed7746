"""What an image run records: a row for each epoch, the sensitivity of its blocks, and the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import ImageState
from .job import ImageJob
from .loop import Loop, lost_seeds
from .paired import over_seeds, paired
from .recording import epoch_row
from .sensitivity import first_order_share, gram_shares, of_seed, removal, swaps

SAMPLE = 1000  # test images of the sensitivity, drawn: a folder has them class by class
GRAM_IMAGES, GRAM_PARAMETERS = 4, 2_000_000  # most images and parameters of the Gram shares: a Jacobian each


def epoch_rows(job: ImageJob, loop: Loop, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the epoch that these rules have just ended, with test and sensitivity where they are due."""
    record, epoch = job.config.record, loop.epoch
    states = {name: loop.states[name] for name in names}
    last = {name for name in names if name not in loop.going}
    tests = job.networks.evaluate(states) if last or epoch % record.test_every == 0 else {}
    rows = []
    for name, state in states.items():
        row = {"step": loop.done, "rule": name, "epoch": epoch, **epoch_row(job.trainers[name], state, tests.get(name))}
        due = record.sensitivity_every and epoch % record.sensitivity_every == 0
        if record.sensitivity and (due or name in last) and not lost_seeds(state)[0]:  # it is of the first seed
            row["sensitivity"] = block_sensitivity(job, name, state)
        rows.append(row)
    return rows


def block_sensitivity(job: ImageJob, name: str, state: ImageState, points: int = GRAM_IMAGES) -> dict[str, Any]:
    """Removal and swap of blocks, first-order paths and Gram shares of the first seed, on drawn test images.

    Args:
        points: images of the Gram matrix.
    """
    trainer, one, test = job.trainers[name], of_seed(state, 0), job.split.test
    drawn = np.random.default_rng(job.config.seed).permutation(len(test))[:SAMPLE]
    x, y = jnp.asarray(test.x[drawn]), test.y[drawn]
    found = {
        "images": len(y),
        "removal": _named(removal(trainer, one, x, y)),
        "swap": _named(swaps(trainer, one, x, y)),
        "first_order_share": first_order_share(trainer, one, x),
    }
    if sum(leaf.size for leaf in jax.tree.leaves(one.weights.network)) <= GRAM_PARAMETERS:
        found["gram_share"] = _named(gram_shares(trainer, one, x[:points]))
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
    sensitivity = {row["rule"]: row["sensitivity"] for row in rows if "sensitivity" in row}  # the last of each rule
    if sensitivity:
        summary["sensitivity"] = sensitivity
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
