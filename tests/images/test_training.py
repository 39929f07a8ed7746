"""Training: one step against Optax, stops anywhere, runs on disk. One compiled program serves all of these."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from image_folders import write_folder

from mfresnet import MfresnetError
from mfresnet.cli import main
from mfresnet.config import build
from mfresnet.experiments import Forget, create
from mfresnet.experiments.table1.training import trained
from mfresnet.images.configuration import BLOCK_RULES, ImageConfig
from mfresnet.images import RULES, Architecture, Ensemble, ImageTrainer, make_rule
from mfresnet.images import rows as image_rows
from mfresnet.images.job import assemble_images
from mfresnet.images.paired import over_seeds, paired
from mfresnet.images.rows import image_summary
from mfresnet.images.training import Weights, cross_entropy
from mfresnet.report import write_report
from mfresnet.runs import RunDirectory, checkpoint, resume_images, train_images
from mfresnet.runs.image_training import _split

EPOCHS, PER_EPOCH = 4, 3
SEEDS, RATE = 2, 20.0  # lr_t: blocks of a few steps' training swap


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images") / "set", {"train": 9, "test": 4})


@pytest.fixture(scope="module")
def config(folder) -> ImageConfig:
    """Two seeds of a network of 20 layers, plain and mean-field, whose blocks do swap."""
    tree = {
        "data": {"name": str(folder)},
        "model": {"name": "resnet20", "width": 2},
        "blocks": {"rules": "plain,mean-field", "lr_t": RATE},
        "train": {"seeds": SEEDS, "epochs": EPOCHS, "batch_size": 8},
        "record": {"report": False},
    }
    return build(tree, ImageConfig)


@pytest.fixture(scope="module")
def job(config):
    return assemble_images(config, _split(config, lambda line: None))


@pytest.fixture(scope="module")
def stopped_and_finished(config, tmp_path_factory) -> tuple[dict, list[str], Path]:
    """Ctrl-C after the second epoch, then `mfresnet resume`; the summary of the stopped run."""
    out, append, said = tmp_path_factory.mktemp("run") / "run", RunDirectory.append_metrics, []

    def then_stop(run, row):
        append(run, row)
        if (row["rule"], row["epoch"]) == ("mean-field", 2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "append_metrics", then_stop)
        train_images(config, out, quiet=True, say=said.append)
    stopped = RunDirectory.open(out).summary
    assert main(["resume", str(out), "--quiet"]) == 0
    return stopped, said, out


@pytest.fixture(scope="module")
def finished(stopped_and_finished) -> Path:
    """A run of two rules at its end."""
    return stopped_and_finished[2]


def same(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_any_chunks_give_the_same_bits(job):
    """Three steps at once, or two and one."""
    once = job.networks.advance(job.init(), 3)
    twice = job.networks.advance(job.networks.advance(job.init(), 2), 1)
    same(once, twice)
    moving = once["mean-field"].weights
    assert moving.coordinates[0]["s"].shape == (2, 3)
    assert not np.array_equal(moving.network.stem[0], moving.network.stem[1])  # seeds differ


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
        image_rows, "block_sensitivity", lambda job, name, state: {"first_order_share": float(state.step[0]) / 100}
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


def test_divergence_is_told(config, tmp_path):
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
    assert sum("no seed is left: the rule ends after epoch 1" in line for line in said) == 2
    (run / "summary.json").unlink()  # as a kill before the end would leave it
    assert resume_images(run, quiet=True, say=lambda line: None)["rules"] == summary["rules"]
    assert [row["epoch"] for row in RunDirectory.open(run).metrics()] == [1, 1]


def test_descent_is_that_of_optax():
    """Momentum, decay and clipping of the weights; depth without decay and with its own rate."""
    trainer = ImageTrainer(
        jnp.zeros(3), jnp.ones(3), Architecture.named("resnet26"), make_rule("mean-field", rate=0.5), n=40, classes=2,
        batch=4, epochs=1, rate=0.1, schedule="constant", momentum=0.8, decay=0.01, clip=0.3,
    )  # fmt: skip
    rng = np.random.default_rng(0)

    def draw():
        return Weights(
            {"w": jnp.asarray(rng.normal(size=4))}, tuple({"s": jnp.asarray(rng.normal(size=2))} for _ in range(3))
        )

    weights = Weights({"w": draw().network["w"]}, tuple({"s": jnp.array([0.6, 1.3])} for _ in range(3)))
    reference = optax.chain(
        optax.clip_by_global_norm(0.3),
        optax.masked(optax.add_decayed_weights(0.01), Weights({"w": True}, ({"s": False},) * 3)),
        optax.trace(0.8),
        optax.masked(optax.scale(0.5), Weights({"w": False}, ({"s": True},) * 3)),
        optax.scale(-0.1),
    )
    moments, velocity, expected = reference.init(weights), jax.tree.map(jnp.zeros_like, weights), weights
    for step in range(3):
        gradient = draw()
        updates, moments = reference.update(gradient, moments, expected)
        expected = optax.apply_updates(expected, updates)
        weights, velocity = trainer.moved(weights, velocity, gradient, jnp.asarray(step))
    for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_label_smoothing():
    """Against -sum q log p with q written out."""
    logits, y = jax.random.normal(jax.random.key(0), (4, 5)), jnp.array([0, 4, 2, 2])
    q = 0.9 * jax.nn.one_hot(y, 5) + 0.1 / 5
    np.testing.assert_allclose(cross_entropy(logits, y, 0.1), -jnp.sum(q * jax.nn.log_softmax(logits), -1), rtol=1e-5)


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


def test_intervals_over_seeds():
    """Student's interval of 1, 2, 3: 2 +- 4.303/sqrt(3); lost seeds are counted, and left out of pairs."""
    np.testing.assert_allclose(over_seeds([1.0, 2.0, 3.0])["high"], 2 + 4.302653 / 3**0.5, rtol=1e-6)
    assert over_seeds([1.0, None])["lost"] == 1 and over_seeds([1.0])["low"] is None
    assert paired([0.1, None, 0.3, 0.2], [0.2, 0.1, 0.41, 0.29])["verdict"] == "higher error"
    assert paired([0.1], [0.2])["verdict"] == "one seed: no interval"
    # 0.2 - 0.1 and 0.3 - 0.2 differ in their last bits, which is no spread
    assert paired([0.1, 0.2], [0.2, 0.3])["verdict"] == "no spread over seeds: not judged"


def test_the_configuration_names_every_rule():
    """The tree of settings is read without JAX and so has its own list."""
    assert tuple(RULES) == BLOCKS


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


def test_table_rows_are_judged_on_matched_seeds():
    """Cells, batches and verdict of `mfresnet sweep table1`, with errors put in by hand."""
    experiment = create("table1", {"rows": "resnet20,resnet32", "seeds": 3})
    cells = experiment.cells()
    assert len(cells) == 12 and experiment.batches(cells) == [[*range(6)], [*range(6, 12)]]
    better = {"plain": [0.0875, 0.0880, 0.0870], "mean-field": [0.0820, 0.0826, 0.0813]}
    rows = [
        cell | {"status": "completed", "test_error": better[cell["rule"]][cell["seed"]]}
        if cell["row"] == "resnet20"
        else cell | {"status": "diverged", "test_error": 0.9}
        for cell in cells
    ]
    result = experiment.analyse(rows)
    assert "resnet20, mean-field minus plain: -0.55 points" in result.verdict and "lower error" in result.verdict
    assert result.passed is None  # the other row has nothing to judge by
    assert [point["reported"] for point in result.points] == [8.75, 8.19, 7.51, 7.15]
    with pytest.raises(MfresnetError, match="did you mean 'resnet20'"):
        create("table1", {"rows": "resnet200"}).cells()


def test_a_table_is_made_of_image_runs(folder, finished):
    """`Table1.run` gives the errors, swaps and depths of the same run on disk."""
    tree = {"rows": "resnet20", "data": str(folder), "width": 2, "seeds": SEEDS, "epochs": EPOCHS, "batch_size": 8}
    experiment = create("table1", tree | {"lr_t": RATE, "precision": "float32"})
    cells = experiment.cells()
    rows = [
        cells[i] | row
        for batch in experiment.batches(cells)
        for i, row in zip(batch, experiment.run([cells[i] for i in batch]), strict=True)
    ]
    whole, metrics = RunDirectory.open(finished).summary["rules"], RunDirectory.open(finished).metrics()
    assert [row["test_error"] for row in rows] == whole["plain"]["test_errors"] + whole["mean-field"]["test_errors"]
    assert "t_by_epoch" not in rows[0] and "swaps" not in rows[0]
    for seed, row in enumerate(rows[SEEDS:]):
        assert row["swaps_by_epoch"] == [np.sum(own["swaps"][seed]) for own in metrics[1::2]]
        assert row["swaps"] == sum(row["swaps_by_epoch"])
        assert row["t_by_epoch"] == [own["t"][seed] for own in metrics[1::2]]
    result = experiment.analyse(rows)
    titles = [figure.title for figure in result.figures[1:]]
    assert titles[0] == "resnet20, mean-field: depth t of the blocks of stage 1, seed 0" and len(titles) == 4
    assert titles[-1] == "resnet20, mean-field: swaps of neighbours in an epoch"
    assert result.figures[1].data[2]["y"] == [epoch[0][2] for epoch in rows[SEEDS]["t_by_epoch"]]
    assert [trace["name"] for trace in result.figures[0].data] == [
        "plain", "plain, reported", "mean-field", "mean-field, reported"
    ]  # fmt: skip
    assert result.figures[0].data[0]["y"] == [pytest.approx(100 * whole["plain"]["test_error"]["mean"])]


def test_a_table_leaves_a_rule_without_seeds(config, folder):
    train = config.train.model_copy(update={"learning_rate": 1e30})
    job = assemble_images(config.model_copy(update={"train": train}), _split(config, lambda line: None))
    shares: list[float] = []
    rows = trained(job, shares.append, Forget(), 60.0)
    for own in rows.values():
        assert [(row["status"], row["diverged.step"]) for row in own] == [("diverged", PER_EPOCH)] * SEEDS
        assert np.isnan(own[0]["test_error"])
    assert shares[-1] == 1 / EPOCHS


@pytest.mark.slow
@pytest.mark.parametrize("rule", BLOCKS)
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


@pytest.mark.slow
def test_divided_over_devices(folder, tmp_path):
    """Two devices that share each minibatch give the numbers of one, to rounding; statistics are the whole batch's.

    A run that was stopped on two goes on with one.
    """
    code = f"""
import os, signal
from pathlib import Path
import jax, numpy as np
from mfresnet.config import build
from mfresnet.images.configuration import ImageConfig
from mfresnet.data.images import load_images
from mfresnet.images.job import assemble_images
from mfresnet.runs import RunDirectory, resume_images, train_images
assert len(jax.devices()) == 2
tree = {{
    "data": {{"name": {str(folder)!r}}}, "model": {{"name": "resnet8", "width": 2}},
    "train": {{"epochs": 2, "batch_size": 8}}, "record": {{"report": False, "sensitivity": False}},
}}
config, states = build(tree, ImageConfig), []
for devices in (1, 2):
    job = assemble_images(config, load_images({str(folder)!r}), devices)
    states.append(job.networks.advance(job.init(), 2)["plain"])
for a, b in zip(*map(jax.tree.leaves, (s.statistics for s in states)), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
assert len(states[1].weights.network.stem.sharding.device_set) == 2

append, out = RunDirectory.append_metrics, Path({str(tmp_path)!r})
def then_stop(run, row):
    append(run, row)
    os.kill(os.getpid(), signal.SIGINT)
RunDirectory.append_metrics = then_stop
assert train_images(config, out / "two", quiet=True, devices=2)["status"] == "interrupted"
RunDirectory.append_metrics = append
found = resume_images(out / "two", quiet=True), train_images(config, out / "one", quiet=True)
assert [summary["status"] for summary in found] == ["completed"] * 2
a, b = (RunDirectory.open(out / name).metrics()[-1]["train_loss"] for name in ("two", "one"))
np.testing.assert_allclose(a, b, rtol=1e-2)  # rounding, grown over an epoch at a rate of 0.1
"""
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"XLA_FLAGS": flags}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
