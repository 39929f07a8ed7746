"""`mfresnet.fit`: a run without a directory, equal to the one on disk to the bit."""

from __future__ import annotations

from dataclasses import dataclass, field

import diffrax
import jax
import numpy as np
import optax
import pytest

import mfresnet
from mfresnet import Config
from mfresnet.data import load
from mfresnet.flow import squared
from mfresnet.runs import RunDirectory, checkpoint, train
from mfresnet.train.job import assemble, load_split, precision

SETTINGS = {
    "data": {"n": 24, "n_test": 16},
    "model": {"depth": 3, "width": 4, "head_width": 4},
    "train": {"solver": "heun", "steps": 12, "time": 3, "probes": 4, "head_probes": 8},
    "record": {"metrics_every": 2, "snapshots": 3},
    "diagnostics": {"landscape": False, "kl_every": 4},
    "certify": {"enabled": False},
}


@pytest.fixture(scope="module")
def result():
    return mfresnet.fit(Config(**SETTINGS))


def untimed(row):
    return {name: value for name, value in row.items() if not name.endswith("_s") and name != "diagnostics.share"}


@pytest.mark.exact
def test_equals_the_run_on_disk(result, tmp_path, monkeypatch):
    """The same state, rows, snapshots and summary: one loop, two recorders."""
    monkeypatch.setattr("mfresnet.runs.training.network_figures", lambda *_: {})
    summary = train(Config(**SETTINGS), tmp_path / "run", quiet=True)
    run = RunDirectory.open(tmp_path / "run")
    assert [untimed(row) for row in run.metrics()] == [untimed(row) for row in result.history]
    assert untimed(summary) == untimed(result.summary)
    assert sorted(result.snapshots) == [step for step in checkpoint.steps(run.checkpoints) if step in result.snapshots]
    for step, state in {**result.snapshots, 12: result.state}.items():
        arrays, _ = checkpoint.read(run.checkpoints, step)
        mine = zip(checkpoint.leaf_names(state), jax.tree.leaves(state), strict=False)
        for name, leaf in mine:
            assert arrays[name].tobytes() == np.asarray(leaf).tobytes(), (step, name)


def test_touches_no_file_and_prints_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    mfresnet.fit(Config(**SETTINGS))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_what_a_result_holds(result):
    assert result.status == "completed" and result.config.train.steps == 12
    assert result.start is result.snapshots[0].model and result.model is result.state.model
    assert result.column("step").tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert np.isfinite(result.column("kl.head.value")[[0, 2, 4, 6]]).all()
    assert np.isnan(result.column("kl.head.value")[[1, 3, 5]]).all()
    assert result.laws is not None and "gram.final.lambda_min.total" in result.summary
    assert repr(result).startswith("Result(completed, step=12, train.loss=")


def test_a_callback_sees_every_record_and_may_stop():
    seen = []

    def watch(record):
        seen.append((record.step, record.is_snapshot, float(record.state.step)))
        return record.row["train.loss"] < np.inf and record.step >= 6

    result = mfresnet.fit(Config(**SETTINGS), callback=watch)
    assert [step for step, _, _ in seen] == [0, 2, 4, 6] == [int(step) for _, _, step in seen]
    assert {step for step, kept, _ in seen if kept} == set(result.snapshots)
    assert result.status == "interrupted" and result.history[-1]["step"] == 6


@dataclass
class After:
    """A stopping rule: over after so many recorded times."""

    job: object
    times: int = 2
    seen: list[int] = field(default_factory=list)
    reason = "two recorded times were seen"

    @property
    def over(self) -> bool:
        return len(self.seen) >= self.times

    def see(self, state) -> None:
        self.seen.append(int(state.step))


def test_a_stopping_rule_is_an_object(result):
    early = mfresnet.fit(Config(**SETTINGS), stopping=After)
    last = sorted(result.snapshots)[2]
    assert early.status == "completed" and early.history[-1]["step"] == last < 12
    assert f"stopped at step {last}: two recorded times were seen." in early.messages


def test_data_of_ones_own(result):
    config = Config(**SETTINGS)
    again = mfresnet.fit(config, load(config.data, config.seed))
    assert [untimed(row) for row in again.history] == [untimed(row) for row in result.history]


def test_divergence_is_a_status_with_its_reason():
    config = Config(**{**SETTINGS, "train": {"rule": "sgd", "learning_rate": 1e6, "steps": 40}})
    result = mfresnet.fit(config)
    assert result.status == "diverged" and result.summary["diverged.step"] > 0
    assert any(message.startswith("training diverged at step") for message in result.messages)


@pytest.mark.parametrize(
    ("section", "value", "sentence"),
    [
        ("certify", {"tune": "model.alpha=1,2"}, "mfresnet.train.certifying.tune_config"),
        ("certify", {"patience": 2}, "stopping=mfresnet.train.certifying.Watch"),
        ("diagnostics", {"control": True}, "train.freeze = 'encoder'"),
    ],
)
def test_settings_that_need_more_than_one_training(section, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        mfresnet.fit(Config(**{**SETTINGS, section: value}))


def test_convergence_certificate_of_slow_rates_and_batches():
    """Learning-rate factors slow the flow down, and a flow of batches has no such bound."""
    changes = {"encoder_rate": 1e-6, "head_rate": 1e-6, "probes": 0, "head_probes": 0, "time": 3e6}
    settings = {**SETTINGS, "model": {"depth": 2, "width": 4, "head_width": 200}}
    slow = mfresnet.fit(Config(**{**settings, "train": {**settings["train"], **changes}})).summary
    assert slow["convergence.holds"]
    assert slow["convergence.certificate"][-1] == pytest.approx(slow["convergence.certificate"][0], rel=1e-4)
    changes |= {"batch_size": 12, "solver": "euler"}
    batches = mfresnet.fit(Config(**{**settings, "train": {**settings["train"], **changes}})).summary
    assert "convergence.certificate" not in batches


X = np.random.default_rng(0).uniform(-1, 1, (40, 3))
UNMEASURED = {"landscape": False, "gram_every": 0, "kl_every": 0, "solver_error": False}
OPTIMISED = {
    "data": {"n": 24, "n_test": 16},
    "model": {"depth": 2, "width": 4, "head_width": 4},
    "train": {"rule": "adam", "steps": 2},
    "diagnostics": UNMEASURED,
}


@pytest.mark.parametrize("library", ["numpy", "jax", "polars", "pandas"])
def test_arrays_and_data_frames_of_any_library_are_the_same_data(library, tmp_path):
    """As a CSV file of the same numbers: JAX holds float32, in which these inputs are exact."""
    x, y = np.round(X * 64) / 64, X[:, 0] > 0
    columns = {**{f"x{j}": x[:, j] for j in range(3)}, "label": np.where(y, "right", "left")}
    file = tmp_path / "points.csv"
    rows = zip(*columns.values(), strict=True)
    file.write_text("\n".join(",".join(map(str, row)) for row in (columns, *rows)) + "\n")
    settings = {**OPTIMISED, "data": {**OPTIMISED["data"], "target": "label"}}
    expected = load(Config(**{**settings, "data": {**settings["data"], "name": str(file)}}).data)
    if library in ("polars", "pandas"):
        data = pytest.importorskip(library).DataFrame(columns)
    else:
        settings = OPTIMISED
        data = (x if library == "numpy" else jax.numpy.asarray(x), columns["label"])
    result = mfresnet.fit(Config(**settings), data)
    assert result.split.train.classes == expected.train.classes == ("left", "right")
    for part in ("train", "test"):
        mine, theirs = getattr(result.split, part), getattr(expected, part)
        assert mine.x.tobytes() == theirs.x.tobytes() and mine.y.tobytes() == theirs.y.tobytes()
    assert result.status == "completed"


def test_data_of_another_type_are_refused():
    with pytest.raises(mfresnet.MfresnetError, match="data of type ndarray cannot be used"):
        mfresnet.fit(Config(**OPTIMISED), X)


def test_objects_do_what_their_names_do():
    """A loss, an Optax optimiser and a Diffrax solver as objects train to the bit as by their names."""
    named = mfresnet.fit(Config(**{**OPTIMISED, "train": {"rule": "adam", "learning_rate": 0.02, "steps": 3}}))
    given = mfresnet.fit(
        Config(**{**OPTIMISED, "train": {"rule": "adam", "steps": 3}}), optimiser=optax.adam(0.02), loss=squared
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, named.model, given.model))
    assert (given.config.train.rule, given.config.train.loss) == ("optax:own", "own:squared")
    flowing = {**OPTIMISED, "train": {"steps": 2, "probes": 4, "head_probes": 8}}
    named = mfresnet.fit(Config(**{**flowing, "train": {**flowing["train"], "solver": "diffrax:Tsit5"}}))
    given = mfresnet.fit(Config(**flowing), solver=diffrax.Tsit5())
    assert jax.tree.all(jax.tree.map(np.array_equal, named.model, given.model))
    with pytest.raises(mfresnet.MfresnetError, match="the solver Euler estimates no error"):
        mfresnet.fit(Config(**flowing), solver=diffrax.Euler())
    for solver in (diffrax.Kvaerno3(), diffrax.KenCarp3(), diffrax.SPaRK()):  # implicit, split, stochastic
        with pytest.raises(mfresnet.MfresnetError, match=f"the solver {type(solver).__name__} is not for the gradient"):
            mfresnet.fit(Config(**flowing), solver=solver)
    halved = mfresnet.fit(Config(**flowing), solver=diffrax.HalfSolver(diffrax.Euler()))
    assert halved.status == "completed"


@pytest.mark.parametrize(
    "settings",
    [{"steps": 2, "probes": 2, "head_probes": 3}, {"rule": "adam"}, {"rule": "sgd", "precision": "float64"}],
    ids=str,
)
def test_a_second_start_of_one_kind_compiles_nothing(settings, caplog):
    """A start with another seed is another run of one program, for every rule."""
    compiled = []
    for seed in (0, 1):
        config = Config(data={"n": 12, "n_test": 6}, model={"depth": 2, "width": 3}, train=settings, seed=seed)
        with precision(config), jax.log_compiles(), caplog.at_level("WARNING"):
            split = load_split(config)
            caplog.clear()
            assemble(config, split)
        compiled.append([line for line in caplog.messages if "create_model" in line or "_begin" in line])
    assert compiled[0] and not compiled[1]


@pytest.mark.filterwarnings("error:Explicitly requested dtype float64")
def test_a_training_in_float64_is_certified_in_float64():
    """Outside of `fit` JAX is in its own precision again, which would round data and probes to float32."""
    precise = SETTINGS | {"train": SETTINGS["train"] | {"precision": "float64"}}
    found = mfresnet.fit(Config(**precise))
    certificates = mfresnet.certify(found, names=("pac_bayes", "held_out"))
    assert sorted(certificates) == ["held_out", "pac_bayes"]
    assert found.problem().snapshots[-1].head.dtype == np.float64
