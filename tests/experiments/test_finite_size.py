"""The finite-size experiment: its networks against naive loops and the trainer, its estimators against known errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.experiments import create, student
from mfresnet.experiments.finite_size.analysis import Errors, analyse, collect, fit, intervals, judge
from mfresnet.experiments.finite_size.embedding import embedding_power, kernels
from mfresnet.experiments.finite_size.network import train
from mfresnet.flow import Trainer, batch_of, flow
from mfresnet.model import Particles, ScaledResNet, activation, trainable

TINY = {
    "depth": "1,3", "width": "1,4", "reference": 6, "draws": 1, "seeds": 2, "points": 4, "dimension": "3",
    "inputs": 3, "precision": "float64", "embeddings": 1, "head_width": 5,
}  # fmt: skip


def naive(task, w, out, steps):
    """Theory, section 9, particle by particle and point by point; the gradient of |f - y|^2/(2 N C)."""
    w, out = np.array(w, float), np.array(out, float)
    (depth, state, width), n = w.shape, len(task.z)
    rate, gain = task.scales["rate"], task.scales["gain"]
    for step in range(steps + 1):
        z = [[np.array(v) for v in task.z]]
        for layer in range(depth):
            z.append([v.copy() for v in z[-1]])
            for i in range(n):
                for m in range(width):
                    z[-1][i] += out[layer, :, m] * np.tanh(gain * w[layer, :, m] @ z[layer][i]) / (depth * width)
        last = np.array(z[-1])
        if step == steps:
            return last
        if task.readout == "linear":
            f = last @ task.head / state
            p = [task.head @ v / (state * task.y.size) for v in f - task.y]
        else:
            p = list((last - task.y) / task.y.size)
        for layer in reversed(range(depth)):
            new_w, new_out, before = w[layer].copy(), out[layer].copy(), [v.copy() for v in p]
            for i in range(n):
                for m in range(width):
                    s = np.tanh(gain * w[layer, :, m] @ z[layer][i])
                    slope = gain * (out[layer, :, m] @ p[i]) * (1 - s**2)
                    new_out[:, m] -= rate * s * p[i]
                    new_w[:, m] -= rate * slope * z[layer][i]
                    before[i] += slope * w[layer, :, m] / (depth * width)
            w[layer], out[layer], p = new_w, new_out, before
    raise AssertionError


@pytest.mark.parametrize("preset", ["chizat", "embedding"])
def test_states_after_gradient_steps_are_those_of_the_naive_loops(preset):
    experiment = create("finite-size", TINY | {"preset": preset, "steps": 5})  # odd: the last pair is half
    cells = experiment.cells()
    rows = experiment.run(cells)
    for cell, row in zip(cells[::2], rows[::2], strict=True):
        expected = naive(experiment.problem(cell), *experiment.start(cell), 5)
        np.testing.assert_allclose(row["state"], expected.ravel(), rtol=1e-10, atol=1e-10)


def test_the_own_preset_follows_the_gradient_flow_of_the_trainer(x64):
    """Prediction after Euler steps of `flow` on the same `ScaledResNet`."""
    experiment = create("finite-size", TINY | {"preset": "own", "steps": 3, "alpha": 2.0, "step": 0.1})
    cell = {"draw": 0, "dimension": 3, "kind": "network", "depth": 3, "width": 4, "seed": 1}
    task, (w, out) = experiment.problem(cell), experiment.start(cell)
    w, out = np.float64(w).transpose(0, 2, 1), np.float64(out).transpose(0, 2, 1)
    encoder = Particles(*(jnp.asarray(v) for v in (out, w[..., :-1], w[..., -1])))
    head = Particles(*(jnp.asarray(v) for v in task.head))
    model = ScaledResNet(encoder, head, None, jnp.asarray(2.0), jnp.asarray(4.0), activation("tanh"), 3)
    trainer = Trainer(flow("euler", task.scales["head_rate"]), trainable(model))
    data = batch_of(task.z, task.y, "float64")
    state, _ = trainer.advance(trainer.begin(model, jax.random.key(0), 4), data, jax.random.key(0), 3, 3)
    row = experiment.run([cell])[0]
    np.testing.assert_allclose(row["state"], np.ravel(state.model(data.x)), rtol=1e-10)


def test_a_network_does_not_depend_on_what_runs_beside_it_and_one_program_serves_all_sizes():
    # a number of points that no other test has, so that nothing is compiled yet
    experiment = create("finite-size", TINY | {"depth": "1,2,3", "precision": "float32", "points": 7})
    cells = experiment.cells()
    before = train._cache_size()
    together = experiment.run(cells)
    assert train._cache_size() - before == 2  # the reference's and that of all widths up to 10
    alone = experiment.run(cells[3:4])[0]
    # another number of networks is another program, whose sums may be ordered otherwise
    np.testing.assert_allclose(alone["state"], together[3]["state"], rtol=1e-5, atol=1e-6)


def planted(c1=0.3, c2=0.2, seeds=5, entries=100):
    """Errors with known bias c1/L and sampling error c2 sqrt(D)/sqrt(L M), D = 4, against an exact reference."""
    rng, direction = np.random.default_rng(0), np.random.default_rng(1).normal(size=entries)
    direction *= np.sqrt(entries) / np.linalg.norm(direction)
    sizes = [(depth, width) for depth in (10, 32, 100) for width in (10, 100, 1000)]
    products = []
    for depth, width in sizes:
        noise = rng.normal(size=(seeds, entries)) * c2 * np.sqrt(4 / (depth * width))
        e = c1 * (1 / depth - 1e-8) * direction + noise
        products.append(e @ e.T / entries)
    depth, width = np.array(sizes, float).T
    return Errors(depth, width, np.array(products))


def test_planted_bias_and_sampling_error_are_found_apart():
    errors = planted()
    found = fit([((0, 4), errors, errors.parts())], 10**8, 10)
    # 9 sizes of 5 seeds with 100 entries: the sampling variance is known to about 7 % each
    assert found["bias.L"] == pytest.approx(1, abs=0.05)
    assert found["sampling.L"] == pytest.approx(0.5, abs=0.05)
    assert found["sampling.M"] == pytest.approx(0.5, abs=0.03)
    total, sampling, bias = errors.parts()
    np.testing.assert_allclose(total, sampling + bias, rtol=1e-12)


def test_a_seed_that_is_counted_twice_makes_no_pair_with_itself():
    """Means over the pairs of distinct seeds, weighted by how often each pair was drawn."""
    errors, weights = planted(), [2, 2, 1, 0, 0]
    _, sampling, bias = errors.parts(np.array([weights] * 9))
    pairs = [(s, t) for s in range(5) for t in range(5) if s != t]
    times = [weights[s] * weights[t] for s, t in pairs]
    p = errors.products
    apart = [(p[:, s, s] + p[:, t, t] - 2 * p[:, s, t]) / 2 for s, t in pairs]
    np.testing.assert_allclose(sampling, np.average(apart, axis=0, weights=times), rtol=1e-12)
    np.testing.assert_allclose(bias, np.average([p[:, s, t] for s, t in pairs], axis=0, weights=times), rtol=1e-12)


def test_a_reference_with_errors_of_its_own():
    """Its bias c1/L_ref is in the regressor and its sampling error, which all products share, is taken off."""
    reference, c1, c2, entries = 300, 0.3, 0.3, 1000
    rng, families = np.random.default_rng(2), []
    direction = np.ones(entries)
    for draw in range(4):
        own = rng.normal(size=entries) * c2 * 2 / reference
        products, sizes = [], [(depth, width) for depth in (10, 32, 100) for width in (100, 300, 1000)]
        for depth, width in sizes:
            noise = rng.normal(size=(5, entries)) * c2 * np.sqrt(4 / (depth * width))
            e = c1 * (1 / depth - 1 / reference) * direction + noise - own
            products.append(e @ e.T / entries)
        depth, width = np.array(sizes, float).T
        errors = Errors(depth, width, np.array(products))
        families.append(((draw, 4), errors, errors.parts()))
    found = fit(families, reference, 10)
    # at L = 100 its sampling error c2 sqrt(D)/L_ref and the bias are both 0.002
    assert found["bias.L"] == pytest.approx(1, abs=0.1)
    blind = [
        (family, errors, (total, np.full_like(bias, 1e-20), bias)) for family, errors, (total, _, bias) in families
    ]
    assert fit(blind, reference, 10)["bias.L"] < 0.9  # where it is not taken off, it looks like a bias


@pytest.mark.parametrize(
    ("bias", "half", "expected"),
    [
        (1.05, 0.08, True),
        (1.05, 0.15, None),
        (0.8, 0.1, False),
        (0.8, 0.3, None),
        (np.nan, 0.1, None),
        (1, np.nan, None),
    ],
)
def test_verdicts(bias, half, expected):
    estimates = {"bias.L": bias, "sampling.L": 0.5, "sampling.M": 0.52}
    spread = {name: (value - 0.05, value + 0.05) for name, value in estimates.items()}
    assert judge(estimates, spread | {"bias.L": (bias - half, bias + half)})[0] is expected


def embedded(draws: int, power: float, embeddings: int = 20) -> list[dict]:
    """References whose kernels z z^T/D scatter like D^-power: Gaussian z (1/2), scaled."""
    rng = np.random.default_rng(3)
    return [
        {"kind": "reference", "draw": draw, "dimension": d, "state": rng.normal(size=4 * d) * d ** ((0.5 - power) / 2)}
        for draw in range(draws)
        for d in (16, 64, 256)
        for _ in range(embeddings)
    ]


@pytest.mark.parametrize(("power", "expected"), [(0.5, True), (1.0, False)])
@pytest.mark.parametrize("draws", [1, 6])
def test_the_power_of_the_embedding_is_found_and_judged(draws, power, expected):
    """10 entries of 20 kernels fix a spread to 5 %, and the power over a factor 16 in D to 0.03 a draw."""
    settings = create("finite-size", TINY).settings
    found = kernels(embedded(draws, power), settings)
    value, (low, high) = embedding_power(found, 200)
    assert value == pytest.approx(power, abs=0.1) and low < value < high < low + 0.2
    others = {"bias.L": 1.0, "sampling.L": 0.5, "sampling.M": 0.5}
    spread = {name: (v - 0.05, v + 0.05) for name, v in others.items()} | {"embedding.D": (low, high)}
    passed, sentence = judge(others | {"embedding.D": value}, spread, others | {"embedding.D": 0.5})
    assert passed is expected and "1, 1/2, 1/2, 1/2" in sentence
    assert embedding_power({f: g for f, g in found.items() if f[1] == 16}, 200)[1] == pytest.approx(
        (np.nan, np.nan), nan_ok=True
    )


def test_intervals_over_draws_are_students():
    settings = create("finite-size", TINY).settings.model_copy(update={"reference": 10**8, "least": 10})
    found = {(draw, 4): planted(c1=c1) for draw, c1 in enumerate((0.3, 0.4, 0.5))}
    fits = [fit([(family, errors, errors.parts())], 10**8, 10) for family, errors in found.items()]
    mean, half = student([one["bias.L"] for one in fits])
    assert intervals(found, settings)["bias.L"] == pytest.approx((mean - half, mean + half))


def test_analysis_of_a_small_experiment_and_of_cells_that_diverged():
    experiment = create("finite-size", TINY | {"depth": "1,2,4", "least": 1, "bootstrap": 100, "steps": 2})
    cells = experiment.cells()
    rows = [cell | row for cell, row in zip(cells, experiment.run(cells), strict=True)]
    result = experiment.analyse(rows)
    assert {"bias.L", "sampling.L", "sampling.M", "c1", "c2"} <= result.fit.keys()
    low, high = result.fit["sampling.M"]["interval_95"]
    assert low <= result.fit["sampling.M"]["value"] <= high
    rows[4] |= {"status": "diverged", "state": None}
    assert any("1 of 13 cells diverged" in note for note in experiment.analyse(rows).notes)
    assert analyse(experiment.settings, rows[1:]).passed is None  # without its reference a draw says nothing
    assert collect(rows[1:4]) == {}


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match=r"reference = 4 is not larger than the largest network \(4\)"):
        create("finite-size", TINY | {"reference": 4})
    with pytest.raises(ValueError, match="depth is empty"):
        create("finite-size", TINY | {"depth": ""})
