"""Wasserstein-2 by assignment, and the nearest-neighbour KL, on laws whose distances are known."""

import importlib.util
import itertools

import numpy as np
import pytest

from mfresnet.diagnostics.transport import knn_kl, wasserstein2
from mfresnet.errors import MfresnetError

RNG = np.random.default_rng(0)


def log_standard(x):
    return -0.5 * (x**2).sum(axis=1) - 0.5 * x.shape[1] * np.log(2 * np.pi)


def test_wasserstein2_is_the_best_pairing():
    a, b = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
    best = min(((a - b[list(p)]) ** 2).sum(1).mean() for p in itertools.permutations(range(5)))
    assert wasserstein2(a, b) == pytest.approx(np.sqrt(best), rel=1e-12)
    assert wasserstein2(a, b) == pytest.approx(wasserstein2(b, a), rel=1e-12)
    assert wasserstein2(a, a[::-1]) == 0
    assert wasserstein2(a[:1], b[:1]) == pytest.approx(np.linalg.norm(a[0] - b[0]))


def test_wasserstein2_of_a_shift_is_its_length():
    a = RNG.normal(size=(200, 4))
    assert wasserstein2(a, a + np.array([3.0, 0, 4.0, 0])) == pytest.approx(5.0, rel=1e-12)


def test_wasserstein2_bad_input():
    with pytest.raises(MfresnetError, match="3 and 2 rows"):
        wasserstein2(np.zeros((3, 2)), np.zeros((2, 2)))
    with pytest.raises(MfresnetError, match="b has 3 columns"):
        wasserstein2(np.zeros((3, 2)), np.zeros((3, 3)))
    with pytest.raises(MfresnetError, match="a has nan in row 0"):
        wasserstein2([[np.nan]], [[0.0]])
    with pytest.raises(MfresnetError, match="method = 'quick'"):
        wasserstein2(np.zeros((3, 2)), np.zeros((3, 2)), method="quick")
    with pytest.raises(MfresnetError, match="regularisation = 0"):
        wasserstein2(np.zeros((3, 2)), np.zeros((3, 2)), method="sinkhorn", regularisation=0)


@pytest.mark.skipif(importlib.util.find_spec("ott") is not None, reason="ott is installed")
def test_sinkhorn_without_ott_says_what_to_install():
    with pytest.raises(MfresnetError, match=r"install mfresnet\[transport\]"):
        wasserstein2(np.zeros((3, 2)), np.ones((3, 2)), method="sinkhorn")


@pytest.mark.skipif(importlib.util.find_spec("ott") is None, reason="needs ott")
@pytest.mark.filterwarnings("ignore")
def test_sinkhorn_is_near_the_exact_distance():
    a, b = RNG.normal(size=(100, 2)), RNG.normal(size=(100, 2)) + 2.0
    assert wasserstein2(a, b, method="sinkhorn") == pytest.approx(wasserstein2(a, b), rel=0.05)


@pytest.mark.parametrize(("shift", "d"), [(0.0, 2), (1.0, 1), (0.5, 3)])
def test_knn_kl_of_shifted_gaussians(shift, d):
    p, q = RNG.normal(size=(3000, d)) + shift, RNG.normal(size=(4000, d))
    exact = d * shift**2 / 2
    density, samples = knn_kl(p, log_standard), knn_kl(p, q)
    assert abs(density.value - exact) < 0.06 and abs(samples.value - exact) < 0.1
    assert "biased" in density.message and 0 < density.standard_error < 0.05


def test_knn_kl_is_low_in_high_dimension():
    """Why the estimate is labelled: 10 dimensions, KL 1.25."""
    found = knn_kl(RNG.normal(size=(2000, 10)) + 0.5, RNG.normal(size=(2000, 10)))
    assert 0.8 < found.value < 1.25


def test_knn_kl_bad_input():
    p = RNG.normal(size=(6, 2))
    with pytest.raises(MfresnetError, match="rows 0 and 2 of samples are equal"):
        knn_kl(p[[0, 1, 0, 3]], log_standard, neighbours=1)
    with pytest.raises(MfresnetError, match="neighbours = 6 is not allowed with 6 samples"):
        knn_kl(p, log_standard, neighbours=6)
    with pytest.raises(MfresnetError, match="row 0 of samples is also in the reference"):
        knn_kl(p, p, neighbours=1)
    with pytest.raises(MfresnetError, match="log density returned shape"):
        knn_kl(p, lambda x: x)
    with pytest.raises(MfresnetError, match="reference has 1 rows"):
        knn_kl(p, p[:1])
    with pytest.raises(MfresnetError, match="samples has nan"):
        knn_kl([[np.nan, 0.0]], log_standard)
