"""Training in memory: the same numbers as on disk, from objects and arrays, in any pieces, on several devices."""

import os
import subprocess
import sys

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_images import same

from mfresnet import MfresnetError
from mfresnet.data.images import ImageSplit
from mfresnet.images import ImageConfig, MeanField, Plan, Record, Rule, assemble_images, fit
from mfresnet.json_types import plain
from mfresnet.runs import RunDirectory, checkpoint


@pytest.mark.exact
def test_any_chunks_give_the_same_bits(job):
    """Three steps at once, or two and one."""
    once = job.networks.advance(job.init(), 3)
    twice = job.networks.advance(job.networks.advance(job.init(), 2), 1)
    same(once, twice)
    moving = once["mean-field"].weights
    assert moving.coordinates[0]["s"].shape == (2, 3)
    assert not np.array_equal(moving.network.stem[0], moving.network.stem[1])  # seeds differ


@pytest.mark.slow
def test_divided_over_devices(folder, tmp_path):
    """Two devices that share each minibatch give the numbers of one, to rounding; statistics are the whole batch's.

    A run that was stopped on two goes on with one.
    """
    code = f"""
import os, signal
from pathlib import Path
import jax, numpy as np
from mfresnet.config import build
from mfresnet.images import ImageConfig
from mfresnet.data.images import load_images
from mfresnet.images.job import assemble_images
from mfresnet.runs import RunDirectory, resume_images, train_images
assert len(jax.devices()) == 2
tree = {{
    "data": {{"name": {str(folder)!r}}}, "model": {{"name": "resnet8", "width": 2}},
    "train": {{"epochs": 2, "batch_size": 8}}, "record": {{"report": False, "sensitivity": False}},
}}
config, states = build(tree, ImageConfig), []
for devices in (1, 2):
    job = assemble_images(config, load_images({str(folder)!r}), devices)
    states.append(job.networks.advance(job.init(), 2)["plain"])
for a, b in zip(*map(jax.tree.leaves, (s.statistics for s in states)), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
assert len(states[1].weights.network.stem.sharding.device_set) == 2

append, out = RunDirectory.append_metrics, Path({str(tmp_path)!r})
def then_stop(run, row):
    append(run, row)
    os.kill(os.getpid(), signal.SIGINT)
RunDirectory.append_metrics = then_stop
assert train_images(config, out / "two", quiet=True, devices=2)["status"] == "interrupted"
RunDirectory.append_metrics = append
found = resume_images(out / "two", quiet=True), train_images(config, out / "one", quiet=True)
assert [summary["status"] for summary in found] == ["completed"] * 2
a, b = (RunDirectory.open(out / name).metrics()[-1]["train_loss"] for name in ("two", "one"))
np.testing.assert_allclose(a, b, rtol=1e-2)  # rounding, grown over an epoch at a rate of 0.1
"""
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"XLA_FLAGS": flags}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


@pytest.mark.exact
def test_training_in_memory_is_the_run_on_disk(config, job, finished):
    """Rows and last states, to the bit."""
    seen: list[Record] = []
    result = fit(config, callback=lambda record: seen.append(record))
    rows = [{name: value for name, value in row.items() if name != "wall_s"} for row in plain(list(result.history))]
    written = [{k: v for k, v in row.items() if k != "wall_s"} for row in RunDirectory.open(finished).metrics()]
    assert rows == written and [record.row for record in seen] == list(result.history)
    last = checkpoint.latest(finished / "checkpoints", job.init(), pytest.fail)
    assert last is not None
    same(last[0], result.states)
    whole = RunDirectory.open(finished).summary
    assert all(result.summary[name] == whole[name] for name in ("status", "rules", "paired", "sensitivity"))
    assert result.status == "completed" and "mean-field=" in repr(result)
    # the network of a seed by hand, against the error that was recorded
    test = result.job.split.test
    logits = result.logits(test.x, "mean-field", seed=1)
    assert np.mean(logits.argmax(-1) != test.y) == result.history[-1]["test_error"][1]
    np.testing.assert_array_equal(result.network("plain").stem, result.states["plain"].weights.network.stem[0])


TINY = {
    "model": {"name": "resnet8", "width": 1, "norm": "group"},
    "train": {"epochs": 2, "batch_size": 4},
    "record": {"sensitivity": False},
}


@pytest.fixture(scope="module")
def arrays():
    x, y = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 1), dtype=np.uint8), np.array(["cat", "dog"] * 4)
    return ImageSplit.from_arrays((x, y), (x[:4], y[:4]))


def test_rules_and_optimisers_as_objects(arrays):
    """A rule and an Optax optimiser of the user's own; a callback that asks for a stop."""

    class Halved(Rule):
        def plan(self, coordinates, order, place, key=None):
            return Plan(jnp.full(place.count, 0.5))

    config, own = ImageConfig(**TINY), optax.adamw(optax.cosine_decay_schedule(0.01, 4), weight_decay=0.1)
    rules = {"halved": Halved(), "mean-field": MeanField(rate=0.5)}
    result = fit(config, arrays, rules=rules, optimiser=own, callback=lambda record: record.epoch == 1)
    assert result.status == "interrupted" and [row["rule"] for row in result.history] == ["halved", "mean-field"]
    assert result.config.train.weight_decay == 0  # the optimiser has its own
    assert np.shape(result.history[1]["t"][0][0]) == (1,) and "t" not in result.history[0]


def test_arrays_that_are_no_split(arrays):
    x = arrays.train.x
    with pytest.raises(MfresnetError, match="test image 1 of 'arrays' has class 'cow', which no training image has"):
        ImageSplit.from_arrays((x, ["cat", "dog"] * 4), (x[:2], ["cat", "cow"]))
    with pytest.raises(MfresnetError, match="must be uint8"):
        ImageSplit.from_arrays((x / 255, ["cat", "dog"] * 4), (x[:1], ["cat"]))


def test_an_output_that_is_not_finite_is_an_error(arrays):
    """argmax names a class even of NaN; the error counts it all the same, and a network that diverged has none."""
    job = assemble_images(ImageConfig(**TINY), arrays)
    state = job.init()["plain"]
    broken = eqx.tree_at(lambda s: s.weights.network.readout.bias, state, jnp.full((1, 2), jnp.nan))
    loss, error = job.networks.evaluate({"plain": broken})["plain"]
    assert error.tolist() == [1.0] and not np.isfinite(loss[0])
