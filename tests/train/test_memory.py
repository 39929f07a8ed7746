"""The memory of a step, estimated and as the compiler lays it out; which mistakes of an optimiser are renamed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mfresnet import Config, MfresnetError
from mfresnet.data import load
from mfresnet.flow import OptaxRule, optimiser
from mfresnet.train.job import assemble, check_rule
from mfresnet.train.memory import memory_estimate


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_estimate_is_what_the_compiler_asks_for(solver):
    """At d = 60 the Hessians of the probes of an Euler step are most of it: 32 x 3 x 60^2 numbers."""
    config = Config(
        data={"name": "random-labels", "n": 16, "n_test": 4, "dimension": 60},
        model={"depth": 3, "width": 4, "head_width": 4},
        train={"solver": solver, "probes": 8, "head_probes": 8, "steps": 2},
    )
    job = assemble(config, load(config.data, 0))
    state, static = eqx.partition(job.state, eqx.is_array)

    @jax.jit
    def step(state, data, key):
        return eqx.filter(job.trainer.step(eqx.combine(state, static), data, key)[0], eqx.is_array)

    layout = step.lower(state, job.train, job.key).compile().memory_analysis()
    needed = layout.temp_size_in_bytes + layout.argument_size_in_bytes + layout.output_size_in_bytes
    estimate = memory_estimate(job.config, 60, 1, 16)
    assert 0.5 < estimate / needed < 1.2  # 1.0 for both when it was written; without the Hessians 0.13 for Euler


def test_only_missing_arguments_are_called_more_than_gradients(x64, unchecked):
    def broken(rate):
        return optax.GradientTransformation(lambda params: (), lambda *_: 1 / 0)

    moved = {"w": np.ones(3)}
    with pytest.raises(ZeroDivisionError):
        check_rule("optax:broken", OptaxRule(broken, jnp.asarray(0.1)), moved)
    with pytest.raises(MfresnetError, match="needs more than gradients"):
        check_rule("optax:lbfgs", optimiser("optax:lbfgs", 0.1, unit=1.0), moved)


def test_what_optax_cannot_make_is_one_sentence_and_other_mistakes_show(monkeypatch):
    with pytest.raises(MfresnetError, match="cannot be made from a learning rate alone"):
        optimiser("optax:chain", 0.1, unit=1.0)

    def broken(rate):
        raise MemoryError("no room")

    monkeypatch.setattr(optax, "broken", broken, raising=False)
    with pytest.raises(MemoryError, match="no room"):
        optimiser("optax:broken", 0.1, unit=1.0)
