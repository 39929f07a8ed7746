"""The answer of each experiment on rows whose answer is known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from mfresnet import MfresnetError
from mfresnet.experiments import create


def rate_rows(errors: dict[int, list[float]], test_n: int = 1000) -> list[dict]:
    return [
        {"data.n": n, "seed": s, "status": "completed", "test.error": e, "test.n": test_n, "task": "binary"}
        for n, column in errors.items()
        for s, e in enumerate(column)
    ]


def test_rate_of_a_known_power_law():
    noise = np.random.default_rng(0).normal(size=(6, 4))
    errors = {n: list(2 * n**-0.8 * np.exp(0.05 * noise[k])) for k, n in enumerate((8, 16, 32, 64, 128, 256))}
    result = create("rate", {"seeds": 4}).analyse(rate_rows(errors))
    assert result.fit["slope"] == pytest.approx(-0.8, abs=0.05)
    low, high = result.fit["interval_95"]
    assert low < -0.8 < high and high - low < 0.2
    assert result.fit["fit_of_means"]["p"] < 1e-4 and result.passed and result.fit["zero_cells"] == 0
    assert "[C24] reports -1.02, as recalled" in result.verdict and "recalled" in result.fit["reported"]["source"]
    other = create("rate", {"data": {"name": "breast-cancer"}}).analyse(rate_rows(errors))
    assert "[C24]" not in other.verdict and "reported" not in other.fit


def test_the_interval_of_the_rate_covers():
    """95 % of the intervals over 3 seeds hold the slope: 400 trials, 5 standard deviations of a binomial.

    (A percentile bootstrap of 3 seeds covers 75 %.)
    """
    rng, experiment, sizes, hits = np.random.default_rng(4), create("rate"), (8, 16, 32, 64), 0
    for _ in range(400):
        errors = {n: list(2 * n**-0.8 * np.exp(0.2 * rng.normal(size=3))) for n in sizes}
        low, high = experiment.analyse(rate_rows(errors)).fit["interval_95"]
        hits += low <= -0.8 <= high
    assert abs(hits - 380) < 5 * np.sqrt(400 * 0.95 * 0.05)


def test_rate_of_one_seed_or_one_size_has_no_interval_and_no_verdict():
    result = create("rate").analyse(rate_rows({8: [0.2], 16: [0.1], 32: [0.05]}))
    assert result.passed is None and "of one seed, which has no interval" in result.verdict
    one = create("rate").analyse(rate_rows({8: [0.2, 0.3]}))
    assert one.passed is None and one.verdict.startswith("no power of n can be fitted") and "nan" not in one.verdict


def test_rate_of_a_regression_counts_no_half_mistakes():
    rows = [row | {"task": "regression"} for row in rate_rows({8: [0.2, 0.2], 16: [0.1, 0.0], 32: [0.05, 0.05]})]
    result = create("rate").analyse(rows)
    assert result.points[1]["test.error"] == pytest.approx(0.05)
    assert any("1 of 6 cells have an error of exactly 0" in note for note in result.notes)
    assert not any("mistake" in note for note in result.notes)


def test_rate_counts_no_mistake_as_half_a_mistake():
    errors = {8: [0.2, 0.2], 16: [0.1, 0.1], 32: [0.002, 0.0]}
    result = create("rate", {"seeds": 2}).analyse(rate_rows(errors, test_n=500))
    assert result.fit["zero_cells"] == 1
    assert result.points[-1]["test.error"] == pytest.approx((0.002 + 1 / 1000) / 2)
    assert any("1 of 6 cells made no mistake on 500 test points" in note for note in result.notes)


def test_rate_without_an_effect_decides_nothing_and_a_growing_error_fails():
    noise = np.random.default_rng(1).normal(size=(6, 3))
    errors = {n: list(0.2 * np.exp(0.1 * noise[k])) for k, n in enumerate((8, 16, 32, 64, 128, 256))}
    assert create("rate").analyse(rate_rows(errors)).passed is None
    growing = {n: [errors[n][k] * n**0.5 / 20 for k in range(3)] for n in errors}
    assert create("rate").analyse(rate_rows(growing)).passed is False


def test_kl_of_a_known_law():
    rows = [
        {
            "betabar": b,
            "seed": s,
            "status": "completed",
            "train.loss": 0.1,
            "kl_head": (1 + 0.1 * s) * b**-2.0,
            "kl_head_end": b**-2.0,
            "kl_encoder": b**-4.0,
            "kl_encoder_end": b**-4.0,
            "C_head": 0.5,
            "C_encoder": 0.1 * s,
        }
        for s in range(3)
        for b in (1.0, 10.0, 100.0)
    ]
    result = create("kl").analyse(rows)
    assert result.fit["slope_head"] == pytest.approx(-2) and result.fit["slope_encoder"] == pytest.approx(-4)
    assert result.fit["half_width_95_head"] == pytest.approx(0, abs=1e-10)
    assert result.fit["C_hat_encoder"] == pytest.approx(0.2) and result.passed
    slow = [{**row, "kl_head": row["betabar"] ** -1.0} for row in rows]
    assert create("kl").analyse(slow).passed is False
    scattered = [{**row, "kl_head": row["betabar"] ** (-2.0 + 0.5 * (row["seed"] - 1))} for row in rows]
    assert create("kl").analyse(scattered).passed is None  # -2 +- 1.2
    assert create("kl").analyse([row for row in rows if row["seed"] == 0]).passed is None  # no interval


def transfer_rows(best, seeds=1, noise=0.0) -> list[dict]:
    """Losses with a minimum at the rate of index ``best(scaling, axis, place)``; ``noise`` of the log, seed by seed."""
    rng = np.random.default_rng(0)
    settings = create("transfer", {"seeds": seeds, "horizons": "10", "decays": "none"})
    rates = sorted({cell["train.learning_rate"] for cell in settings.cells()})
    sizes = {
        axis: sorted({c[f"model.{axis}"] for c in settings.cells() if c["axis"] == axis}) for axis in ("depth", "width")
    }
    rows = []
    for cell in settings.cells():
        place = sizes[cell["axis"]].index(cell[f"model.{cell['axis']}"])
        off = rates.index(cell["train.learning_rate"]) - best(cell["scaling"], cell["axis"], place)
        rows.append({**cell, "status": "completed", "train.loss": (0.1 + off**2) * np.exp(noise * rng.normal())})
    return rows


def test_transfer_verdict():
    moves = {"mean-field": 0, "standard": 2}
    result = create("transfer").analyse(transfer_rows(lambda scaling, axis, place: 6 - moves[scaling] * place))
    assert result.passed
    assert set(result.fit["moves"].values()) == {0, 4}
    moving = partial(transfer_rows, lambda s, axis, place: 3 + (axis == "depth") * place)
    assert create("transfer").analyse(moving()).passed is None  # one seed excludes nothing
    told = create("transfer").analyse(moving(3, 0.05))
    assert told.passed is False
    assert all(point["rates_95"] == [point["best_rate"]] for point in told.points)
    untold = create("transfer").analyse(moving(3, 2.0))  # factors of 7 from seed to seed
    assert untold.passed is None and any(len(point["rates_95"]) > 1 for point in untold.points)
    at_edge = create("transfer").analyse(transfer_rows(lambda s, axis, place: 0 if s == "mean-field" else 3))
    assert set(at_edge.fit["moves"].values()) == {0} and at_edge.passed is None  # the best may lie further out
    assert [note for note in at_edge.notes if note.startswith("6 of 6 best rates of the mean-field scaling lie at")]
    beyond = create("transfer").analyse(transfer_rows(lambda s, axis, place: 0 if s == "standard" else 3))
    assert beyond.passed and "standard scaling lie at the edge" in beyond.notes[0]
    rows = [row for row in transfer_rows(lambda s, axis, place: 3) if row["axis"] == "width" or row["model.depth"] == 4]
    assert create("transfer").analyse(rows).passed is None  # one depth moves nowhere


def test_transfer_scalings_are_what_they_say():
    """At the start f and z of the standard network are plain sums; its learning-rate factors undo the mass."""
    experiment = create("transfer", {"train": {"rule": "sgd"}})
    cell = next(c for c in experiment.cells() if c["scaling"] == "standard" and c["model.depth"] == 64)
    config = experiment.config(cell)
    depth, width = config.model.depth, config.model.width
    assert config.model.alpha / (depth * width) == 1 and config.model.beta / config.model.head_width == 1
    assert config.model.initial.u**2 * width == pytest.approx(1) and config.model.initial.a**2 * width == pytest.approx(
        1
    )
    assert config.train.encoder_rate * depth * width == pytest.approx(1)
    assert config.train.head_rate * config.model.head_width == pytest.approx(1)


def test_phase_takes_the_mean_over_seeds():
    def row(alpha, beta, seed, change):
        return {
            "model.alpha": alpha,
            "model.beta": beta,
            "seed": seed,
            "status": "completed",
            "kernel_change": change,
            "features": change,
            "displacement.encoder": change,
            "train.loss": 0.1,
            "test.error": 0.1,
        }

    changes = {(1.0, 1.0): (0.5, 0.7), (1.0, 10.0): (0.01, 0.05)}
    rows = [row(*at, seed, change) for at, both in changes.items() for seed, change in enumerate(both)]
    result = create("phase").analyse(rows)
    points = result.points
    assert [point["seeds_agreeing"] for point in points] == [1, 2]  # 0.5 is not yet feature learning
    assert result.notes[-1] == "At 1 of 2 points the seeds disagree; the word is that of their mean."
    assert [point["regime"] for point in points] == ["feature learning", "lazy"]
    assert points[0]["kernel_change"] == pytest.approx(0.6)
    # Student with one degree of freedom: t = 12.706, sd/sqrt(2) = 0.1
    assert points[0]["kernel_change_half_width_95"] == pytest.approx(1.2706, rel=1e-4)


def test_grid_has_each_value_once():
    assert len(create("grid", {"set": ["model.alpha=1,1.0,2"], "seeds": 1}).cells()) == 2


def test_table_is_judged_by_mean_field_training_alone():
    def passed(**differences):
        rows = [
            {"row": "resnet20", "rule": rule, "seed": s, "status": "completed", "test_error": 0.1 + by + 1e-4 * s * by}
            for rule, by in {"plain": 0.0, **differences}.items()
            for s in range(seeds)
        ]
        return create("table1").analyse(rows).passed

    seeds = 3
    assert passed(**{"mean-field": -0.01}) is True
    assert passed(**{"mean-field": 0.01}) is False
    assert passed(**{"mean-field": -0.01, "shuffled": 0.01}) is True
    assert passed(shuffled=-0.01) is None
    seeds = 1
    assert passed(**{"mean-field": -0.01}) is None


def test_grid_names_the_best_point():
    experiment = create("grid", {"set": ["train.learning_rate=0.01,0.1", "model.alpha=1,2"], "seeds": 2})
    rows = [
        {**cell, "status": "completed", "test.error": 0.1 * cell["model.alpha"] + cell["train.learning_rate"]}
        for cell in experiment.cells()
    ]
    assert "train.learning_rate = 0.01, model.alpha = 1.0" in experiment.analyse(rows).verdict
    rows[0] |= {"status": "diverged"}  # a point that lost a seed is not the best
    assert "train.learning_rate = 0.1, model.alpha = 1.0" in experiment.analyse(rows).verdict


def test_slope_of_the_certificate_against_n():
    """Rows with certificate = 3/n, for which least squares is exact; the interval of a perfect line has no width."""
    sweep = create("certificate", {"set": ["data.n=8,16,64", "train.freeze=none,encoder"], "seeds": 1})
    rows = [
        {
            **cell,
            "status": "completed",
            "certificate": 3 / cell["data.n"] ** (1 if cell["train.freeze"] == "none" else 0.5),
        }
        for cell in sweep.cells()
    ]
    fit = sweep.analyse(rows).fit
    np.testing.assert_allclose(fit["slope train.freeze = none"], [-1, -1, -1], atol=1e-9)
    np.testing.assert_allclose(fit["slope train.freeze = encoder"], [-0.5, -0.5, -0.5], atol=1e-9)
    assert "least certificate: 0.04688" in sweep.analyse(rows).verdict  # 3/64


def test_certificate_sweep_trains_langevin_chains_only():
    with pytest.raises(MfresnetError, match="gives no path certificate"):
        create("certificate", {"train": {"rule": "adam"}})


def test_certificate_sweep_takes_what_the_chain_and_the_labels_are():
    """Last inverse temperature, noise, scales and sizes are axes like the number of points."""
    sets = ["train.gamma=50,200", "data.label_noise=0,0.5", "model.alpha=1,5", "model.beta=60,120", "model.depth=2,5"]
    cells = create("certificate", {"set": sets, "seeds": 1}).cells()
    assert len(cells) == 32 and {cell["train.gamma"] for cell in cells} == {50.0, 200.0}
