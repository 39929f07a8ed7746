"""Transforms: formulas, fit on training rows only, exact record."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mfresnet.data import Transform
from mfresnet.errors import MfresnetError

rng = np.random.default_rng(0)
X = rng.standard_normal((20, 3)) * [1.0, 100.0, 1e-3] + [0.0, 5.0, 1.0]


def naive(kind, standardise, train, x):
    if standardise:
        mean, std = train.mean(axis=0), train.std(axis=0)
        train, x = (train - mean) / std, (x - mean) / std
    rows = []
    for row in x:
        if kind == "sphere":
            row = row / np.sqrt(sum(v * v for v in row))
        elif kind == "lift":
            row = np.append(row, 1.0) / np.sqrt(sum(v * v for v in row) + 1)
        elif kind == "max":
            row = row / max(np.sqrt(sum(v * v for v in r)) for r in train)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("kind", ["sphere", "lift", "max", "none"])
@pytest.mark.parametrize("standardise", [False, True])
def test_matches_the_formula_and_survives_json(kind, standardise):
    new = rng.standard_normal((5, 3))
    transform = Transform.fit(kind, X, standardise=standardise, regression_target=np.array([2.0, 6.0]))
    np.testing.assert_allclose(transform.apply(new), naive(kind, standardise, X, new), rtol=1e-12)
    again = Transform.from_dict(json.loads(json.dumps(transform.to_dict())))
    assert again.apply(new).tobytes() == transform.apply(new).tobytes()
    assert again.to_dict() == transform.to_dict()
    assert again.describe() == transform.describe() and transform.describe().count(".") >= 1
    np.testing.assert_allclose(transform.apply_target(np.array([2.0, 4.0, 6.0])), [-1, 0, 1])
    np.testing.assert_allclose(transform.invert_target(transform.apply_target(np.array([2.5]))), [2.5])


def test_constant_columns_have_deviation_one():
    x = np.column_stack([np.full(7, 0.1), np.arange(7.0)])
    transform = Transform.fit("none", x, standardise=True)
    assert transform.std is not None and transform.std[0] == 1.0
    assert np.all(transform.apply(x)[:, 0] == 0.0)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-1e150, 1e150, allow_subnormal=True),
    ),
    st.sampled_from(["sphere", "lift", "max", "none"]),
    st.booleans(),
)
def test_every_finite_table_gives_finite_numbers_or_a_sentence(x, kind, standardise):
    try:
        out = Transform.fit(kind, x, standardise=standardise).apply(x)
    except MfresnetError:
        return
    assert np.isfinite(out).all()
    if kind in ("sphere", "lift"):
        np.testing.assert_allclose(np.sum(out**2, axis=1), 1.0, rtol=1e-12)
    if kind == "max":
        assert np.max(np.sum(out**2, axis=1)) <= 1 + 1e-12


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Transform("sphere", 2).apply(np.array([[1.0, 0], [0, 0]]), "training row"), "training row 1 is zero"),
        (lambda: Transform.fit("max", np.zeros((2, 2))), "every training row is zero"),
        (lambda: Transform.fit("spher", np.eye(2)), "did you mean 'sphere'"),
        (lambda: Transform("none", 2).apply(np.zeros((1, 3))), r"shape \(n, 2\) expected"),
        (lambda: Transform("none", 1).apply(np.array([[np.nan]]), "test row"), "test row 0 is not finite"),
        (lambda: Transform.fit("none", np.eye(2), regression_target=np.ones(2)), "single value 1"),
        (lambda: Transform.from_dict({"kind": "sphere"}), "not a recorded transform"),
        (lambda: Transform.from_dict({**Transform("none", 2).to_dict(), "mean": [1.0]}), "must have length 2"),
    ],
)
def test_mistakes_are_named(act, message):
    with pytest.raises(MfresnetError, match=message):
        act()
