"""`load`: one contract for every source, disjoint parts, no leakage, settings that do not apply."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfresnet.config import DataConfig
from mfresnet.data import Transform, describe_datasets, load, load_bundled, loading, read_file
from mfresnet.data.splitting import apportion, flip_labels
from mfresnet.errors import MfresnetError

NAMES = [name for name, _ in describe_datasets()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["auto", "sphere", "lift", "max", "none"])
def test_contract_of_every_data_set(name, kind):
    config = DataConfig(name=name, n=40, n_test=20, transform=kind)
    split, again = load(config, seed=3), load(config, seed=3)
    other = load(config, seed=4)
    for part, n in ((split.train, 40), (split.test, 20)):
        assert part.x.shape[0] == part.y.shape[0] == n
        assert part.x.dtype == part.y.dtype == np.float64
        assert np.isfinite(part.x).all() and part.name == name
        assert np.max(np.linalg.norm(part.y, axis=1)) <= 1 + 1e-12
        if part.task == "multiclass":
            assert part.y.shape[1] == len(part.classes) and np.array_equal(part.y.sum(axis=1), np.ones(n))
        elif part.task == "binary":
            assert set(part.y.ravel()) <= {-1.0, 1.0} and len(part.classes) == 2
        assert part.x.shape[1] == len(part.feature_names) + (kind == "lift")
    if kind in ("sphere", "lift"):
        np.testing.assert_allclose(np.linalg.norm(split.train.x, axis=1), 1.0)
        np.testing.assert_allclose(np.linalg.norm(split.test.x, axis=1), 1.0)
    if kind == "max":
        assert np.linalg.norm(split.train.x, axis=1).max() == pytest.approx(1.0)
    for mine, yours in ((split.train, again.train), (split.test, again.test)):
        assert mine.x.tobytes() == yours.x.tobytes() and mine.y.tobytes() == yours.y.tobytes()
    assert other.train.x.tobytes() != split.train.x.tobytes()
    assert split.notes == again.notes and all(note.endswith(".") for note in split.notes)
    assert Transform.from_dict(split.transform.to_dict()).describe() == split.transform.describe()
    if split.train.task != "regression":
        assert len(np.unique(split.train.y, axis=0)) == len(split.train.classes)


def rows_of(part, table, transform):
    """The table rows behind a part, found by value."""
    x = transform.apply(table.x)
    where = {row.tobytes(): i for i, row in enumerate(x)}
    return {where[row.tobytes()] for row in part.x}


@pytest.mark.parametrize("name", ["wine", "breast-cancer"])
def test_real_sets_are_split_into_disjoint_stratified_parts(name):
    table, split = load_bundled(name), load(DataConfig(name=name), seed=1)
    train, test = (rows_of(p, table, split.transform) for p in (split.train, split.test))
    assert not train & test and len(train) + len(test) == len(table.x)
    assert len(test) == len(table.x) // 4
    share = np.bincount(table.target) / len(table.target)
    for rows in (train, test):
        np.testing.assert_allclose(np.bincount(table.target[sorted(rows)]) / len(rows), share, atol=1.5 / len(rows))


def test_the_test_set_does_not_depend_on_n():
    for name in ("wine", "two-spirals"):
        small, large = (load(DataConfig(name=name, n=n, n_test=30, transform="none"), seed=0) for n in (20, 60))
        assert small.test.x.tobytes() == large.test.x.tobytes()


def test_no_test_statistic_reaches_the_transform():
    split = load(DataConfig(name="wine"), seed=0)
    table = load_bundled("wine")
    train = sorted(rows_of(split.train, table, split.transform))
    np.testing.assert_allclose(split.transform.mean, table.x[train].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(split.transform.std, table.x[train].std(axis=0), rtol=1e-12)
    assert np.abs(split.transform.mean - table.x.mean(axis=0)).max() > 1e-3


def test_changing_test_rows_leaves_the_training_part_alone(tmp_path):
    x = np.random.default_rng(0).standard_normal((40, 3))
    y = x[:, 0] ** 3
    file = tmp_path / "a.npz"
    np.savez(file, x=x, y=y)
    before = load(DataConfig(name=str(file)), seed=0)
    table = read_file(str(file))
    test = sorted(rows_of(before.test, table, before.transform))
    x[test] *= 50
    y[test] -= 1e6
    np.savez(file, x=x, y=y)
    after = load(DataConfig(name=str(file)), seed=0)
    assert after.train.x.tobytes() == before.train.x.tobytes() and after.train.y.tobytes() == before.train.y.tobytes()
    assert after.transform.to_dict() == before.transform.to_dict()
    assert np.abs(after.train.y).max() == 1.0
    assert any("outside [-1, 1]" in note for note in after.notes)


def test_defaults_of_generated_sets_and_their_own_transform():
    kinds = {name: load(DataConfig(name=name), seed=0) for name in ("two-spirals", "circles", "sphere-teacher")}
    assert {name: split.transform.kind for name, split in kinds.items()} == {
        "two-spirals": "none",
        "circles": "max",
        "sphere-teacher": "none",
    }
    assert all((len(s.train.x), len(s.test.x)) == (512, 1024) for s in kinds.values())
    assert any("Assumption 1 holds" in note for note in kinds["sphere-teacher"].notes)
    assert any("|x_i| = 1" in note for note in kinds["two-spirals"].notes)


@pytest.mark.parametrize("name", ["two-spirals", "digits"])
def test_label_noise_flips_the_stated_share_to_other_classes(name):
    clean = load(DataConfig(name=name, n=200, n_test=100), seed=0)
    noisy = load(DataConfig(name=name, n=200, n_test=100, label_noise=0.25), seed=0)
    for before, after, flips in ((clean.train, noisy.train, 50), (clean.test, noisy.test, 25)):
        assert before.x.tobytes() == after.x.tobytes()
        assert np.any(before.y != after.y, axis=1).sum() == flips
    assert any("50 of 200 training and 25 of 100 test labels were flipped" in note for note in noisy.notes)


def test_flips_reach_every_other_class_evenly():
    y = np.eye(4)[np.zeros(3000, dtype=int)]
    counts = flip_labels(y, 0.5, np.random.default_rng(0)).sum(axis=0)
    assert counts[0] == 1500
    np.testing.assert_allclose(counts[1:], 500, atol=80)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(2, 50), min_size=1, max_size=8), st.data())
def test_apportioned_rows_sum_and_stay_in_bounds(counts, data):
    counts = np.array(counts)
    total = data.draw(st.integers(len(counts), int(counts.sum())))
    out = apportion(counts, total, low=1, high=counts)
    assert out.sum() == total and np.all(out >= 1) and np.all(out <= counts)
    share = counts * total / counts.sum()
    if share.min() >= 1:
        assert np.all(np.abs(out - share) < 1)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"name": "two-spiral"}, "unknown data set 'two-spiral': did you mean 'two-spirals'"),
        ({"name": ""}, "unknown data set ''"),
        ({"name": "nowhere.csv", "target": "y"}, "file 'nowhere.csv' does not exist"),
        ({"name": "no/where", "target": "y"}, "file 'no/where' does not exist"),
        ({"name": "digits", "turns": 2.0}, "data.turns = 2.0 does not apply to 'digits', only to two-spirals"),
        ({"name": "digits", "noise": 0.1}, "data.noise = 0.1 does not apply"),
        ({"name": "two-spirals", "dimension": 3}, "data.dimension = 3 does not apply"),
        ({"name": "wine", "target": "y"}, "data.target = 'y' does not apply"),
        ({"name": "wine", "labels": "y.npy"}, "data.labels = 'y.npy' does not apply"),
        ({"name": "wine", "task": "regression"}, "data.task = 'regression' does not apply"),
        ({"name": "sphere-teacher", "noise": 0.1}, "data.noise = 0.1 does not apply"),
        ({"name": "sphere-teacher", "n": 8, "n_test": 8, "label_noise": 0.1}, "is a regression"),
        ({"name": "wine", "n": 170}, r"data.n = 170 .* data.n_test = 44 \(a quarter of the rows\) .* the 178 rows"),
        ({"name": "wine", "n": 100, "n_test": 100}, "are more than the 178 rows of 'wine'"),
        ({"name": "wine", "n_test": 178}, "data.n_test = 178 leaves none of the 178 rows"),
        ({"name": "digits", "n": 5}, "5 training rows are fewer than the 10 classes"),
        ({"name": "wine", "n_test": 176}, "2 training rows are fewer than the 3 classes .* or data.n_test lower"),
        ({"name": "two-spirals", "n": 10**12}, "needs about .* GB of memory"),
    ],
)
def test_mistakes_are_named(settings_, message):
    with pytest.raises(MfresnetError, match=message):
        load(DataConfig(**settings_), seed=0)


def test_a_complete_configuration_is_accepted():
    """config.json has every field set: only values that differ from the default can be out of place."""
    config = DataConfig(**DataConfig(name="wine").model_dump())
    assert load(config, seed=0).train.name == "wine"


def test_memory_is_asked_before_generating(monkeypatch):
    class Tight:
        available = 1000

    monkeypatch.setattr("psutil.virtual_memory", lambda: Tight)
    monkeypatch.setattr(loading.synthetic, "two_spirals", lambda *a, **k: pytest.fail("was generated"))
    with pytest.raises(MfresnetError, match=r"with 64 \+ 64 points in dimension 2 needs about 8.19e-06 GB"):
        load(DataConfig(n=64, n_test=64), seed=0)


def test_test_rows_that_repeat_training_rows_are_told(tmp_path):
    x = np.random.default_rng(0).standard_normal((10, 2))
    np.savez(tmp_path / "a.npz", x=np.vstack([x, x]), y=np.tile([0, 1], 10))
    notes = load(DataConfig(name=str(tmp_path / "a.npz")), seed=0).notes
    assert any("test rows equal a training row" in note for note in notes)


def test_import_is_light():
    import subprocess
    import sys

    code = (
        "import sys; import mfresnet.data; "
        "print([m for m in ('jax', 'sklearn', 'polars', 'scipy', 'equinox') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": "breast-cancer", "transform": "none"}, "'none' does not"),
        ({"name": "circles", "transform": "sphere"}, "'sphere' does not"),
        ({"name": "sphere-teacher"}, "for classes"),
    ],
)
def test_a_share_for_a_map_that_reads_no_data_is_refused(changes, match):
    with pytest.raises(MfresnetError, match=match):
        load(DataConfig(**changes, map_share=0.5, n=40, n_test=20))
