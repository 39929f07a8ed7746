"""Certificates of runs: what is written, and what it agrees with."""

import json
import shutil
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy.stats import binom
from small_certificates import TREE, with_changes

import mfresnet
from mfresnet.bounds import draw_errors, draws, log_ratio_of, pool
from mfresnet.bounds.pac_bayes import pac_bayes_bound
from mfresnet.certify import Certificates, Grid, Spec
from mfresnet.certify.kl_balls import certify_kl_ball
from mfresnet.cli import main
from mfresnet.config import build
from mfresnet.errors import MfresnetError
from mfresnet.runs import RunDirectory, certify, checkpoint, read_certificates, train
from mfresnet.runs.certifying import NAME, certify_job
from mfresnet.train.certifying import problem_of, snapshot_of

BOUNDS = ("pac_bayes", "gibbs", "kl_ball", "theorem6", "kernel", "held_out")


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


def test_command_prints_tables_and_writes_the_report(run, capsys):
    assert main(["certify", str(run), "--delta", "0.05"]) == 0
    printed = capsys.readouterr().out
    for name in BOUNDS:
        assert f"{name}: error <= " in printed
    assert printed.rstrip().endswith("report.html")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "PAC-Bayes, prior without data" in page and "could not be drawn" not in page


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
