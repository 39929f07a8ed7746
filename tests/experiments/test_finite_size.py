"""The finite-size experiment: its networks against naive loops and the trainer, its estimators against known errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.experiments import create
from mfresnet.experiments.finite_size.analysis import analyse, judge, samples
from mfresnet.experiments.finite_size.embedding import embedding_powers, kernels
from mfresnet.experiments.finite_size.errors import Errors, collect
from mfresnet.experiments.finite_size.fits import FITTED, fit
from mfresnet.experiments.finite_size.network import train
from mfresnet.flow import Trainer, batch_of, flow
from mfresnet.model import LayeredResNet, Particles, activation, trainable
from mfresnet.stats import student

TINY = {
    "depth": "1,3", "width": "1,4", "reference": 6, "draws": 1, "seeds": 2, "points": 4, "dimension": "3",
    "inputs": 3, "precision": "float64", "embeddings": 1, "head_width": 5,
}  # fmt: skip


def naive(task, w, out, steps):
    """[Ch25] particle by particle and point by point; the gradient of |f - y|^2/(2 N C)."""
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
    """Prediction after Euler steps of `flow` on the same `LayeredResNet`."""
    experiment = create("finite-size", TINY | {"preset": "own", "steps": 3, "alpha": 2.0, "step": 0.1})
    cell = {"draw": 0, "dimension": 3, "kind": "network", "depth": 3, "width": 4, "seed": 1}
    task, (w, out) = experiment.problem(cell), experiment.start(cell)
    w, out = np.float64(w).transpose(0, 2, 1), np.float64(out).transpose(0, 2, 1)
    encoder = Particles(*(jnp.asarray(v) for v in (out, w[..., :-1], w[..., -1])))
    head = Particles(*(jnp.asarray(v) for v in task.head))
    model = LayeredResNet(encoder, head, None, jnp.asarray(2.0), jnp.asarray(4.0), activation("tanh"), 3)
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


def planted(c1=0.3, c2=0.2, seeds=5, entries=100, seed=0, reference=10**8):
    """Errors with known bias c1/L and sampling error c2 sqrt(D)/sqrt(L M), D = 4, of networks and reference."""
    rng, direction = np.random.default_rng(seed), np.random.default_rng(1).normal(size=entries)
    direction *= np.sqrt(entries) / np.linalg.norm(direction)
    sizes = [(depth, width) for depth in (10, 32, 100) for width in (10, 100, 1000)]
    own, products = rng.normal(size=entries) * c2 * 2 / reference, []
    for depth, width in sizes:
        noise = rng.normal(size=(seeds, entries)) * c2 * np.sqrt(4 / (depth * width))
        e = c1 * (1 / depth - 1 / reference) * direction + noise - own
        products.append(e @ e.T / entries)
    depth, width = np.array(sizes, float).T
    return Errors(depth, width, np.array(products), entries)


def fitted(errors, reference=10**8, dimension=4):
    return dict(zip(FITTED, fit({(0, dimension): errors}, (reference, reference), 10), strict=True))


def test_planted_bias_and_sampling_error_are_found_apart():
    errors = planted()
    found = fitted(errors)
    # 9 sizes of 5 seeds with 100 entries: the sampling variance is known to about 7 % each
    assert found["bias.L"] == pytest.approx(1, abs=0.05)
    assert found["sampling.L"] == pytest.approx(0.5, abs=0.05)
    assert found["sampling.M"] == pytest.approx(0.5, abs=0.03)
    total, sampling, bias = errors.parts()
    np.testing.assert_allclose(total, sampling + bias, rtol=1e-12)


@pytest.mark.parametrize(("c1", "c2", "reference"), [(0.15, 0.2, 10**8), (0.15, 0.5, 10**8), (0.3, 0.2, 300)])
def test_planted_constants_are_found_to_ten_per_cent(c1, c2, reference):
    """A linear fit of c1/L + c2 sqrt(D/LM) to the error, whose parts add in quadrature, finds 0.10 and 0.07 for 0.15.

    Data sets spread by 3 % where the reference is exact; one of depth and width 300 adds 5 %, so their mean is judged.
    """
    values = [fitted(planted(c1, c2, seed=seed, reference=reference), reference) for seed in range(5)]
    own = np.array([[found["c1"], found["c2"]] for found in values])
    own = own if reference > 300 else own.mean(axis=0)
    np.testing.assert_allclose(own, np.broadcast_to([c1, c2], own.shape), rtol=0.1)


def test_bias_and_sampling_error_are_unbiased():
    """The definition: means over pairs of distinct seeds; for no bias at all bias^2 is negative half of the time."""
    errors = planted()
    pairs = [(s, t) for s in range(5) for t in range(5) if s != t]
    p = errors.products
    _, sampling, bias = errors.parts()
    np.testing.assert_allclose(bias, np.mean([p[:, s, t] for s, t in pairs], axis=0), rtol=1e-12)
    apart = [(p[:, s, s] + p[:, t, t] - 2 * p[:, s, t]) / 2 for s, t in pairs]
    np.testing.assert_allclose(sampling, np.mean(apart, axis=0), rtol=1e-12)
    signs = np.concatenate([planted(c1=0.0, seed=seed).parts()[2] for seed in range(20)]) < 0
    assert abs(signs.sum() - 90) < 5 * np.sqrt(180 / 4)  # 180 estimates, 5 standard deviations
    alone = errors.of_seeds(np.array([1, 3]))
    np.testing.assert_allclose(alone.parts()[2], p[:, 1, 3], rtol=1e-12)


def test_a_reference_with_errors_of_its_own():
    """Its bias c1/L_ref is in the regressor and its sampling error, which all products share, is taken off."""
    reference, c1, c2, entries = 300, 0.3, 0.3, 1000
    rng, powers, blind = np.random.default_rng(2), [], []
    direction = np.ones(entries)
    for _ in range(4):
        own = rng.normal(size=entries) * c2 * 2 / reference
        products, sizes = [], [(depth, width) for depth in (10, 32, 100) for width in (100, 300, 1000)]
        for depth, width in sizes:
            noise = rng.normal(size=(5, entries)) * c2 * np.sqrt(4 / (depth * width))
            e = c1 * (1 / depth - 1 / reference) * direction + noise - own
            products.append(e @ e.T / entries)
        depth, width = np.array(sizes, float).T
        errors = Errors(depth, width, np.array(products), entries)
        powers.append(fitted(errors, reference)["bias.L"])
        # a reference said to be wider has hardly a sampling error to take off
        blind.append(fit({(0, 4): errors}, (reference, 10**9), 10)[0])
    # at L = 100 its sampling error c2 sqrt(D)/L_ref and the bias are both 0.002
    assert np.mean(powers) == pytest.approx(1, abs=0.1)
    assert np.mean(blind) < 0.9  # where it is not taken off, it looks like a bias


@pytest.mark.parametrize(
    ("bias", "half", "expected"),
    [
        (1.0, 0.05, True),
        (1.05, 0.15, None),
        (0.7, 0.05, False),
        (0.8, 0.3, None),
        (1, np.nan, None),
    ],
)
def test_verdicts(bias, half, expected):
    """Three draws with the given mean and half-width of the 90 % interval, which two one-sided tests at 5 % compare."""
    spread = half * np.sqrt(3) / 2.92  # t quantile of two degrees of freedom
    values = {name: power + np.array([-0.01, 0.0, 0.01]) for name, power in (("sampling.L", 0.5), ("sampling.M", 0.52))}
    values["bias.L"] = bias + spread * np.array([-1.0, 0.0, 1.0])
    assert judge(values)[0] is expected


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
    values = embedding_powers(found)
    mean, half = student(values)
    assert mean == pytest.approx(power, abs=0.1) and half < 0.12
    others = {name: v + np.array([-0.01, 0.01]) for name, v in {"bias.L": 1.0, "sampling.L": 0.5}.items()}
    theory = {"bias.L": 1.0, "sampling.L": 0.5, "embedding.D": 0.5}
    passed, sentence = judge(others | {"embedding.D": values}, theory)
    assert passed is expected and "1, 1/2, 1/2" in sentence
    assert len(embedding_powers({f: g for f, g in found.items() if f[1] == 16})) == 0


def test_values_and_intervals_are_of_one_estimator():
    """The mean over draws, or over the jackknife of one draw's seeds, which has the single fit in its interval."""
    settings = create("finite-size", TINY).settings.model_copy(update={"reference": 10**8, "least": 10})
    errors = {(draw, 4): planted(c1=c1, seed=draw) for draw, c1 in enumerate((0.3, 0.4, 0.5))}
    each = [fitted(group)["c1"] for group in errors.values()]
    np.testing.assert_allclose(samples(errors, settings)["c1"], each)
    one = samples({(0, 4): errors[0, 4]}, settings)
    for name, values in one.items():
        mean, half = student(values)
        assert len(values) == 5 and abs(mean - fitted(errors[0, 4])[name]) < half


def test_analysis_of_a_small_experiment_and_of_cells_that_diverged():
    experiment = create("finite-size", TINY | {"depth": "1,2,4", "least": 1, "seeds": 3, "steps": 2})
    cells = experiment.cells()
    rows = [cell | row for cell, row in zip(cells, experiment.run(cells), strict=True)]
    result = experiment.analyse(rows)
    assert {"bias.L", "sampling.L", "sampling.M", "c1", "c2"} <= result.fit.keys()
    low, high = result.fit["sampling.M"]["interval_95"]
    assert low <= result.fit["sampling.M"]["value"] <= high
    rows[4] |= {"status": "diverged", "state": None}
    assert any("1 of 19 cells diverged" in note for note in experiment.analyse(rows).notes)
    assert analyse(experiment.settings, rows[1:]).passed is None  # without its reference a draw says nothing
    assert collect(rows[1:4]) == {}


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match=r"reference = 3 is not larger than the deepest network \(3\)"):
        create("finite-size", TINY | {"reference": 3})
    with pytest.raises(ValueError, match=r"reference_width = 3 is smaller than the widest network \(4\)"):
        create("finite-size", TINY | {"reference_width": 3})
    with pytest.raises(ValueError, match="depth is empty"):
        create("finite-size", TINY | {"depth": ""})
