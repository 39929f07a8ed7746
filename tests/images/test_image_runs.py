"""Image runs on disk: stopped, resumed to the bit, measured again, refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_images import EPOCHS, PER_EPOCH, SEEDS, same

from mfresnet import MfresnetError
from mfresnet.cli import main
from mfresnet.config import build
from mfresnet.images import BLOCK_RULES, Ensemble, ImageConfig, recording
from mfresnet.images.summary import image_summary
from mfresnet.report import write_report
from mfresnet.runs import RunDirectory, checkpoint, resume_images, train_images


def test_a_run_learns_and_its_blocks_swap(finished):
    rows = RunDirectory.open(finished).metrics()
    assert [(row["rule"], row["epoch"], row["step"]) for row in rows] == [
        (rule, epoch, 3 * epoch) for epoch in (1, 2, 3, 4) for rule in ("plain", "mean-field")
    ]
    plain, moving = rows[::2], rows[1::2]
    for own in (plain, moving):
        assert np.mean(own[-1]["train_loss"]) < np.mean(own[0]["train_loss"])
    depth = np.concatenate([np.ravel(np.concatenate(seed)) for row in moving for seed in row["t"]])
    assert depth.min() >= 0 and depth.max() <= 1
    assert sum(np.sum(row["swaps"]) for row in moving) > 0 and "swaps" not in plain[0]
    assert all(0 <= value <= 1 for row in moving for name in ("entropy", "distance") for value in np.ravel(row[name]))
    summary = RunDirectory.open(finished).summary
    assert summary["status"] == "completed" and summary["rules"]["mean-field"]["test_error"]["seeds"] == SEEDS
    difference = summary["paired"]["mean-field minus plain"]
    errors = {name: np.array(rule["test_errors"]) for name, rule in summary["rules"].items()}
    assert difference["epoch"] == EPOCHS
    assert difference["mean"] == pytest.approx(np.mean(errors["mean-field"] - errors["plain"]))


def test_sensitivity_of_both_rules(finished):
    """Every block is removed, neighbours are swapped, and the shares of the Gram matrix's trace sum to 1."""
    found = RunDirectory.open(finished).summary["sensitivity"]
    assert list(found) == ["plain", "mean-field"]
    for values in found.values():
        assert values["images"] == 12 and len(values["removal"]) == 7 and len(values["swap"]) == 4
        assert sum(values["gram_share"].values()) == pytest.approx(1, abs=1e-6) and len(values["gram_share"]) == 8
        assert values["gram_share"]["stage 2, block 1"] > 0 and values["gram_share"]["rest"] > 0
        assert values["first_order_share"] < 1


def test_sensitivity_over_epochs(config, tmp_path, monkeypatch):
    """Every third epoch and the last one; the summary has the last, the report draws them."""
    monkeypatch.setattr(
        recording, "block_sensitivity", lambda job, name, state: {"first_order_share": float(state.step[0]) / 100}
    )
    own = config.record.model_copy(update={"sensitivity_every": 3})
    summary = train_images(config.model_copy(update={"record": own}), tmp_path, quiet=True, say=lambda line: None)
    rows = [row for row in RunDirectory.open(tmp_path).metrics() if "sensitivity" in row]
    assert [(row["rule"], row["epoch"]) for row in rows] == [
        (rule, epoch) for epoch in (3, 4) for rule in ("plain", "mean-field")
    ]
    assert summary["sensitivity"]["mean-field"] == {"first_order_share": 0.12}
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Share of f - f_0 explained by paths through a single block" in page and "could not be drawn" not in page


def test_measured_again_at_the_last_checkpoint(finished, tmp_path, capsys):
    """What the run found at its end, printed, written and shown; of a run that did not look, too."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert main(["measure", str(run), "--points", "13"]) == 2
    assert "points = 13 is not allowed: give 1 to 12 test images" in capsys.readouterr().err
    bare = [{k: v for k, v in row.items() if k != "sensitivity"} for row in RunDirectory.open(run).metrics()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    assert main(["measure", str(run)]) == 0
    said, found = capsys.readouterr().out, RunDirectory.open(finished).summary["sensitivity"]
    rows = [json.loads(line) for line in (run / "measure.jsonl").read_text().splitlines()]
    assert [(row["rule"], row["step"], row["epoch"]) for row in rows] == [("plain", 12, 4.0), ("mean-field", 12, 4.0)]
    assert {row["rule"]: row["sensitivity"] for row in rows} == found
    assert "mean-field, step 12 (epoch 4), first seed, 12 test images" in said and "stage 3, block 2" in said
    assert "What the blocks do" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.exact
def test_stopped_and_resumed_to_the_bit(job, stopped_and_finished):
    """The last states of both rules against training in memory, epoch by epoch."""
    stopped, said, run = stopped_and_finished
    assert stopped["status"] == "interrupted" and "mfresnet resume" in said[-1]
    assert not any(rule["finished"] for rule in stopped["rules"].values())
    states = job.init()
    for _ in range(EPOCHS):
        states = job.networks.advance(states, PER_EPOCH)
    found = checkpoint.latest(run / "checkpoints", states, pytest.fail)
    assert found is not None
    same(found[0], states)
    again: list[str] = []
    assert resume_images(run, say=again.append)["status"] == "completed" and "nothing to do" in again[-1]


def test_a_stopped_run_is_judged_at_equal_epochs(stopped_and_finished):
    """Both errors are those of the second epoch."""
    stopped, _, run = stopped_and_finished
    errors = {row["rule"]: np.array(row["test_error"]) for row in RunDirectory.open(run).metrics() if row["epoch"] == 2}
    difference = stopped["paired"]["mean-field minus plain"]
    assert difference["epoch"] == 2 and stopped["rules"]["plain"]["tested"] == 2
    assert difference["mean"] == pytest.approx(np.mean(errors["mean-field"] - errors["plain"]))


def test_rules_without_a_common_epoch_are_not_compared(job):
    row = {"train_loss": [1.0, 1.0], "test_error": [0.5, 0.5]}
    rows = [{"rule": "plain", "epoch": 4} | row, {"rule": "mean-field", "epoch": 1} | row]
    assert image_summary(job, rows, "interrupted")["paired"] == {}


def test_a_damaged_summary_is_made_again(finished, tmp_path):
    """Other versions are named, too."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "summary.json").write_text('{"status": "comp')
    stored = json.loads((run / "config.json").read_text())
    stored["versions"]["jax"] = "0.0.1"
    (run / "config.json").write_text(json.dumps(stored))
    said: list[str] = []
    summary = resume_images(run, quiet=True, say=said.append)
    assert any("It is made again." in line for line in said)
    assert any("versions differ from the run's (jax 0.0.1 -> " in line for line in said)
    whole = RunDirectory.open(finished).summary
    assert all(summary[name] == whole[name] for name in ("status", "rules", "paired", "sensitivity"))


def test_what_a_run_of_images_does_not_take(finished, capsys):
    assert main(["resume", str(finished), "--processes", "2"]) == 2
    assert "--processes is of runs on points" in capsys.readouterr().err


def test_no_memory_left(config, tmp_path, monkeypatch):
    """The sentence names the flags of `mfresnet image`."""

    def full(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1.00TiB.")

    monkeypatch.setattr(Ensemble, "advance", full)
    flags = r"lower --train.at-once \(now as many as fit\), --seeds \(now 2\), --train.batch-size \(now 8\)"
    with pytest.raises(MfresnetError, match=f"out of memory: {flags}"):
        train_images(config, tmp_path / "run", quiet=True, say=lambda line: None)


def test_changed_images_are_refused(config, folder, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "summary.json").unlink()
    stored = json.loads((run / "config.json").read_text())
    stored["data"]["sha256"] = "0" * 64
    (run / "config.json").write_text(json.dumps(stored))
    with pytest.raises(MfresnetError, match="changed since the run began"):
        resume_images(run, say=lambda line: None)


def test_divergence_is_reported(config, tmp_path):
    """Weights grow by a factor of 1e9 a step: each rule ends with its first epoch and has no error to report."""
    train, run = config.train.model_copy(update={"learning_rate": 1e6, "weight_decay": 1e3}), tmp_path / "run"
    said: list[str] = []
    summary = train_images(config.model_copy(update={"train": train}), run, quiet=True, say=said.append)
    assert summary["status"] == "diverged" and "sensitivity" not in summary
    for rule in summary["rules"].values():
        assert (rule["diverged_seeds"], rule["epochs"], rule["finished"]) == ([0, 1], 1, True)
        assert rule["test_error"]["mean"] is None
    assert [row["epoch"] for row in RunDirectory.open(run).metrics()] == [1, 1]
    assert sum("lower --train.learning-rate" in line for line in said) == 2
    assert sum("every seed has diverged: the rule ends after epoch 1" in line for line in said) == 2
    (run / "summary.json").unlink()  # as a kill before the end would leave it
    assert resume_images(run, quiet=True, say=lambda line: None)["rules"] == summary["rules"]
    assert [row["epoch"] for row in RunDirectory.open(run).metrics()] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--blocks", "mean-feild"], "unknown block rule 'mean-feild': did you mean 'mean-field'"),
        (["--blocks", "plain,plain"], "names 'plain' twice"),
        (["--model", "resnet21"], "6n + 2 layers"),
        (["--train.batch-size", "28"], "larger than the 27 training images"),
        (["--devices", "64"], "devices = 64 is not allowed"),
        (["--epochs", "0"], "train.epochs"),
        (["--model", "resnet20", "--model.name", "resnet32"], "named twice"),
        (["--train.lr", "1"], "unknown argument"),
    ],
)
def test_mistakes_are_one_sentence(folder, tmp_path, capsys, arguments, words):
    assert main(["image", str(folder), "--out", str(tmp_path / "run"), "--quiet", *arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert words in said[-1]
    assert not (tmp_path / "run" / "config.json").exists()


def test_report_of_an_image_run(finished):
    """Errors and depths are drawn, nothing is missing, and settings are explained by their own tree."""
    page = write_report(finished).read_text(encoding="utf-8")
    errors = ("Test error, %", " points", "blocks.lr_t")
    blocks = ("Depth t of the blocks of stage 3", "Swaps of neighbours", "What the blocks do", "paths through a single")
    for words in errors + blocks:
        assert words in page
    assert "could not be drawn" not in page and "Not everything could be shown" not in page


def test_commands_for_points_refuse_it(finished, capsys):
    assert main(["certify", str(finished)]) == 2
    assert "is a run of image networks" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("rule", BLOCK_RULES.names())
def test_real_images_are_learnt_under_every_rule(rule, tmp_path):
    """ResNet-8, 2,000 CIFAR-10 images, a few epochs: well below the error of chance, 0.9."""
    data = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg"
    if not data.is_dir():
        pytest.skip("no CIFAR-10 here")
    tree = {
        "data": {"name": str(data), "n": 2000, "n_test": 1000},
        "model": {"name": "resnet8"},
        "blocks": {"rules": rule},
        "train": {"epochs": 6, "batch_size": 64, "schedule": "cosine"},
        "record": {"report": False, "sensitivity": False},
    }
    summary = train_images(build(tree, ImageConfig), tmp_path / "run", quiet=True, say=lambda line: None)
    # 1,000 test images: chance is 0.9 +- 0.01
    assert summary["rules"][rule]["test_error"]["mean"] < 0.78


def test_checkpoints_of_an_older_version_are_refused(finished, tmp_path):
    """mfresnet 0.1 kept a momentum of its own, and wrote no number of the structure."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "summary.json").unlink()
    stored = json.loads((run / "config.json").read_text())
    del stored["state"]
    (run / "config.json").write_text(json.dumps(stored))
    with pytest.raises(MfresnetError, match=r"are of mfresnet 0\.1, whose optimiser state this version does not read"):
        resume_images(run, say=lambda line: None)
