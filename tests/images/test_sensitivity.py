"""Removal, swap and single paths, on a network whose blocks are known (all of them of a run: `test_training`)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.images import Architecture, ImageTrainer, channel_statistics, make_rule
from mfresnet.images.sensitivity import first_order_share, removal, select_seed, swaps


@pytest.fixture(scope="module")
def trained():
    """resnet20 of width 2 at its start, but the second block of stage 1 is zero, and those of stages 2, 3 are equal."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8), rng.integers(0, 3, 12)
    mean, std = channel_statistics(x)
    trainer = ImageTrainer(
        jnp.asarray(mean), jnp.asarray(std), Architecture.named("resnet20", 2), make_rule("mean-field"), n=12,
        classes=3, batch=4, epochs=1,
    )  # fmt: skip
    state = select_seed(trainer.init(np.arange(1)), 0)

    def kernels(stage):
        return lambda state: state.weights.network.stages[stage].family.kernels[1]

    state = eqx.tree_at(kernels(0), state, state.weights.network.stages[0].family.kernels[1].at[1].set(0))
    for stage in (1, 2):
        equal = jax.tree.map(lambda a: jnp.stack([a[0], a[0]]), state.weights.network.stages[stage].family)
        state = eqx.tree_at(lambda state, stage=stage: state.weights.network.stages[stage].family, state, equal)
    return trainer, state, jnp.asarray(x), y


def test_a_block_that_does_nothing_may_go(trained):
    found = removal(*trained)
    assert found[0, 1] == 0 and len(found) == 7
    assert any(value != 0 for value in found.values())


def test_equal_blocks_may_swap(trained):
    found = swaps(*trained)
    assert set(found) == {(0, 0), (0, 1), (1, 0), (2, 0)}
    assert found[1, 0] == found[2, 0] == 0


def test_single_paths(trained):
    """One family block alone, against the sum written out for a network in which only it acts: the share is 1."""
    trainer, state, x, _ = trained
    assert first_order_share(trainer, state, x) < 1
    quiet = state
    for stage in range(3):
        kernels = state.weights.network.stages[stage].family.kernels[1]
        kept = kernels.at[1:].set(0) if stage == 0 else jnp.zeros_like(kernels)
        quiet = eqx.tree_at(
            lambda state, stage=stage: state.weights.network.stages[stage].family.kernels[1], quiet, kept
        )
    assert first_order_share(trainer, quiet, x) == pytest.approx(1, abs=1e-5)
