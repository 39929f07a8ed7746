"""kl and its inverses against mpmath, and their defining properties."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfresnet.bounds import kl_bernoulli, kl_inverse_lower, kl_inverse_upper
from mfresnet.errors import MfresnetError

mpmath.mp.dps = 50


def naive_kl(q, p):
    q, p = mpmath.mpf(q), mpmath.mpf(p)
    total = mpmath.mpf(0)
    if q > 0:
        total += q * mpmath.log(q / p)
    if q < 1:
        total += (1 - q) * mpmath.log((1 - q) / (1 - p))
    return total


def naive_upper(q, c):
    low, high = mpmath.mpf(q), mpmath.mpf(1)
    for _ in range(150):
        middle = (low + high) / 2
        if middle < 1 and naive_kl(q, middle) <= c:
            low = middle
        else:
            high = middle
    return low


Q = [0.0, 1e-12, 1e-3, 0.05, 0.3, 0.5, 0.9, 1 - 1e-9, 1.0]
C = [1e-16, 1e-9, 1e-4, 0.02, 0.3, 2.0, 20.0]


def test_the_inverse_equals_mpmath_to_1e_10():
    for q in Q:
        ours = kl_inverse_upper(q, C)
        theirs = [float(naive_upper(q, c)) for c in C]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)
        mirrored = [float(1 - naive_upper(mpmath.mpf(1) - mpmath.mpf(q), c)) for c in C]
        np.testing.assert_allclose(kl_inverse_lower(q, C), mirrored, rtol=0, atol=1e-13)


def test_kl_keeps_its_relative_accuracy_for_close_probabilities():
    for q in (1e-6, 0.1, 0.7):
        for gap in (1e-3, 1e-6, 1e-8):
            p = q * (1 + gap)
            expected = float(naive_kl(q, p))
            assert kl_bernoulli(q, p) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("q", "c", "upper", "lower"),
    [
        (0.3, 0.0, 0.3, 0.3),
        (0.3, np.inf, 1.0, 0.0),
        (0.0, 0.0, 0.0, 0.0),
        (1.0, 0.0, 1.0, 1.0),
        (0.0, np.inf, 1.0, 0.0),
    ],
)
def test_edges(q, c, upper, lower):
    assert kl_inverse_upper(q, c) == upper
    assert kl_inverse_lower(q, c) == lower


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1), st.floats(0, 50), st.floats(0, 1))
def test_the_inverse_brackets_every_p_whose_kl_is_within_budget(q, c, p):
    low, high = kl_inverse_lower(q, c), kl_inverse_upper(q, c)
    assert 0 <= low <= q <= high <= 1
    if kl_bernoulli(q, p) <= c:
        assert low - 1e-9 <= p <= high + 1e-9
    assert kl_inverse_upper(q, c + 0.1) >= high


def test_shapes_broadcast_and_bad_input_is_named():
    assert kl_inverse_upper(np.zeros((3, 1)), np.ones(4)).shape == (3, 4)
    for bad in (lambda: kl_inverse_upper(1.1, 0.1), lambda: kl_inverse_upper(0.1, -1), lambda: kl_bernoulli(np.nan, 0)):
        with pytest.raises(MfresnetError, match="give"):
            bad()
