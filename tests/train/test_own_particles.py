"""Particles of every kind through training, certificates and files; each shipped kind trains to a stated error."""

import jax
import numpy as np
import pytest

from mfresnet import Config, LayeredResNet, MfresnetError, Particle, fit
from mfresnet.certify import NetworkPredictor, path
from mfresnet.flow import AnnealingSchedule
from mfresnet.model import particle

DATA = {"n": 24, "n_test": 16}
SMALL = {"depth": 2, "width": 4, "head_width": 4, "alpha": 2.0, "beta": 5.0}
QUIET = {"gram_every": 0, "landscape": False, "solver_error": False}


def spirals(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two arms of one turn, lifted to the sphere."""
    rng = np.random.default_rng(0)
    y, t = rng.choice([-1.0, 1.0], size=n), rng.uniform(0.1, 1, size=n)
    arms = y[:, None] * t[:, None] * np.stack([np.cos(6 * t), np.sin(6 * t)], axis=1)
    return np.concatenate([arms, 0.5 * np.ones((n, 1))], axis=1), y


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
    assert fit(config).status == "completed"


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
