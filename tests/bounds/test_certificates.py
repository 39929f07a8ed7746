"""Certificates as objects, the binomial one, the kernel one, Theorem 6's form."""

import json
from math import inf, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from mfresnet.bounds import (
    Certificate,
    Hypothesis,
    clopper_pearson,
    clopper_pearson_lower,
    clopper_pearson_upper,
    constant_from_gaps,
    constant_from_radii,
    held_out_certificate,
    kernel_bound,
    kernel_certificate,
    kernel_complexity,
    kl_bernoulli,
    theorem6_form,
)
from mfresnet.errors import MfresnetError


def certificate(statuses, value=0.2):
    hypotheses = tuple(Hypothesis(s, s, 0.1 if s == "estimated" else None) for s in statuses)
    terms = {"train": 0.5 * value, "rest": 0.5 * value}
    return Certificate("x", value, 0.95, terms, hypotheses, value >= 0.5, "Words.", "a net", {"n": 3, "far": inf})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["proved", "computed", "assumed", "estimated", "violated"]), max_size=5),
    st.floats(0, 1e6),
)
def test_round_trip_through_json_and_status(statuses, value):
    c = certificate(statuses, value)
    text = json.dumps(c.to_dict(), allow_nan=False)
    assert Certificate.from_dict(json.loads(text)) == c
    assert list(Certificate.from_dict(json.loads(text)).terms) == ["train", "rest"]
    if "violated" in statuses:
        assert c.status == "violated"
    elif "estimated" in statuses:
        assert c.status == "estimated"
    elif "assumed" in statuses:
        assert c.status == "assumed"
    else:
        assert c.status == "proved"
    assert c.status in str(c)


def test_infinite_value_survives():
    c = Certificate("x", inf, 0.9, {"complexity": inf}, (), True, "", "")
    assert Certificate.from_dict(json.loads(json.dumps(c.to_dict(), allow_nan=False))) == c


@pytest.mark.usefixtures("unchecked")
def test_bad_records_and_terms_are_refused():
    with pytest.raises(MfresnetError, match="add up"):
        Certificate("x", 0.5, 0.9, {"a": 0.1}, (), False, "", "")
    with pytest.raises(MfresnetError, match="one of proved"):
        Hypothesis("x", "certain")
    for record in ({}, {"name": "x"}, certificate([]).to_dict() | {"terms": 3}):
        with pytest.raises(MfresnetError, match="record"):
            Certificate.from_dict(record)


def test_clopper_pearson_solves_its_defining_equations():
    for n in (1, 7, 100):
        for mistakes in {0, 1, n // 2, n}:
            upper, lower = clopper_pearson_upper(mistakes, n, 0.03), clopper_pearson_lower(mistakes, n, 0.03)
            if mistakes < n:
                assert binom.cdf(mistakes, n, upper) == pytest.approx(0.03, rel=1e-9)
            if mistakes > 0:
                assert binom.sf(mistakes - 1, n, lower) == pytest.approx(0.03, rel=1e-9)
            assert clopper_pearson(mistakes, n, 0.06) == (lower, upper)


@pytest.mark.parametrize("p", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("compared", [1, 5])
def test_the_held_out_certificate_covers_exactly(p, compared):
    """Its failure probability is the binomial tail itself: at most delta, and a smaller limit would exceed it."""
    m, delta = 60, 0.1
    counts = np.arange(m + 1)
    values = np.array([held_out_certificate(int(k), m, delta, compared=compared).value for k in counts])
    fails = binom.pmf(counts, m, p)[values < p].sum()
    assert fails <= delta / compared
    k = int(counts[values < p].max(initial=-1)) + 1  # the first count whose limit holds
    assert binom.cdf(k, m, p) >= delta / compared  # the limit could not be lower there


def test_fixed_class_counts_only_narrow_the_number_of_errors():
    """Exact laws of the number of errors, classes with errors e_c: stratified counts against independent classes.

    Stratified: n_c of each class, a sum of binomials. Its exponential moment (Maurer 2004) and its lower tails below
    n p - 1 are at most those of Bin(n, p), p the error at the class proportions (Hoeffding 1956).
    """
    rng, n = np.random.default_rng(0), 24
    k = np.arange(n + 1)
    for counts in ((12, 12), (18, 6), (8, 8, 8)):
        for _ in range(20):
            errors = rng.uniform(size=len(counts)) ** 2
            p = float(np.dot(counts, errors) / n)
            law = np.ones(1)
            for count, e in zip(counts, errors, strict=True):
                law = np.convolve(law, binom.pmf(np.arange(count + 1), count, e))
            for convex in (np.exp(n * kl_bernoulli(k / n, p)), (k - n * p) ** 2, np.maximum(k - n * p, 0)):
                assert law @ convex <= binom.pmf(k, n, p) @ convex * (1 + 1e-9)
            below = k <= n * p - 1
            assert np.all(np.cumsum(law)[below] <= binom.cdf(k, n, p)[below] + 1e-12)


@pytest.mark.parametrize("p", [0.0, 0.01, 0.3, 0.5, 0.97])
def test_clopper_pearson_covers_exactly(p):
    n, delta = 40, 0.05
    uppers = np.array([clopper_pearson_upper(k, n, delta) for k in range(n + 1)])
    assert binom.pmf(np.arange(n + 1), n, p)[uppers < p].sum() <= delta


@pytest.mark.usefixtures("unchecked")
def test_held_out_certificate():
    c = held_out_certificate(10, 200, 0.05)
    assert c.value == clopper_pearson_upper(10, 200, 0.05) and not c.vacuous
    assert c.status == "assumed" and "neither training nor tuning" in c.reading  # the user's conduct is not proved
    assert held_out_certificate(100, 200).vacuous
    assert held_out_certificate(10, 200, guessing=0.05).vacuous  # no better than the majority class
    assert held_out_certificate(10, 200, compared=7).value == clopper_pearson_upper(10, 200, 0.05 / 7)
    for bad in ((-1, 5), (6, 5), (1.5, 5), (0, 0)):
        with pytest.raises(MfresnetError, match="give"):
            held_out_certificate(*bad)
    for delta in (0, 1, -0.1, float("nan")):
        with pytest.raises(MfresnetError, match="delta"):
            held_out_certificate(1, 10, delta)


def positive_definite(n, seed=0, scale=1.0):
    a = np.random.default_rng(seed).normal(size=(n, 3 * n))
    return scale * a @ a.T / n


def test_kernel_bound_against_its_formula_and_its_invariance():
    y = np.random.default_rng(1).choice([-1.0, 1.0], 30)
    for scale in (1.0, 7.0):
        g = positive_definite(30, scale=scale)
        assert kernel_bound(g, y) == pytest.approx(sqrt(2 * y @ np.linalg.inv(g) @ y / 30), rel=1e-9)
    # Twice B sqrt(tr G)/n does not change with the scale of the kernel, and at diagonal 1/2 is the form of the paper.
    g = positive_definite(30)
    assert kernel_complexity(5 * g, y) == pytest.approx(kernel_complexity(g, y), rel=1e-9)
    root = np.sqrt(2 * np.diag(g))
    half = g / np.outer(root, root)
    assert kernel_complexity(half, y) == pytest.approx(kernel_bound(half, y), rel=1e-9)


def test_kernel_certificate_holds_where_it_is_not_vacuous():
    """Two short arcs of the circle, labelled by the sign of the first coordinate."""
    rng = np.random.default_rng(0)

    def draw(count):
        angle = rng.uniform(-0.1, 0.1, count) + np.pi * rng.integers(0, 2, count)
        return np.stack([np.cos(angle), np.sin(angle)], 1)

    x, new = draw(1500), draw(1500)
    y = np.sign(x[:, 0])
    g = 10 * x @ x.T + 0.1 * np.eye(len(x))
    c = kernel_certificate(g, y)
    predicted = 10 * new @ x.T @ np.linalg.solve(g, y)
    assert not c.vacuous
    assert np.mean(predicted * new[:, 0] <= 0) <= c.value


def test_kernel_refuses_what_it_cannot_invert():
    y = np.ones(10)
    equal = np.ones((10, 10))
    for bad, match in ((equal, "singular"), (np.eye(9), "square"), (np.triu(np.ones((10, 10))), "symmetric")):
        with pytest.raises(MfresnetError, match=match):
            kernel_certificate(bad, y)
    with pytest.raises(MfresnetError, match="labels"):
        kernel_certificate(np.eye(10), 0.5 * y)
    with pytest.raises(MfresnetError, match="n = 5"):
        kernel_certificate(np.eye(5), np.ones(5))


def test_theorem_six():
    assert theorem6_form(2.0, 400, 0.05) == pytest.approx(2 / 20 + 6 * sqrt(log(2 / 0.05) / 800))
    assert constant_from_gaps([100, 400], [0.1, 0.06]) == pytest.approx(1.2)
    small = [constant_from_radii(0.1, 1 / n, n, alpha=1.0, beta=1.0) for n in (100, 10_000)]
    assert small[0] == pytest.approx(small[1])  # r_nu = 1/n: a constant, as the theorem has it
