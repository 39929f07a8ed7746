"""What is recorded of an epoch: losses, errors, the order and depth of the blocks, and what each block does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .ensemble import States
from .job import ImageJob
from .orders import kendall, order_entropy
from .sensitivity import first_order_share, gram_shares, removal, select_seed, swaps
from .training import ImageState, ImageTrainer

SAMPLE = 1000  # test images of the sensitivity, drawn at random: a folder lists them class by class
GRAM_IMAGES, GRAM_PARAMETERS = 4, 2_000_000  # most images and parameters of the Gram shares: a Jacobian each


def diverged_seeds(state: ImageState) -> np.ndarray:
    """Which seeds have a loss that is not finite; their weights never become finite again."""
    return ~np.isfinite(np.asarray(state.tally.loss))


def epoch_rows(job: ImageJob, states: States, ended: Collection[str]) -> list[dict[str, Any]]:
    """A row for each rule that has just finished an epoch, with test and sensitivity where they are due.

    Args:
        job: what is trained.
        states: of these rules.
        ended: the rules among them whose training is over.
    """
    record, rows = job.config.record, []
    step = max(int(state.step[0]) for state in states.values())
    epoch = step // job.networks.shared.per_epoch
    tests = job.networks.evaluate(states) if ended or epoch % record.test_every == 0 else {}
    for name, state in states.items():
        measured = measure_epoch(job.trainers[name], state, tests.get(name))
        row = {
            "step": step,
            "rule": name,
            "epoch": epoch,
            **jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), measured),
        }
        due = record.sensitivity_every and epoch % record.sensitivity_every == 0
        if record.sensitivity and (due or name in ended) and not diverged_seeds(state)[0]:  # it is of the first seed
            row["sensitivity"] = block_sensitivity(job, name, state)
        rows.append(row)
    return rows


def measure_epoch(
    trainer: ImageTrainer, state: ImageState, test: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, Any]:
    """The numbers of the epoch that a rule has just finished.

    Lists run over seeds, those of families over (seed, stage). "t" is the depth coordinate of each block; "distance" is
    Kendall's between the order and the starting one, over its largest value N(N - 1)/2.

    Args:
        trainer: of the rule.
        state: of its seeds.
        test: loss and error in evaluation, where the epoch was tested.
    """
    tally, seeds, places = state.tally, range(len(state.seed)), trainer.architecture.places
    steps = np.maximum(np.asarray(tally.steps), 1)
    row: dict[str, Any] = {
        "train_loss": np.asarray(tally.loss) / steps,
        "train_error": np.asarray(tally.wrong) / (steps * trainer.batch),
    }
    if test:
        loss, error = test
        row |= {"test_loss": loss, "test_error": np.where(diverged_seeds(state), np.nan, error)}
    if trainer.rule.reorders:
        row["swaps"] = np.stack([np.asarray(count) for count in tally.swaps], 1)
        row["entropy"] = [[order_entropy(np.asarray(seen[k])) for seen in tally.occupancy] for k in seeds]
        most = [max(place.count * (place.count - 1) // 2, 1) for place in places]
        start = [jnp.arange(place.count) for place in places]
        row["distance"] = [
            [int(kendall(a, b[k])) / top for a, b, top in zip(start, state.orders, most, strict=True)] for k in seeds
        ]
    observed = [
        jax.vmap(lambda own, place=place: trainer.rule.observe(own, place))(own) if own else {}
        for own, place in zip(state.weights.coordinates, places, strict=True)
    ]
    for name in observed[0]:
        row[name] = [[np.asarray(family[name][k]) for family in observed] for k in seeds]
    return row


def block_sensitivity(job: ImageJob, name: str, state: ImageState, points: int = GRAM_IMAGES) -> dict[str, Any]:
    """Removal and swap of blocks, first-order paths and Gram shares of the first seed, on test images drawn at random.

    Args:
        job: what is trained.
        name: of the rule.
        state: of its seeds.
        points: images of the Gram matrix.
    """
    trainer, one, test = job.trainers[name], select_seed(state, 0), job.split.test
    drawn = np.random.default_rng(job.config.seed).permutation(len(test))[:SAMPLE]
    x, y = jnp.asarray(test.x[drawn]), test.y[drawn]
    measured = {
        "images": len(y),
        "removal": _name_blocks(removal(trainer, one, x, y)),
        "swap": _name_blocks(swaps(trainer, one, x, y)),
        "first_order_share": first_order_share(trainer, one, x),
    }
    if sum(leaf.size for leaf in jax.tree.leaves(one.weights.network)) <= GRAM_PARAMETERS:
        measured["gram_share"] = _name_blocks(gram_shares(trainer, one, x[:points]))
    return measured


def _name_blocks(values: Mapping[Any, float]) -> dict[str, float]:
    """Stages and blocks counted from 1."""
    return {
        key if isinstance(key, str) else f"stage {key[0] + 1}, block {key[1] + 1}": value
        for key, value in values.items()
    }
