"""Particles of every kind through training, certificates and files; each shipped kind trains to a stated error."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet import Config, LayeredResNet, MfresnetError, Particle, certify, fit
from mfresnet.certify import NetworkPredictor, path
from mfresnet.data import Dataset, Split
from mfresnet.data.transform import Transform
from mfresnet.flow import AnnealingSchedule
from mfresnet.model import particle
from mfresnet.report import write_report
from mfresnet.runs import train

DATA = {"n": 24, "n_test": 16}
SMALL = {"depth": 2, "width": 4, "head_width": 4, "alpha": 2.0, "beta": 5.0}
QUIET = {"gram_every": 0, "landscape": False, "solver_error": False}


def split_of(x: np.ndarray, y: np.ndarray, n: int) -> Split:
    """Points on the sphere, the first ``n`` of them for training."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    names = tuple(str(column) for column in range(x.shape[1]))
    parts = (Dataset("toy", x[rows], y[rows, None], "binary", ("-", "+"), names) for rows in (slice(n), slice(n, None)))
    return Split(*parts, Transform("none", x.shape[1]), ())


def spirals(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two arms of one turn, lifted to the sphere."""
    rng = np.random.default_rng(0)
    y, t = rng.choice([-1.0, 1.0], size=n), rng.uniform(0.1, 1, size=n)
    arms = y[:, None] * t[:, None] * np.stack([np.cos(6 * t), np.sin(6 * t)], axis=1)
    return np.concatenate([arms, 0.5 * np.ones((n, 1))], axis=1), y


def sequences(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Three tokens of 4 numbers; the class is the sign of the first number of the token whose second is largest."""
    tokens = np.random.default_rng(0).normal(size=(n, 3, 4))
    chosen = np.argmax(tokens[:, :, 1], axis=1)
    return tokens.reshape(n, 12), np.sign(tokens[np.arange(n), chosen, 0])


def bars(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images of 5 x 5 with a horizontal or a vertical bar at a random place."""
    rng = np.random.default_rng(0)
    images, labels = 0.3 * rng.normal(size=(n, 5, 5)), rng.choice([-1.0, 1.0], size=n)
    for image, label in zip(images, labels, strict=True):
        place = rng.integers(5)
        image[(place, slice(None)) if label > 0 else (slice(None), place)] += 1.0
    return images.reshape(n, 25), labels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head", "data", "least"),
    [
        ("two-layer", "two-layer", spirals, 0.03),
        ("gated", "two-layer", spirals, 0.03),
        ("attention", "two-layer", sequences, 0.15),
        ("convolution", "convolution", bars, 0.03),
    ],
)
def test_every_shipped_kind_trains_to_a_stated_error(name, head, data, least):
    """Test error on 512 points of a network trained on 1024 (guessing: 0.5)."""
    model = {"particle": name, "head_particle": head, "depth": 4, "width": 16, "head_width": 64, "alpha": 4, "beta": 20}
    train = {"rule": "adam", "steps": 300, "learning_rate": 0.05}
    result = fit(Config(model=model, train=train, diagnostics=QUIET), split_of(*data(1536), 1024))
    print(name, head, result.summary["train.error"], result.summary["test.error"])
    assert result.summary["test.error"] < least


@pytest.fixture(scope="module")
def flowed(tmp_path_factory):
    """A run of gated particles in encoder and head, by the gradient flow with probes, in files."""
    folder = tmp_path_factory.mktemp("own") / "run"
    config = Config(
        data=DATA,
        model={**SMALL, "particle": "gated", "head_particle": "gated"},
        train={"solver": "heun", "steps": 20, "time": 20.0, "probes": 16, "head_probes": 128},
        record={"metrics_every": 10, "snapshots": 2},
    )
    return config, train(config, folder), folder


def test_a_run_measures_and_reports_them(flowed):
    folder = flowed[2]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed" and write_report(folder).is_file()
    assert summary["gram.residual"] < 1e-10  # the dissipation identity
    for part in ("encoder", "head"):
        assert summary[f"kl.{part}.value"] > -4 * summary[f"kl.{part}.stderr"]
        assert abs(summary[f"kl.{part}.check"] - 1) < 5 * summary[f"kl.{part}.check_stderr"] + 0.02
    assert {"landscape.lowest_head", "w2.encoder", "linearised.test.error"} <= set(summary)
    assert "gram.limit.lambda_min" not in summary  # of two-layer particles
    stored = json.loads((folder / "certificates.json").read_text())
    assert stored["certificates"]["pac_bayes"]["value"] > 0 and summary["certificate.pac_bayes.value"] > 0
    assert "for two-layer particles" in stored["refused"]["kl_ball"]


def test_sub_networks_of_them_are_certified(flowed):
    config, _, _ = flowed
    result = fit(config)
    found = certify(result, ["pac_bayes", "held_out"])
    assert found["pac_bayes"].value > 0 and 0 < found["held_out"].value < 1
    for name in ("kl_ball", "theorem6"):
        assert "for two-layer particles: use the PAC-Bayes" in certify(result, [name]).refused[name]


def test_the_path_certificate_of_them():
    kind = particle("gated", 3, 3)
    model = LayeredResNet.create(
        jax.random.key(0), inputs=3, depth=2, width=4, head_width=4, beta=5.0, particle=kind,
        head_particle=particle("gated", 3, 1),
    )  # fmt: skip
    x, y = spirals(256)
    y = np.sign(x[:, 0])
    f = NetworkPredictor(model)
    done = path(f, f.prior(), (x.astype("float32"), y), AnnealingSchedule.power(200.0, 300), jax.random.key(1))
    assert not done.certificate.vacuous
    assert done.prior.size == sum(leaf.size for leaf in jax.tree.leaves((model.encoder, model.head)))


def test_the_rule_langevin_trains_them():
    config = Config(
        data={"n": 32, "n_test": 16},
        model={**SMALL, "particle": "gated"},
        train={"rule": "langevin", "steps": 40},
        diagnostics=QUIET,
    )
    result = fit(config)
    certificate = certify(result)["path"]
    assert result.status == "completed" and 0 < certificate.value <= 1


def test_kl_by_hutchinson_agrees_with_the_exact_one():
    """The same probes on the same flow: the estimates differ by less than 5 standard errors of their difference."""
    gated = particle("gated", 3, 3)
    x, y = spirals(64)
    found = {}
    for name, directions in (("exact", None), ("estimate", 2)):
        kind = Particle(gated.function, gated.std, smooth=True, directions=directions)
        model = LayeredResNet.create(jax.random.key(0), inputs=3, depth=2, width=6, beta=5.0, particle=kind)
        found[name] = ratios(model, x, y)
    difference = found["estimate"] - found["exact"]
    assert 0 < np.abs(difference).mean() < np.abs(found["exact"]).mean() * 10
    assert abs(difference.mean()) < 5 * difference.std(ddof=1) / difference.size**0.5


def ratios(model, x, y):
    """R of each encoder probe after ten Heun steps."""
    from mfresnet.diagnostics.divergence import log_density_ratios
    from mfresnet.flow import Trainer, batch_of, flow
    from mfresnet.model import trainable

    trainer = Trainer(flow("heun", 0.2), trainable(model))
    begin = trainer.begin(model, jax.random.key(1), len(x), probes=(64, 4))
    end, _ = trainer.advance(begin, batch_of(x, y[:, None]), jax.random.key(2), 10, 10)
    ensemble = end.ensemble
    return log_density_ratios(ensemble.probes.encoder, ensemble.start.encoder, ensemble.log_ratio.encoder, (1, 1, 1))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"antithetic": True}, "model.antithetic is for two-layer particles"),
        ({"initial": {"u": 2.0}}, "model.initial.u belongs to two-layer particles"),
        ({"particle": "gate"}, "unknown particle 'gate': did you mean 'gated'"),
        ({"kind": "continuous"}, "has no meaning for a continuous model"),
        ({"particle": "convolution"}, "no square image"),
    ],
)
def test_settings_that_do_not_go_with_them(changes, sentence):
    with pytest.raises(MfresnetError, match=sentence):
        fit(Config(data=DATA, model={**SMALL, "particle": "gated", **changes}, train={"rule": "adam", "steps": 1}))


def kinked(state: int, outputs: int) -> Particle:
    """A factory of a user: its gradient jumps, and it says so."""
    return Particle(
        lambda z, theta: theta["u"] * jax.nn.relu(theta["w"] @ z), {"u": np.ones(outputs), "w": np.ones(state)}
    )


def misdeclared(state: int, outputs: int) -> Particle:
    """The same, which says that it does not."""
    kind = kinked(state, outputs)
    return Particle(kind.function, kind.std, smooth=True)


def test_particles_without_second_derivative():
    train = {"solver": "heun", "steps": 2, "time": 0.1, "probes": 2, "head_probes": 2}
    model = {**SMALL, "particle": f"{__name__}:misdeclared"}
    with pytest.raises(MfresnetError, match="jumps"):
        fit(Config(data=DATA, model=model, train=train, diagnostics=QUIET))
    model = {**SMALL, "particle": f"{__name__}:kinked"}
    result = fit(Config(data=DATA, model=model, train=train, diagnostics=QUIET))
    assert result.laws is None and any(note.startswith("KL: not measured") for note in result.messages)
    assert jnp.isfinite(result.summary["train.loss"])


def wide(state: int, outputs: int) -> Particle:
    """Some standard deviations far from 1."""
    std = {"u": np.ones(outputs), "w": 4 * np.ones(state)}
    return Particle(lambda z, theta: theta["u"] * jnp.tanh(theta["w"] @ z), std, smooth=True)


def still(state: int, outputs: int) -> Particle:
    """A part of the start without density."""
    return replace(wide(state, outputs), std={"u": np.ones(outputs), "w": np.zeros(state)})


def test_inequalities_know_the_start():
    """Talagrand's inequality holds with the largest standard deviation of the start, 4: W2^2 <= 32 KL, not 2 KL."""
    train = {"solver": "heun", "steps": 10, "time": 100.0, "probes": 32, "head_probes": 32}
    model = {**SMALL, "beta": 30.0, "particle": f"{__name__}:wide"}
    summary = fit(Config(data=DATA, model=model, train=train, diagnostics=QUIET)).summary
    assert summary["kl.encoder.displacement"] ** 2 > 2 * (
        summary["kl.encoder.value"] + 2 * summary["kl.encoder.stderr"]
    )
    assert summary["check.talagrand_encoder"]


def test_a_start_without_density_has_no_nearest_neighbour_kl():
    """W2 is still measured, and nothing divides by the deviation 0 (warnings are errors here)."""
    model = {**SMALL, "width": 8, "head_width": 8, "particle": f"{__name__}:still"}
    summary = fit(Config(data=DATA, model=model, train={"rule": "adam", "steps": 2}, diagnostics=QUIET)).summary
    assert summary["w2.encoder"] >= 0 and "kl.encoder.nearest_neighbour" not in summary
    assert "kl.head.nearest_neighbour" in summary
