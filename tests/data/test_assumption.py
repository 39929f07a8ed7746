"""The check of Assumption 1 against a double loop."""

import numpy as np
import pytest

from mfresnet.data import check_assumption_1


def sphere(n, d, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 3, 7, 512])
def test_largest_cosine_and_pair_match_a_double_loop(block):
    x = sphere(23, 3)
    found = check_assumption_1(x, np.ones((23, 1)), block=block)
    oracle = max((x[i] @ x[j], (i, j)) for i in range(23) for j in range(i + 1, 23))
    assert found.pair == oracle[1]
    assert found.max_cosine == pytest.approx(oracle[0], abs=1e-14)
    assert found.holds and "Assumption 1 holds" in found.sentences[0]
    assert found.min_distance == pytest.approx(np.linalg.norm(x[found.pair[0]] - x[found.pair[1]]))


@pytest.mark.parametrize("block", [2, 512])
def test_closest_pair_off_the_sphere_matches_a_double_loop(block):
    x = np.random.default_rng(1).standard_normal((17, 2))
    found = check_assumption_1(x, np.zeros((17, 1)), block=block)
    assert found.pair == min((np.linalg.norm(x[i] - x[j]), (i, j)) for i in range(17) for j in range(i + 1, 17))[1]
    assert not found.holds and "|x_i| = 1" in found.sentences[0]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert found.max_cosine == pytest.approx(np.max((unit @ unit.T)[np.triu_indices(17, 1)]))
    assert found.norm_min == pytest.approx(np.linalg.norm(x, axis=1).min())
    assert found.norm_max == pytest.approx(np.linalg.norm(x, axis=1).max())


def test_duplicates_are_counted_and_the_first_pair_is_named():
    x = sphere(10, 4)
    x[7] = x[9] = x[2]
    found = check_assumption_1(x, np.ones((10, 1)))
    assert (found.duplicates, found.pair, found.max_cosine, found.holds) == (2, (2, 7), 1.0, False)
    assert "2 training rows repeat an earlier one (first training rows 2 and 7)" in found.sentences[0]


def test_minus_zero_is_zero():
    x = np.array([[1.0, 0.0], [1.0, -0.0]])
    assert check_assumption_1(x, np.ones((2, 1))).duplicates == 1


def test_near_parallel_is_named_and_antiparallel_is_fine():
    x = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [np.cos(1e-5), np.sin(1e-5), 0.0]])
    found = check_assumption_1(x, np.ones((3, 1)))
    assert not found.holds and found.pair == (0, 2) and "nearly parallel" in found.sentences[0]
    assert check_assumption_1(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.ones((2, 1))).holds


def test_large_targets_are_named():
    found = check_assumption_1(sphere(5, 3), np.array([[0.5], [2.0], [0.0], [0.0], [0.0]]))
    assert found.target_max == 2.0 and not found.holds and "|y_i| <= 1" in found.sentences[0]


def test_big_data_finds_every_duplicate_and_says_what_it_sampled():
    x = sphere(300, 5)
    found = check_assumption_1(x, np.ones((300, 1)), limit=200, sample=50)
    assert found.holds and "50 of 300" in found.sentences[-1]
    x[299] = x[5]
    found = check_assumption_1(x, np.ones((300, 1)), limit=200, sample=50)
    assert found.pair == (5, 299) and found.duplicates == 1 and not found.holds
    assert check_assumption_1(x, np.ones((300, 1)), limit=200, sample=50) == found


def test_zero_rows_do_not_divide_by_zero():
    found = check_assumption_1(np.zeros((2, 2)), np.zeros((2, 1)))
    assert not found.holds and found.duplicates == 1 and found.max_cosine == 0.0
