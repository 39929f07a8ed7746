"""Settings chosen by their certificate, and what is paid for the choice."""

import inspect
import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from small_certificates import assembled, job_of, with_changes

from mfresnet.certify.kernel import certify_kernel, kernel_rows
from mfresnet.certify.tuning import quick_value
from mfresnet.config import build
from mfresnet.data import load
from mfresnet.errors import MfresnetError
from mfresnet.runs import RunDirectory, read_certificates, resume, train
from mfresnet.runs.certifying import NAME
from mfresnet.runs.recorded import read_states
from mfresnet.train.certifying import problem_of, tune_config

TUNE = {"certify__tune": "model.alpha=0.5,1 model.beta=2", "certify__prior_share": 0.0}


def test_tuning_runs_the_best_setting_and_pays_for_all(tmp_path):
    said = []
    train(with_changes(**TUNE), tmp_path / "run", quiet=True, say=said.append)
    stored = RunDirectory.open(tmp_path / "run").config
    rows = stored["tuned"]
    assert [(row["model.alpha"], row["model.beta"]) for row in rows] == [(0.5, 2), (1, 2)]
    best = min(rows, key=lambda row: row["certificate"])
    assert stored["config"]["model"]["alpha"] == best["model.alpha"]
    assert stored["config"]["certify"]["settings"] == 2 and stored["config"]["certify"]["tune"] == ""
    assert any("tuned on the training points" in line for line in said)
    found, _ = read_certificates(tmp_path / "run")
    assert found["pac_bayes"].details["grid"] == 3 * 2 * 2 * 2
    # the run repeats what tuning trained, and certifies it with all its draws
    job = job_of(build(stored["config"]))
    states = read_states(RunDirectory.open(tmp_path / "run"), job, (2, 4, 6), said.append)
    assert quick_value(problem_of(job, states)) == pytest.approx(best["certificate"], rel=1e-6)


def test_tuning_is_given_training_points_only():
    """There is no way in for test points, and other test points change nothing."""
    names = ["config", "train", "transform", "fitted_on", "say", "stopped"]
    assert list(inspect.signature(tune_config).parameters) == names


def test_a_trained_prior_is_tuned_by_its_own_certificate():
    config = with_changes(certify__tune="model.beta=1,2", train__steps=2)
    split = load(config.data, config.seed)
    said = []
    chosen, rows = tune_config(config, split.train, split.transform, split.fitted_on, say=said.append)
    assert chosen.certify.settings == 2 and len({row["certificate"] for row in rows}) == 2
    assert [line.split(",")[0] for line in said] == ["setting 1 of 2", "setting 2 of 2"]


def test_tuning_begins_only_where_a_run_can_and_stops_when_asked(run, tmp_path, monkeypatch):
    with pytest.raises(MfresnetError, match="exists: continue it"):
        train(with_changes(**TUNE), run, quiet=True, say=lambda message: None)
    (tmp_path / "file").write_text("")
    with pytest.raises(MfresnetError, match="no run directory"):
        train(with_changes(**TUNE), tmp_path / "file", quiet=True, say=lambda message: None)
    with pytest.raises(MfresnetError, match="cannot write"):
        train(with_changes(**TUNE), tmp_path / "file" / "run", quiet=True, say=lambda message: None)
    stop = lambda problem: os.kill(os.getpid(), signal.SIGINT) or 0.5  # noqa: E731
    monkeypatch.setattr("mfresnet.certify.tuning.quick_value", stop)
    said = []
    with pytest.raises(KeyboardInterrupt, match="1 of 2 settings"):  # the first Ctrl-C, in order
        train(with_changes(**TUNE), tmp_path / "run", quiet=True, say=said.append)
    assert not (tmp_path / "run").exists() and any("setting 1 of 2" in line for line in said)


def test_what_chose_the_last_law_is_paid_for(job):
    """Settings multiply, and so do the recorded times where training stops on the certificate."""
    jobs = [assembled(certify__settings=5, certify__patience=p) for p in (0, 2)]
    assert [problem_of(one, [one.state]).spec.ends for one in jobs] == [5, 5 * 3]
    more = assembled(certify__settings=5)
    confidence = [certify_kernel(problem_of(one, [one.state])).terms["confidence"] for one in (job, more)]
    # four ridges and 41 radii in both, on all 48 points
    assert confidence == pytest.approx([3 * (np.log(2 * 41 * 4 * s / 0.05) / 96) ** 0.5 for s in (1, 5)])


def test_points_of_the_kernel_are_drawn_by_the_seed(job, monkeypatch):
    monkeypatch.setattr("mfresnet.certify.kernel.POINTS", 12)
    other = replace(job, config=job.config.model_copy(update={"seed": 1}))
    first, again, second = (kernel_rows(problem_of(one, [one.state])) for one in (job, job, other))
    assert (first == again).all() and len(set(first)) == 12 and (first != np.arange(12)).any()
    assert (first != second).any()


@pytest.mark.parametrize("text", ["model.depth=1,2", "model.alpha=1 model.alpha=2", "model.beta", "model.beta=1,x"])
def test_what_cannot_be_tuned_is_one_sentence(text, tmp_path):
    with pytest.raises(MfresnetError, match=r"certify\.tune"):
        train(with_changes(certify__tune=text), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_training_stops_when_the_certificate_no_longer_improves(tmp_path):
    """Of pure noise nothing is learnt and movement costs; a resumed run stops at the same place.

    The control run is no posterior of anything, and makes all its steps.
    """
    changes = {"data__label_noise": 0.5, "certify__patience": 1, "certify__prior_share": 0.0, "train__steps": 8}
    changes["diagnostics__control"] = True
    said = []
    summary = train(with_changes(**changes), tmp_path / "run", quiet=True, say=said.append)
    assert summary["status"] == "completed" and summary["step"] < 8
    assert any("has not improved" in line for line in said)
    certificate = read_certificates(tmp_path / "run")[0]["pac_bayes"]
    assert certificate.details["grid"] == len(json.loads((tmp_path / "run" / NAME).read_text())["points"]["steps"]) * 4
    control = json.loads((tmp_path / "run" / "control" / "summary.json").read_text())
    assert (control["status"], control["step"]) == ("completed", 8) == (summary["control.status"], 8)
    (tmp_path / "run" / "summary.json").unlink()
    assert resume(tmp_path / "run", quiet=True, say=said.append)["step"] == summary["step"]
