"""Rules and seeds in one program, in groups, and minibatches from the host: the numbers stay."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_images import write_folder

from mfresnet.config import build
from mfresnet.data.images import load_images
from mfresnet.images import Ensemble, HostImages, ensemble, make_rule
from mfresnet.images.configuration import ImageConfig
from mfresnet.images.family import Place
from mfresnet.images.job import assemble_images, place_images
from mfresnet.images.program import unify_plans

RULES, SEEDS, STEPS = ("plain", "mean-field", "linear-multistep"), 2, 3
ALONE = ("mean-field", "linear-multistep")  # plain is held against mean-field at equal depths


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Four blocks in families, whose depths and k are trained at a rate that shows after a few steps."""
    folder = write_folder(tmp_path_factory.mktemp("images") / "set", {"train": 9, "test": 4})
    tree = {
        "data": {"name": str(folder)},
        "model": {"name": "resnet14", "width": 2},
        "blocks": {"rules": ",".join(RULES), "lr_t": 20.0},
        "train": {"seeds": SEEDS, "epochs": 2, "batch_size": 8},
    }
    return assemble_images(build(tree, ImageConfig), load_images(str(folder)))


@pytest.fixture(scope="module")
def together(job):
    """All six networks as one program: an epoch, and its test."""
    states = job.networks.advance(job.init(), STEPS)
    return states, job.networks.evaluate(states)


@pytest.fixture(scope="module")
def one_by_one(job):
    """Each seed of two rules by itself: two programs, four calls."""
    alone = {name: job.trainers[name] for name in ALONE}
    networks = Ensemble(alone, job.seeds, job.networks.train, job.networks.test, at_once=1)
    return networks, networks.advance(networks.init(), STEPS)


def test_one_program_has_the_numbers_of_each_network_alone(together, one_by_one):
    """After three steps, in float32.

    Only the order of sums differs: a relative 1e-7 of each product, which batch normalisation over 8 images and three
    steps at a rate of 0.1 (20 times that for depths) grow to some 1e-5.
    """
    for name in ALONE:
        for a, b in zip(*(jax.tree.leaves(run[name]) for run in (together[0], one_by_one[1])), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4)
    plain, moved = (together[0][name].weights.network.stem for name in ("plain", "mean-field"))
    assert not np.allclose(plain, moved, atol=2e-4)  # so much do rules differ by then


def test_at_equal_depths_the_first_step_is_that_of_the_plain_network(job, together):
    """To the bit, beside rules with other plans; from the second step on depths are no longer equal."""
    states = job.networks.advance(job.init(), 1)
    for part in (lambda s: s.weights.network, lambda s: s.statistics, lambda s: s.tally.loss):
        for a, b in zip(*(jax.tree.leaves(part(states[name])) for name in ("plain", "mean-field")), strict=True):
            np.testing.assert_array_equal(a, b)


def test_any_chunks_of_one_program_give_the_same_bits(job, together):
    states = job.networks.advance(job.networks.advance(job.init(), 1), STEPS - 1)
    for a, b in zip(*map(jax.tree.leaves, (states, together[0])), strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_of_the_host_give_the_same_bits(job, one_by_one):
    """Windows of two steps in training, and of some images in evaluation, whose last is not full."""
    train, test = place_images(job.split, "no")
    bytes_of_two = 2 * 8 * job.split.train.x[0].nbytes
    assert isinstance(train, HostImages) and isinstance(test, HostImages)
    host = Ensemble(
        {"mean-field": job.trainers["mean-field"]}, [0], HostImages(train.x, train.y, bytes_of_two),
        HostImages(test.x, test.y, 5 * job.split.test.x[0].nbytes),
    )  # fmt: skip
    assert host.max_steps == 2
    state = host.advance(host.advance(host.init(), 2), 1)
    one, own = one_by_one[0], jax.tree.map(lambda leaf: leaf[:1], one_by_one[1]["mean-field"])
    for a, b in zip(*map(jax.tree.leaves, (state["mean-field"], own)), strict=True):
        np.testing.assert_array_equal(a, b)
    device = Ensemble(host.trainers, [0], one.train, one.test)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "TEST_BATCH", 5)
        for a, b in zip(*(images.evaluate(state)["mean-field"] for images in (host, device)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_evaluation_counts_every_image_once(job, together):
    """Against the network applied to all images at once."""
    loss, error = (values[1] for values in together[1]["mean-field"])
    state = jax.tree.map(lambda leaf: leaf[1], together[0]["mean-field"])
    trainer, test = job.trainers["mean-field"], job.split.test
    plans = trainer.evaluation_plans(state.weights.coordinates, state.orders)
    x = trainer.normalise(jnp.asarray(test.x))
    logits = eqx.filter_jit(state.weights.network)(x, state.statistics, plans, False)[0]
    logs = np.asarray(jax.nn.log_softmax(logits), np.float64)
    np.testing.assert_allclose(loss, -np.mean(logs[np.arange(len(test)), test.y]), rtol=1e-4)
    assert error == np.mean(np.argmax(logs, -1) != test.y)


def test_networks_are_halved_until_they_fit(job, together, monkeypatch):
    """What the compiler says is held against the device's memory; the groups hold every network once."""
    states, networks = together[0], Ensemble(job.trainers, job.seeds, job.networks.train, job.networks.test)
    assert networks._fits(states, (RULES, slice(0, SEEDS)))
    monkeypatch.setattr(ensemble, "device_memory", lambda: 1000)
    assert not networks._fits(states, (RULES, slice(0, SEEDS)))
    tried = []

    def fits(self, states, group):
        rules, seeds = group
        tried.append(len(rules) * (seeds.stop - seeds.start))
        return tried[-1] <= 1

    monkeypatch.setattr(Ensemble, "_fits", fits)
    found = networks.groups(states)
    assert tried == [6, 2, 2] and len(found) == 6  # of 3 at once, seeds stay together: 2
    assert [(rule, seeds.start) for (rule,), seeds in found] == [(rule, k) for rule in RULES for k in (0, 1)]
    assert networks.groups(states) == found and len(tried) == 3


@pytest.mark.parametrize(("most", "sizes"), [(6, [6]), (5, [4, 2]), (3, [2, 2, 2]), (1, [1] * 6)])
def test_groups_of_any_size(most, sizes):
    assert [
        len(rules) * (seeds.stop - seeds.start) for rules, seeds in ensemble.group_networks(RULES, 2, most)
    ] == sizes


def test_plans_alike_leave_what_they_were():
    place, own = Place(1, 3, 3), []
    for name in RULES:
        rule = make_rule(name)
        coordinates = jax.tree.map(lambda leaf: leaf[None], rule.init(place))
        own.append((jax.vmap(lambda c, rule=rule: rule.plan(c, jnp.arange(3), place), axis_size=1)(coordinates),))
    for (before,), (after,) in zip(own, unify_plans(own), strict=True):
        np.testing.assert_array_equal(before.steps, after.steps)
        np.testing.assert_array_equal(after.order, [[0, 1, 2]])
        np.testing.assert_array_equal(after.mix, [[0, 0, 0]])
    assert unify_plans(own[:1])[0][0].order is None  # nothing is filled in for a rule alone
