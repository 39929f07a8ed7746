"""What cannot be certified, and files and flags that cannot be used: one sentence each, and what stands goes on."""

import pytest
from small_certificates import assembled, with_changes

from mfresnet.cli import main
from mfresnet.config import Config
from mfresnet.errors import MfresnetError
from mfresnet.report import write_report
from mfresnet.runs import RunDirectory, certify, checkpoint, read_certificates, train
from mfresnet.runs.certifying import NAME
from mfresnet.train.certifying import check_possible, problem_of


def test_checkpoints_without_the_flags_are_refused(run, job):
    arrays, _ = checkpoint.read(RunDirectory.open(run).checkpoints, 6)
    del arrays["ensemble.unfolded.head"]
    with pytest.raises(MfresnetError, match="another configuration or version"):
        checkpoint.restore(job.state, arrays)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"train__rule": "adam", "train__solver": "adaptive"}, "--train.rule gradient-flow"),
        ({"train__rule": "momentum"}, "no flow of the laws"),
        ({"train__rule": "momentum"}, "--train.rule langevin"),
        ({"train__probes": 0}, "--train.probes 32"),
        ({"train__head_probes": 0}, "--train.head-probes 512"),
        ({"model__embedding": "trained"}, "--model.embedding fixed"),
    ],
)
def test_what_cannot_be_certified_is_refused_with_what_to_do(changes, word):
    with pytest.raises(MfresnetError, match=word):
        check_possible(with_changes(**changes), "binary")


def test_regression_is_refused():
    with pytest.raises(MfresnetError, match="numeric"):
        check_possible(Config(), "regression")


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_delta_outside_its_range_is_refused(run, delta):
    with pytest.raises(MfresnetError, match="delta"):
        certify(run, delta=delta)


@pytest.mark.parametrize(("name", "value"), [("heads", "0,4"), ("heads", "a"), ("residuals", ","), ("draws", 0)])
def test_grids_that_are_none_are_refused(name, value):
    with pytest.raises(MfresnetError, match=rf"certify\.{name}"):
        with_changes(**{f"certify__{name}": value})


def test_a_grid_that_the_probes_cannot_serve_is_refused():
    with pytest.raises(MfresnetError, match="more probes"):
        problem_of(assembled(certify__heads="25"), [assembled(certify__heads="25").state])


def test_few_points_train_on_with_one_line(tmp_path):
    said = []
    summary = train(with_changes(data__n=6), tmp_path / "run", quiet=True, say=said.append)
    assert summary["status"] == "completed"
    assert sum(line.startswith("not certified: ") for line in said) == 1
    assert not (tmp_path / "run" / NAME).exists()
    with pytest.raises(MfresnetError):
        certify(tmp_path / "run")


def test_bounds_outside_their_hypotheses_are_refused_and_the_others_stand(tmp_path):
    """Three classes and an unbounded activation: no KL ball, no kernel bound."""
    changes = {
        "data__name": "wine",
        "data__transform": "sphere",
        "data__map_share": 0.5,
        "data__n": 60,
        "data__n_test": 30,
        "model__activation": "softplus",
        "certify__prior_share": 0,
    }
    train(with_changes(**changes), tmp_path / "run", quiet=True, say=lambda message: None)
    found, refused = read_certificates(tmp_path / "run")
    assert set(found) == {"pac_bayes", "gibbs", "held_out"}
    assert set(refused) == {"kl_ball", "theorem6", "kernel"}
    # half of the points fixed the scaling of the inputs and are left out
    assert found["pac_bayes"].details["n"] == 30
    assert found["pac_bayes"].vacuous == (not found["pac_bayes"].value < 2 / 3)


@pytest.mark.parametrize("argv", [["--delta", "2"], ["--delta", "x"], ["--heads", "none"], ["--settings", "0"]])
def test_bad_flags_are_one_sentence(run, argv, capsys):
    assert main(["certify", str(run), *argv]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mfresnet: ") and said.count("\n") == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"certificates": {"a": 1}, "refused": {}}', "torn {"])
def test_damaged_files_are_refused_and_the_report_goes_on(run, content):
    whole = (run / NAME).read_text()
    try:
        (run / NAME).write_text(content)
        with pytest.raises(MfresnetError):
            read_certificates(run)
        assert write_report(run).is_file()
    finally:
        (run / NAME).write_text(whole)


def test_fewer_settings_than_the_run_tried_are_refused(run, monkeypatch):
    stored = RunDirectory.open(run).config
    stored["config"]["certify"]["settings"] = 3
    monkeypatch.setattr(RunDirectory, "config", property(lambda self: stored))
    with pytest.raises(MfresnetError, match="fewer than the 3"):
        certify(run, settings=2, say=lambda message: None)
