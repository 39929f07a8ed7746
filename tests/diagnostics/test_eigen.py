"""Smallest eigenvalues of matrices of prescribed spectrum (after matfree's tests)."""

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

from mfresnet.errors import MfresnetError
from mfresnet.kernels import eigen
from mfresnet.kernels.cholesky import cholesky
from mfresnet.kernels.eigen import Eigenvalue, largest_eigenvalue, smallest_eigenvalue, spectrum


def prescribed(values, seed=0):
    """A symmetric matrix with these eigenvalues."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))
    a = (q * np.asarray(values)) @ q.T
    return (a + a.T) / 2


SPECTRA = {
    "condition 10": np.linspace(1, 10, 60),
    "condition 1e5": np.geomspace(1e-5, 1, 80),
    "condition 1e10": np.geomspace(1e-10, 1, 80),
    "multiple": np.repeat([0.5, 2.0, 7.0], 20),
    "all equal": np.full(30, 3.0),
    "zeros": np.concatenate([np.zeros(5), np.linspace(1, 2, 40)]),
    "one below a cluster": np.concatenate([[1.0], np.full(20, 1.001), np.linspace(2, 100, 60)]),
    "all zero": np.zeros(6),
    "n = 1": np.array([2.5]),
    "n = 2": np.array([1e-3, 1.0]),
}


@pytest.mark.parametrize("method", ["dense", "inverse Lanczos", "Lanczos", "operator"])
@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA.keys())
def test_prescribed_spectrum(values, method):
    a = prescribed(values)
    options = {} if method == "operator" else {"method": method}
    found = smallest_eigenvalue(a if options else aslinearoperator(a), **options)
    assert found.converged, found
    assert abs(found.value - values.min()) <= found.error
    assert found.error <= 1e-5 * values.min() + 1e-12 * values.max()
    assert ("zero within its error" in found.message) == (values.min() == 0)
    most = largest_eigenvalue(a if method in ("dense", "inverse Lanczos") else aslinearoperator(a))
    assert most.converged and abs(most.value - values.max()) <= most.error + 1e-300


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
@pytest.mark.parametrize("method", ["dense", "inverse Lanczos", "Lanczos", "operator"])
def test_entries_whose_squares_overflow_or_vanish(scale, method):
    a = prescribed(np.linspace(1, 3, 12)) * scale
    options = {} if method == "operator" else {"method": method}
    for search, value in ((smallest_eigenvalue, 1.0), (largest_eigenvalue, 3.0)):
        found = search(a if options else aslinearoperator(a), **options)
        assert found.converged, found
        assert abs(found.value - value * scale) <= found.error < 1e-4 * scale
    np.testing.assert_allclose(spectrum(a)[[0, -1]], [scale, 3 * scale])


def test_subnormal_and_overflowing_eigenvalues():
    tiny = smallest_eigenvalue(np.diag([3e-320, 1e-319]))
    assert 0 < abs(tiny.value - 3e-320) + 1e-323 <= tiny.error < 1e-320
    with pytest.raises(MfresnetError, match="larger than the largest float64"):
        largest_eigenvalue(np.full((4, 4), 1e308))
    with pytest.raises(MfresnetError, match="a product of the operator is not finite"):
        smallest_eigenvalue(aslinearoperator(np.diag([np.nan, 1.0])))


def test_lanczos_says_when_it_did_not_converge():
    a = prescribed(np.geomspace(1e-8, 1, 200))
    found = smallest_eigenvalue(aslinearoperator(a), max_basis=20)
    assert not found.converged and "not converged" in str(found)
    assert found.value > 1e-8


def test_inverse_lanczos_refuses_an_indefinite_matrix():
    a = prescribed(np.linspace(-1, 1, 20))
    found = smallest_eigenvalue(a, method="inverse Lanczos")
    assert not found.converged and "negative eigenvalue" in found.message
    assert abs(smallest_eigenvalue(a).value + 1) < 1e-12
    assert abs(smallest_eigenvalue(a, method="Lanczos").value + 1) < 1e-6


def test_large_matrices_go_to_inverse_lanczos(monkeypatch):
    monkeypatch.setattr(eigen, "DENSE_LIMIT", 50)
    found = smallest_eigenvalue(prescribed(np.geomspace(1e-6, 1, 90)))
    assert found.method == "inverse Lanczos" and abs(found.value - 1e-6) < 1e-11


def test_equal_rows_of_a_gram_matrix_are_named():
    x = np.random.default_rng(0).normal(size=(12, 30))
    x[7] = x[3]
    found = smallest_eigenvalue(x @ x.T)
    assert abs(found.value) <= found.error and found.lower < 0
    assert "rows 3 and 7" in str(found) and "+-" in str(found)


def test_a_float32_matrix_has_a_float32_error():
    a = prescribed(np.geomspace(1e-3, 1, 40))
    found = smallest_eigenvalue(a.astype(np.float32))
    assert 1e-7 < found.error < 1e-4 and abs(found.value - 1e-3) <= found.error


def test_spectrum_and_quantiles():
    values = np.array([1.0, 2.0, 5.0])
    np.testing.assert_allclose(spectrum(prescribed(values)), values)
    np.testing.assert_allclose(spectrum(prescribed(values), quantiles=(0, 0.5, 1)), values)
    assert str(Eigenvalue(1.0, 1e-9, "dense")) == "1 +- 1e-09 (dense)"


@pytest.mark.parametrize(
    ("matrix", "options", "message"),
    [
        (np.zeros((2, 3)), {}, "give a square one"),
        (np.zeros((0, 0)), {}, "give a square one"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), {}, "not symmetric"),
        (np.array([[1.0, 0.0], [0.0, np.nan]]), {}, "nan in row 1, column 1"),
        (np.eye(2, dtype=complex), {}, "real numbers"),
        (np.eye(2), {"tolerance": 0}, "tolerance = 0"),
        (np.eye(2), {"method": "qr"}, "method = 'qr'"),
        (aslinearoperator(np.eye(2)), {"method": "dense"}, "needs a matrix"),
    ],
)
def test_bad_input_is_one_sentence(matrix, options, message):
    with pytest.raises(MfresnetError, match=message):
        smallest_eigenvalue(matrix, **options)


def test_bad_quantiles():
    with pytest.raises(MfresnetError, match="between 0 and 1"):
        spectrum(np.eye(2), quantiles=[2.0])


@pytest.mark.parametrize(("n", "panel"), [(7, 3), (6, 3), (5, 8)])
def test_cholesky_by_panels_is_the_factor_and_notices_a_negative_eigenvalue(n, panel):
    rows = np.random.default_rng(n).normal(size=(n, n))
    matrix = rows @ rows.T + np.eye(n)
    factor = np.tril(cholesky(matrix, 0.5, panel))
    np.testing.assert_allclose(factor @ factor.T, matrix + 0.5 * np.eye(n), rtol=0, atol=1e-12)  # rounding of sums of n
    lowest = np.linalg.eigvalsh(matrix)[0]
    assert cholesky(matrix, -lowest + 1e-6, panel) is not None
    assert cholesky(matrix, -lowest - 1e-6, panel) is None


def test_a_rank_below_the_size_makes_it_zero():
    """Exactly, and without work; a rank that decides nothing changes nothing, and bad matrices stay refused."""
    x = np.random.default_rng(0).normal(size=(6, 4))
    found = smallest_eigenvalue(x @ x.T, rank=4)
    assert (found.value, found.error, found.method) == (0.0, 0.0, "rank")
    assert abs(smallest_eigenvalue(x @ x.T).value) <= smallest_eigenvalue(x @ x.T).error
    assert smallest_eigenvalue(x.T @ x, rank=4) == smallest_eigenvalue(x.T @ x)
    with pytest.raises(MfresnetError, match="square"):
        smallest_eigenvalue(x, rank=1)


def test_extended_precision_is_computed_in_float64():
    """The error is that of float64, which the entries are rounded to."""
    a = prescribed(np.linspace(1, 10, 12)).astype(np.longdouble)
    assert smallest_eigenvalue(a).error == smallest_eigenvalue(a.astype(np.float64)).error


def test_spectrum_of_large_entries():
    np.testing.assert_allclose(spectrum(np.full((3, 3), 1e307))[-1], 3e307, rtol=1e-14)
    with pytest.raises(MfresnetError, match="larger than the largest float64"):
        spectrum(np.full((5, 5), 1.7e308))
