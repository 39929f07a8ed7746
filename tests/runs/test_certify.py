"""Certificates of runs: what is written, what it agrees with, and what is refused."""

import inspect
import json
import os
import shutil
import signal
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy.stats import binom

import mfresnet
from mfresnet.bounds import draw_errors, draws, log_ratio_of, pool
from mfresnet.bounds.pac_bayes import pac_bayes_bound
from mfresnet.certify import Certificates, Grid, Spec
from mfresnet.certify.kernel import certify_kernel, kernel_rows
from mfresnet.certify.kl_balls import certify_kl_ball
from mfresnet.certify.tuning import quick_value
from mfresnet.cli import main
from mfresnet.config import Config, build
from mfresnet.data import load
from mfresnet.errors import MfresnetError
from mfresnet.report import write_report
from mfresnet.runs import RunDirectory, certify, checkpoint, read_certificates, resume, train
from mfresnet.runs.certifying import NAME, certify_job
from mfresnet.runs.recorded import read_states
from mfresnet.train.certifying import check_possible, problem_of, snapshot_of, tune_config
from mfresnet.train.job import assemble

BOUNDS = ("pac_bayes", "gibbs", "kl_ball", "theorem6", "kernel", "held_out")
TREE = {
    "data": {"name": "circles", "n": 48, "n_test": 32, "transform": "none"},
    "model": {"depth": 3, "width": 6, "head_width": 10, "alpha": 1.0, "beta": 2.0},
    "train": {"steps": 6, "time": 20, "probes": 6, "head_probes": 24, "solver": "euler"},
    "record": {"metrics_every": 2, "report": False, "snapshots": 3},
    "diagnostics": {"landscape": False, "gram_every": 0, "kl_every": 0, "solver_error": False},
    "certify": {"heads": "4,16", "residuals": "3,6", "draws": 20, "prior_share": 0.5, "prior_steps": 24},
}


def with_changes(**changes):
    """The small configuration with ``section__name=value`` changes."""
    tree = json.loads(json.dumps(TREE))
    for name, value in changes.items():
        section, _, key = name.partition("__")
        tree.setdefault(section, {})[key] = value
    return build(tree)


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick):
    out = tmp_path_factory.mktemp("certify") / "run"
    train(build(TREE), out, quiet=True, say=lambda message: None)
    return out


@pytest.fixture(scope="module")
def job():
    config = build(TREE)
    return assemble(config, load(config.data, config.seed))


def test_training_ends_with_certificates_in_file_and_summary(run):
    found, refused = read_certificates(run)
    assert set(found) | set(refused) == {*BOUNDS, "held_out_part", "pac_bayes_learned"}
    assert not refused
    summary = json.loads((run / "summary.json").read_text())
    for name, certificate in found.items():
        assert summary[f"certificate.{name}.value"] == certificate.value
        assert summary[f"certificate.{name}.vacuous"] is certificate.vacuous
        assert certificate.confidence == 0.95
        assert sum(certificate.terms.values()) == pytest.approx(certificate.value)


def test_certifying_again_gives_the_same_and_round_trips(run):
    before = json.loads((run / NAME).read_text())
    found = certify(run, say=lambda message: None)
    after = json.loads((run / NAME).read_text())
    assert {**before, "seconds": 0} == {**after, "seconds": 0}
    assert read_certificates(run)[0] == found


def test_laws_that_steps_moved_are_never_proved(run, job):
    """Six long steps are not one-to-one at some probes, which violates what rests on densities; else estimated."""
    found, _ = read_certificates(run)
    moment = moment_at(6, run, job)
    assert moment.ensemble.not_one_to_one > 0
    for name in ("pac_bayes", "gibbs", "kl_ball", "theorem6"):
        folded = moment_at(found[name].details.get("step", 6), run, job).ensemble.not_one_to_one
        assert status_of_steps(found[name]) == found[name].status == ("violated" if folded else "estimated")
    assert found["pac_bayes_learned"].status in ("estimated", "violated")
    assert found["held_out_part"].status == "assumed"  # binomial: no density is asked for
    whole = eqx.tree_at(lambda e: e.one_to_one, moment.ensemble, job.state.ensemble.one_to_one)
    upright = replace(problem_of(job, [job.state]), snapshots=(replace(moment, ensemble=whole),))
    assert status_of_steps(certify_kl_ball(upright)) == "estimated"
    (solved,) = replace(moment, solver="heun").density.hypotheses
    assert solved.status == "estimated" and solved.error == moment.normalisation_error


def status_of_steps(certificate):
    (one,) = [h for h in certificate.hypotheses if h.statement == "each Euler step is one-to-one"]
    assert one.error > 0
    return one.status


def moment_at(step, run, job):
    arrays, _ = checkpoint.read(RunDirectory.open(run).checkpoints, step)
    return snapshot_of(job, checkpoint.restore(job.state, arrays))


def test_checkpoints_without_the_flags_are_refused(run, job):
    arrays, _ = checkpoint.read(RunDirectory.open(run).checkpoints, 6)
    del arrays["ensemble.unfolded.head"]
    with pytest.raises(MfresnetError, match="another configuration or version"):
        checkpoint.restore(job.state, arrays)


def test_the_value_is_the_best_of_the_recorded_times_with_the_whole_grid_paid_for(run):
    record = json.loads((run / NAME).read_text())
    grid, rows = record["points"], record["over_time"]
    assert grid["size"] == len(grid["steps"]) * len(grid["heads"]) * len(grid["residuals"])
    assert [row["step"] for row in rows] == grid["steps"] == [2, 4, 6]
    best = read_certificates(run)[0]["pac_bayes"]
    assert best.value == pytest.approx(min(row["value"] for row in rows))
    for row in rows:
        expected = pac_bayes_bound(row["drawn.train.error"], row["kl"], 48, 0.05, grid["size"])
        assert row["value"] == pytest.approx(float(expected))
    assert best.details["grid"] == grid["size"]


def test_draws_agree_with_those_made_one_by_one(run, job):
    """The nested heads and the shared places in the pool are the plain draws of `bounds.subnetwork`."""
    arrays, _ = checkpoint.read(RunDirectory.open(run).checkpoints, 6)
    problem = problem_of(job, [checkpoint.restore(job.state, arrays)])
    grid, moment = problem.spec.grid, problem.last
    errors, ratios = problem.draws.measure(moment, 6, problem.data.train)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 17), 6)
    probes = moment.ensemble.probes
    chosen = draws(key, 32, **pool(probes), residuals=6, heads=16, most_residuals=6)
    for place, heads in enumerate(grid.heads):
        cut = chosen._replace(heads=np.full(32, heads))
        expected = draw_errors(cut, probes, moment.model, job.train.x, job.train.y)[:20]
        np.testing.assert_allclose(errors[:, place], expected)
        np.testing.assert_allclose(ratios[:, place], log_ratio_of(cut, moment.encoder, moment.head)[:20])


def test_test_data_choose_nothing(run, job, tmp_path):
    """With other test labels only the held-out certificate and the reported test errors change."""
    found, _ = read_certificates(run)
    split = job.split
    swapped = replace(job, split=replace(split, test=replace(split.test, y=-split.test.y)))
    copy = RunDirectory(tmp_path)
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    again = certify_job(copy, swapped, say=lambda message: None)
    for name in BOUNDS[:-1]:
        assert again[name].value == found[name].value
    assert again["held_out"].value != found["held_out"].value


def test_a_trained_prior_has_unit_mean_and_sees_other_points(run, job):
    found = read_certificates(run)[0]["pac_bayes_learned"]
    assert found.details["n"] == 24
    assert "24 other training points" in found.details["prior"]


def test_other_deltas_and_more_settings_loosen_the_bounds(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = read_certificates(copy)[0]
    tighter = certify(copy, delta=0.5, say=lambda message: None)
    looser = certify(copy, settings=1000, say=lambda message: None)
    assert tighter["pac_bayes"].value < before["pac_bayes"].value < looser["pac_bayes"].value
    assert tighter["pac_bayes"].confidence == 0.5
    again = certify(copy, say=lambda message: None)  # what was tried stays tried
    assert again["pac_bayes"].value == looser["pac_bayes"].value


def test_a_second_look_pays_for_the_first(run, tmp_path):
    """One size after a look at the whole grid: 3 times x 4 sizes and 3 times x 1 size, and so in the file."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    first = read_certificates(copy)[0]
    best = first["pac_bayes"].details
    sizes = {"heads": str(best["heads"]), "residuals": str(best["residuals"])}
    for _ in range(2):  # the same look again costs no more
        second = certify(copy, **sizes, say=lambda message: None)
        assert second["pac_bayes"].details["grid"] == 3 * 4 + 3
        assert second["gibbs"].details["grid"] == 4 + 1 and second["gibbs"].details["points"] == 3 * 4 + 3
        assert second["held_out_part"].details["compared"] == 4 + 1
        assert second["pac_bayes_learned"].details["grid"] == 3 * (4 + 1)
    assert len(json.loads((copy / NAME).read_text())["points"]["tried"]) == 2
    third = certify(copy, say=lambda message: None)
    assert third["pac_bayes"].value > first["pac_bayes"].value


def test_a_lost_record_of_what_was_tried_is_reported(run, tmp_path):
    copy, said = tmp_path / "run", []
    shutil.copytree(run, copy)
    (copy / NAME).write_text("torn {")
    certify(copy, say=said.append)
    assert any("what was tried" in line for line in said)


def test_certificates_in_memory_are_those_of_the_run(run):
    """The same pipeline without a directory: equal to the bit."""
    found = mfresnet.certify(mfresnet.fit(build(TREE)))
    assert isinstance(found, Certificates) and not found.refused
    assert {name: one.to_dict() for name, one in found.items()} == {
        name: one.to_dict() for name, one in read_certificates(run)[0].items()
    }


def test_a_rule_that_is_no_flow_is_certified_by_the_test_points(tmp_path):
    config, said = with_changes(train__rule="adam"), []
    result = mfresnet.fit(config)
    found = mfresnet.certify(result, delta=0.1)
    assert list(found) == ["held_out"] and "no flow of the laws" in found.refused["pac_bayes"]
    points = len(result.split.test.x)
    errors = round(result.summary["test.error"] * points)
    assert binom.cdf(errors, points, found["held_out"].value) == pytest.approx(0.1)
    with pytest.raises(MfresnetError, match="no flow of the laws"):
        mfresnet.certify(result, names="pac_bayes")
    summary = train(config, tmp_path / "run", quiet=True, say=said.append)
    assert sum(line.startswith("certified by the test points alone: ") for line in said) == 1
    assert summary["certificate.held_out.value"] == mfresnet.certify(result)["held_out"].value
    assert list(certify(tmp_path / "run")) == ["held_out"]


def test_the_part_held_out_of_a_prior_is_bounded_by_its_binomial_tail(run):
    one = read_certificates(run)[0]["held_out_part"]
    details = one.details
    assert details["n"] == 24 and details["compared"] == 4
    assert binom.cdf(details["errors"], 24, one.value) == pytest.approx(0.05 / 4)


def test_grids_count_once():
    first, second = Grid((1, 2, 3), (4, 8), (5,)), Grid((1, 2, 3), (4,), (5,))
    spec = Spec(first, settings=2, earlier=(second, first, second))
    assert (spec.size, spec.sizes, spec.last_sizes) == (2 * (6 + 3), 2 * (2 + 1), 2 * (2 + 1))


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


def test_command_prints_tables_and_writes_the_report(run, capsys):
    assert main(["certify", str(run), "--delta", "0.05"]) == 0
    printed = capsys.readouterr().out
    for name in BOUNDS:
        assert f"{name}: error <= " in printed
    assert printed.rstrip().endswith("report.html")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "PAC-Bayes, prior without data" in page and "could not be drawn" not in page


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


def test_the_mean_over_q_pays_for_the_whole_grid_and_counts_disjoint_draws(run):
    record = json.loads((run / NAME).read_text())
    found, _ = read_certificates(run)
    details = found["gibbs"].details
    assert details["points"] == record["points"]["size"] and details["grid"] == 4
    # 24 head probes hold 6 heads of 4 particles or 1 of 16; 6 probes a layer hold 3 of 6 residual ones or 6 of 3
    assert details["disjoint_draws"] in (1, 3, 6)
    assert found["gibbs"].status == "estimated"
    assert details["step"] == found["pac_bayes"].details["step"]


def test_the_head_of_the_kl_ball_is_beside_its_exact_supremum(run):
    """The bound of theory, section 8(a), is above the number that it bounds, and not by much for a small radius."""
    details = read_certificates(run)[0]["kl_ball"].details
    ratio = details["rademacher.head"] / details["rademacher.head.exact"]
    assert 1 < ratio < 3 and details["rademacher.head.exact.error"] < 0.2 * details["rademacher.head.exact"]


def test_theorem_6_has_its_three_terms(run):
    one = read_certificates(run)[0]["theorem6"]
    assert one.value == pytest.approx(sum(one.terms.values()))
    assert one.terms["C/sqrt(n)"] == pytest.approx(one.details["C"] / 48**0.5)
    # half of delta is for the bound, the rest for the two KLs
    assert one.terms["6 sqrt(log(2/delta)/(2n))"] == pytest.approx(6 * (np.log(2 / 0.025) / 96) ** 0.5)


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
    states = read_states(RunDirectory.open(tmp_path / "run"), job_of(stored), (2, 4, 6), said.append)
    assert quick_value(problem_of(job_of(stored), states)) == pytest.approx(best["certificate"], rel=1e-6)


def job_of(stored):
    config = build(stored["config"])
    return assemble(config, load(config.data, config.seed))


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


def assembled(**changes):
    config = with_changes(**changes)
    return assemble(config, load(config.data, config.seed))


def test_points_of_the_kernel_are_drawn_by_the_seed(job, monkeypatch):
    monkeypatch.setattr("mfresnet.certify.kernel.POINTS", 12)
    other = replace(job, config=job.config.model_copy(update={"seed": 1}))
    first, again, second = (kernel_rows(problem_of(one, [one.state])) for one in (job, job, other))
    assert (first == again).all() and len(set(first)) == 12 and (first != np.arange(12)).any()
    assert (first != second).any()


def test_fewer_settings_than_the_run_tried_are_refused(run, monkeypatch):
    stored = RunDirectory.open(run).config
    stored["config"]["certify"]["settings"] = 3
    monkeypatch.setattr(RunDirectory, "config", property(lambda self: stored))
    with pytest.raises(MfresnetError, match="fewer than the 3"):
        certify(run, settings=2, say=lambda message: None)


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
