"""Points of the diagnostics are drawn by the seed: the first rows of a class-ordered table are of one class."""

from types import SimpleNamespace

import numpy as np
import pytest

from mfresnet.config import build
from mfresnet.data import load
from mfresnet.diagnostics.record import draw_rows
from mfresnet.experiments import phase
from mfresnet.experiments.vectorised import Training, train_together
from mfresnet.train import divergence, measurements
from mfresnet.train.job import assemble

ROWS = 3000


@pytest.fixture(scope="module")
def ordered(tmp_path_factory):
    """A file whose rows are in the order of their classes."""
    rng = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("ordered") / "ordered.npz"
    y = np.arange(ROWS) >= ROWS // 2
    np.savez(file, x=rng.normal(size=(ROWS, 2)) + y[:, None], y=y)
    tiny = {"depth": 2, "width": 2, "head_width": 2}
    wanted = {"data": {"name": str(file)}, "model": tiny, "train": {"rule": "sgd", "steps": 1}}
    config = build(wanted)
    return config, load(config.data, config.seed)


def share(split, x):
    """Share of class 1 among the training rows that were passed on."""
    classes = {row.tobytes(): label for row, label in zip(split.train.x, split.train.y[:, 0], strict=True)}
    return np.mean([classes[np.asarray(row, np.float64).tobytes()] > 0 for row in x])


def test_landscape_and_first_order_paths_see_both_classes(ordered, monkeypatch):
    """512 of 2250 rows: an unlucky draw outside 0.5 +- 0.1 has probability 6e-6 (binomial), and the seed is fixed."""
    config, split = ordered
    passed = []
    monkeypatch.setattr(measurements, "landscape", lambda model, x, y: passed.append(x) or SimpleNamespace())
    monkeypatch.setattr(measurements, "first_order_share", lambda model, x: passed.append(x) or 0.0)
    job = assemble(config, split)
    measurements.Measurements(job, print).summary(job.state, [])
    assert len(passed) == 2
    for x in passed:
        assert len(x) == 512 and abs(share(split, x) - 0.5) < 0.1


def test_phase_takes_its_gram_matrices_on_both_classes(ordered, monkeypatch):
    """128 of 2250 rows: outside 0.5 +- 0.2 with probability 6e-6, and the seed is fixed."""
    config, split = ordered
    training = Training.of(config, split)
    passed = []
    true_gram = phase.gram
    monkeypatch.setattr(phase, "gram", lambda model, x, **options: passed.append(x) or true_gram(model, x, **options))
    outcome = train_together([training])[0]
    phase.Phase(phase.PhaseSettings()).measure(training, outcome)
    assert len(passed) == 2 and passed[0] is passed[1]
    assert len(passed[0]) == 128 and abs(share(split, passed[0]) - 0.5) < 0.2


def test_the_stable_step_is_that_of_both_classes(ordered, monkeypatch):
    config, split = ordered
    job, passed = assemble(config, split), []
    monkeypatch.setattr(divergence, "decay_rate", lambda model, trained, x, rates: passed.append(x) or 1.0)
    divergence.stable_step(job, job.state)
    x, chosen = np.asarray(job.train.x), np.asarray(passed[0])
    labels = [job.train.y[np.flatnonzero((x == row).all(axis=1))[0], 0] for row in chosen[::16]]
    assert {-1.0, 1.0} == {float(label) for label in labels}


def test_rows_are_drawn_once_for_a_seed_in_order_and_are_all_where_few():
    rows = draw_rows(1000, 100, seed=3)
    assert np.array_equal(rows, draw_rows(1000, 100, seed=3)) and not np.array_equal(rows, draw_rows(1000, 100, seed=4))
    assert len(set(rows.tolist())) == 100 and np.all(np.diff(rows) > 0)
    assert draw_rows(5, 5, seed=0).tolist() == [0, 1, 2, 3, 4]
