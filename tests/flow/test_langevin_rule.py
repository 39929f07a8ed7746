"""The rule langevin inside the trainer: the price of its path, its gradient, what it refuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet import Config, certify, fit
from mfresnet.bounds.path import path_certificate
from mfresnet.errors import MfresnetError
from mfresnet.flow import (
    KERNELS,
    AnnealingSchedule,
    LangevinRule,
    Options,
    Trainer,
    batch_of,
    is_misclassified,
    predict,
)
from mfresnet.flow.predictor import NetworkPredictor
from mfresnet.model import InitialScales, LayeredResNet, trainable
from mfresnet.train.certifying import check_possible
from mfresnet.train.langevin import points_of, potential_of
from mfresnet.train.path import acceptance_of, networks_of, path_certificates

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 2)).astype(np.float32)
Y = np.sign(X[:, :1] + 0.3).astype(np.float32)
SCALES = InitialScales(u=0.5, head_w=2.0)


def trainer_of(key, gamma, length=10, chains=1, leaps=1, kernel="adjusted", loss="sigmoid"):
    """A trainer and its first state, from one key."""
    k_model, k_chain = jax.random.split(key)
    model = LayeredResNet.create(
        k_model, inputs=2, depth=1, width=1, head_width=2, alpha=2.0, beta=4.0, initial=SCALES
    )  # fmt: skip
    trained = trainable(model)
    std = jax.tree.map(lambda _: None, model)
    for name, part in NetworkPredictor(model).prior(SCALES).std.items():
        std = eqx.tree_at(lambda m, name=name: getattr(m, name), std, part, is_leaf=lambda leaf: leaf is None)
    schedule = AnnealingSchedule.power(gamma, length, largest=0.3)
    others = None if chains == 1 else jax.random.key_data(jax.random.split(jax.random.fold_in(key, 2), chains - 1))
    schedules = jnp.asarray(schedule.gammas), jnp.asarray(schedule.steps)
    rule = LangevinRule(*schedules, std, jax.random.key_data(k_chain), others, leaps, kernel)
    trainer = Trainer(rule, trained, Options(loss=loss), 4 if kernel == "minibatch" else None)
    return trainer, trainer.begin(model, k_chain, len(X))


def test_mean_of_exp_minus_c_is_one_and_c_follows_from_the_losses():
    """4.5 standard errors fail by chance once in 150,000."""
    data, count, chains = batch_of(X, Y), 10, 4000

    @eqx.filter_jit
    @eqx.filter_vmap
    def run(key):
        trainer, state = trainer_of(key, 4.0)
        after, losses = trainer.advance(state, data, key, count, count)
        return losses, after.rule

    losses, memory = run(jax.random.split(jax.random.key(1), chains))
    c = np.asarray(memory.price, np.float64).sum(axis=1)
    trace = np.concatenate([np.asarray(losses, np.float64), np.asarray(memory.loss, np.float64)[:, None]], axis=1)
    gammas = np.float64(AnnealingSchedule.power(4.0, count).gammas)
    np.testing.assert_allclose(c, (trace[:, :-1] - trace[:, 1:]) @ gammas, atol=1e-6)
    weights = np.exp(-c)
    assert c.mean() > 0.02 and 0.3 < np.asarray(memory.accepted).mean() / count < 0.9999
    assert abs(weights.mean() - 1) < 4.5 * weights.std() / np.sqrt(chains)


@pytest.mark.parametrize("loss", ["sigmoid", "squared", "logistic"])
def test_gradient_is_that_of_the_potential_in_standard_coordinates(loss):
    trainer, state = trainer_of(jax.random.key(2), 4.0, loss=loss)
    after, _ = trainer.advance(state, batch_of(X, Y), jax.random.key(0), 10, 10)
    f = NetworkPredictor(after.model)
    prior = f.prior(SCALES)
    z = jnp.concatenate(
        [leaf.ravel() for leaf in jax.tree.leaves(jax.tree.map(jnp.divide, f.particles(), prior.std))]
    )  # fmt: skip
    potential = potential_of(f, prior, loss)
    (value, _), gradient = jax.value_and_grad(potential, has_aux=True)(z, points_of(batch_of(X, Y)))
    own = [getattr(after.rule.gradient, name) for name in ("encoder", "head")]
    assert float(after.rule.loss) == pytest.approx(float(value), rel=1e-5)
    np.testing.assert_allclose(
        jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(own)]), gradient, rtol=1e-4, atol=1e-6
    )  # fmt: skip


QUIET = {"gram_every": 0, "kl_every": 0, "landscape": False}
SMALL = {"depth": 1, "width": 2, "head_width": 6, "beta": 30.0}


def test_a_training_is_certified_on_all_points():
    config = Config(
        data={"name": "two-spirals", "n": 64, "n_test": 16},
        model=SMALL,
        train={"rule": "langevin", "steps": 60},
        diagnostics=QUIET,
    )
    result = fit(config)
    certificates = path_certificates(result.job, result.state)
    certificate = certificates["path"]
    wrong = is_misclassified(np.asarray(predict(result.model, result.job.train.x)), np.asarray(result.job.train.y))
    assert certificate.terms["train error"] == pytest.approx(wrong.mean(), abs=1e-6)
    assert certificate.details["c"] == pytest.approx(result.state.rule.c) and certificate.details["n"] == 64
    assert certificate.value < 1 and certificate.status == "assumed" and "held_out" in certificates


def test_certify_takes_a_chain():
    """The same certificates by `mfresnet.certify`, which refuses what does not apply to a chain."""
    config = Config(
        data={"n": 64, "n_test": 16}, model=SMALL, train={"rule": "langevin", "steps": 60}, diagnostics=QUIET
    )
    result = fit(config)
    certificates = certify(result)
    assert certificates["path"] == path_certificates(result.job, result.state)["path"]
    assert certify(result, names=("path",), settings=100)["path"].value > certificates["path"].value
    last = result.history[-1]
    assert last["chain.c"] == result.state.rule.c and 0 < last["chain.acceptance"] <= 1
    # the row's bound leaves out the error of rounding alone
    assert last["chain.bound"] == pytest.approx(certificates["path"].value, abs=1e-4)
    for words, call in {
        "unknown certificate": {"names": ("kernel",)},
        "heads": {"heads": (8,)},
        "settings = 0": {"settings": 0},
    }.items():
        with pytest.raises(MfresnetError, match=words):
            certify(result, **call)


def test_a_continuous_network_keeps_its_places():
    config = Config(
        data={"n": 40, "n_test": 8},
        model=SMALL | {"kind": "continuous"},
        train={"rule": "langevin", "steps": 30},
        diagnostics=QUIET,
    )
    result = fit(config)
    np.testing.assert_array_equal(result.model.t, result.start.t)
    assert np.abs(np.asarray(result.model.encoder.w - result.start.encoder.w)).max() > 1e-3
    assert 0 < certify(result, names="path")["path"].value <= 1


def test_defaults_of_the_rule():
    """One in twenty of a table's rows fixes the map of the inputs, uncertified; alpha falls with the dimension."""
    config = Config(
        data={"name": "breast-cancer", "n": 100, "n_test": 16},
        model=SMALL,
        train={"rule": "langevin", "steps": 20},
        diagnostics=QUIET,
    )
    result = fit(config)
    assert result.config.model.alpha == 40.0 / 30
    path = certify(result)["path"]
    assert path.details["n"] == 95 and "violated" not in {h.status for h in path.hypotheses}
    flow = Config(data={"n": 16, "n_test": 8}, model=SMALL, train={"rule": "adam", "steps": 1}, diagnostics=QUIET)
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a number to the power of its count
        assert fit(flow).config.model.alpha == 10.0


@pytest.mark.parametrize(
    ("model", "train", "words"),
    [
        ({"antithetic": True}, {}, "antithetic"),
        ({}, {"batch_size": 8}, "batch_size"),
        ({}, {"kernel": "minibatch"}, "set train.batch_size"),
        ({}, {"loss": "logistic"}, "train.potential is loss"),
        ({}, {"freeze": "head"}, "freeze"),
        ({"initial": {"a": 0.0}}, {}, "initial.a = 0"),
        ({"initial": {"law": "uniform"}}, {}, "initial.law"),
    ],
)
def test_what_does_not_go_with_the_rule(model, train, words):
    with pytest.raises(MfresnetError, match=words):
        fit(
            Config(
                data={"n": 32, "n_test": 8},
                model=SMALL | model,
                train={"rule": "langevin", "steps": 20} | train,
                diagnostics=QUIET,
            )
        )


def test_several_chains_are_the_chain_alone_and_independent_others():
    """The first chain is that of a run without others; every chain's price is that of its own losses and law."""
    config = {
        "data": {"name": "two-spirals", "n": 64, "n_test": 16},
        "model": SMALL,
        "train": {"rule": "langevin", "steps": 40},
        "diagnostics": QUIET,
    }
    alone = fit(Config.model_validate(config))
    several = fit(Config.model_validate(config | {"train": config["train"] | {"chains": 5}}))
    for one, other in zip(
        jax.tree.leaves(eqx.filter(alone.model, eqx.is_array)),
        jax.tree.leaves(eqx.filter(several.model, eqx.is_array)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)  # another program
    prices = several.state.rule.prices
    assert prices.shape == (5,) and len(np.unique(prices)) == 5
    certificates, single = certify(several), certify(alone)
    assert set(certificates) == {"path", "path_mean", "path_vote", "held_out"}
    assert certificates["path"].value == pytest.approx(single["path"].value, abs=1e-3)
    x, y = np.asarray(several.job.train.x), np.asarray(several.job.train.y)
    wrong = [is_misclassified(np.asarray(predict(model, x)), y).sum() for model in networks_of(several.state)]
    again = path_certificate([wrong], [prices], 64, 0.05, rounding=certificates["path_mean"].details["rounding"])
    assert certificates["path_mean"].value == pytest.approx(again.value, abs=1e-12)
    assert certificates["path_vote"].value == pytest.approx(min(1.0, 2 * again.value), abs=1e-12)
    chains = several.summary["chains"]
    assert chains["c"] == prices.tolist() and chains["train.error"] == pytest.approx([k / 64 for k in wrong])


@pytest.mark.parametrize("kernel", KERNELS)
def test_mean_of_exp_minus_c_is_one_over_the_chains_of_one_run(kernel):
    """4.5 standard errors fail by chance once in 150,000."""
    data, count, chains = batch_of(X, Y), 10, 4000
    trainer, state = trainer_of(jax.random.key(5), 4.0, chains=chains, leaps=2, kernel=kernel)
    after, _ = trainer.advance(state, data, jax.random.key(6), count, count)
    c = after.rule.prices[1:]  # the first start is that of the trainer
    weights = np.exp(-c)
    assert c.mean() > 0.02 and abs(weights.mean() - 1) < 4.5 * weights.std() / np.sqrt(len(c))


@pytest.mark.parametrize(
    "train",
    [
        {"kernel": "unadjusted", "chains": 3},
        {"kernel": "minibatch", "batch_size": 16},
        {"potential": "loss", "loss": "logistic"},
        {"potential": "loss", "gamma": 5.0},
    ],
    ids=lambda train: " ".join(map(str, train.values())),
)
def test_kernels_potentials_and_a_given_inverse_temperature(train):
    data, rest = {"name": "two-spirals", "n": 64, "n_test": 16}, {"model": SMALL, "diagnostics": QUIET}
    result = fit(Config(data=data, train={"rule": "langevin", "steps": 60} | train, **rest))
    path = certify(result)["path"]
    assert path.value < 1 and path.details["rounding"] < 1e-2
    assert path.details["gamma"] == pytest.approx(train.get("gamma", path.details["gamma"]))
    assert ("discretisation" in str(path)) == ("kernel" in train)
    if "potential" in train:
        assert result.history[-1]["train.loss"] > 0.2  # of the loss, not of the shares of mistakes


def test_chains_go_with_the_rule_alone():
    with pytest.raises(MfresnetError, match=r"train\.chains = 3"):
        fit(Config(data={"n": 16, "n_test": 8}, model=SMALL, train={"rule": "adam", "steps": 1, "chains": 3}))


def test_acceptance_near_0_or_1_is_said_with_its_remedy():
    """From the mean since the start at the recorded steps."""

    def config(kernel):
        return Config(train={"rule": "langevin", "kernel": kernel})

    def rows(half, end):
        return [{"step": 4 * k, "chain.acceptance": value} for k, value in enumerate((1.0, half, end))]

    assert "raise train.leaps" in acceptance_of(config("adjusted"), rows(0.9, 0.94))[0]  # 0.98 in the second half
    assert "lower train.gamma" in acceptance_of(config("adjusted"), rows(0.9, 0.5))[0]  # 0.1
    assert acceptance_of(config("adjusted"), rows(0.9, 0.8)) == []
    assert acceptance_of(config("unadjusted"), rows(1.0, 1.0)) == []
    assert acceptance_of(config("adjusted"), rows(0.9, 0.94)[:1]) == []


@pytest.mark.parametrize("certify", [{"patience": 3}, {"tune": "model.alpha=1,2"}])
def test_a_flow_s_ways_to_choose_are_refused_with_those_of_a_chain(certify):
    with pytest.raises(MfresnetError, match=r"count them in certify\.settings"):
        check_possible(Config(train={"rule": "langevin"}, certify=certify), "binary")
