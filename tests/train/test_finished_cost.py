"""The predicted cost of measuring and certifying: counts of what is really done, and commands that do nothing."""

import json
import shutil

import numpy as np
import pytest

from mfresnet import Config
from mfresnet.bounds import nested
from mfresnet.certify import Grid
from mfresnet.certify import draws as drawn
from mfresnet.cli import main
from mfresnet.config import build, merge
from mfresnet.kernels import eigen
from mfresnet.runs import certify, measure, predict_certify, predict_measure, train
from mfresnet.train import finished_cost
from mfresnet.train.cost import Machine

MACHINE = Machine(operation=7e-6, element=2e-9, product=2e-11)
FLOW = {"solver": "euler", "steps": 6, "time": 1.0, "probes": 16, "head_probes": 64}


def small(changes):
    """Encoder 60, head 20 parameters; 24 training points; six recorded times beside the start."""
    config = Config(
        data={"n": 24, "n_test": 9},
        model={"depth": 3, "width": 4, "head_width": 4},
        train=FLOW,
        record={"report": False, "metrics_every": 1, "snapshots": 40},
        diagnostics={"landscape": False},
        certify={"heads": (8, 16), "residuals": (3, 5, 9), "draws": 20, "prior_share": 0.5, "prior_steps": 30},
    )
    return build(merge(config.model_dump(), changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cost") / "run"
    train(small({}), path, quiet=True, say=lambda text: None)
    return path


def files(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_eigenvalue_problems_are_those_that_are_solved(run, monkeypatch):
    """Of 24 rows the head has rank 20: its smallest eigenvalue is known without a computation."""
    predicted, counts = eigenvalue_problems(run, monkeypatch)
    assert predicted.counts["checkpoints"] == 7
    assert predicted.counts["eigenvalue problems"] == len(counts) == 5 * 7
    assert {predicted.counts["Gram rows"]} == set(counts)
    assert predict_measure(run, points=10).counts["Gram rows"] == 10


def eigenvalue_problems(path, monkeypatch):
    """What is predicted, and the sizes of the problems that are solved."""
    predicted, calls = predict_measure(path), []
    solve, lowest = np.linalg.eigvalsh, eigen._dense
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda a: calls.append(len(a)) or solve(a))
    monkeypatch.setattr(eigen, "_dense", lambda a, *rest: calls.append(len(a)) or lowest(a, *rest))
    measure(path, say=lambda text: None)
    return predicted, calls


NO_PRIOR = {"prior_share": 0.0}
KINDS = {
    "own": {},
    # the flow of a prior of these two cannot be inverted, which only its certificate finds
    "no head": {"model": {"head": False, "embedding": "fixed", "embedding_dimension": 1}, "certify": NO_PRIOR},
    "shared": {"model": {"shared": True}},
    "midpoint": {"model": {"scheme": "midpoint"}, "train": {"solver": "heun"}},
    "batches": {"train": {"batch_size": 8}},
    "float64": {"train": {"precision": "float64"}},
    "several classes": {"data": {"name": "digits", "n": 40}, "certify": NO_PRIOR},
    "an impossible size": {"certify": {"residuals": (3, 500), "heads": (8, 5000)}},
    "no prior": {"certify": {"prior_share": 0.0, "draws": 1}},
    "adam": {"train": {"rule": "adam", "solver": "stabilised"}, "data": {"n": 7}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_the_commands(kind, tmp_path, monkeypatch):
    """Draws on training points are counted where networks are assembled; copies that fill a block are draws, too."""
    path = tmp_path / "run"
    train(small(KINDS[kind]), path, quiet=True, say=lambda text: None)
    with monkeypatch.context() as patch:
        predicted, counts = eigenvalue_problems(path, patch)
    assert predicted.counts["eigenvalue problems"] == len(counts)
    predicted, counts, mistakes = predict_certify(path), [], nested.mistakes_by_heads

    def counted(chosen, probes, model, x, y, heads):
        counts.append(len(chosen.heads) * (len(x) != 9))  # nine test points
        return mistakes(chosen, probes, model, x, y, heads)

    for module in (drawn, nested):
        monkeypatch.setattr(module, "mistakes_by_heads", counted)
    certify(path, say=lambda text: None)
    # the disjoint draws are those of the best N', which is not known before: the most are predicted
    assert sum(counts) <= predicted.counts["draws"] <= sum(counts) + 3 * finished_cost.FEW


def test_a_run_that_was_interrupted_is_counted_as_it_is(run, tmp_path):
    """Checkpoints that are no recorded times are measured, and not certified."""
    own = tmp_path / "run"
    shutil.copytree(run, own)
    before = predict_certify(own).counts["draws"], predict_measure(own).counts["checkpoints"]
    shutil.copytree(own / "checkpoints" / "step-000000006", own / "checkpoints" / "step-000000777")
    assert (predict_certify(own).counts["draws"], predict_measure(own).counts["checkpoints"]) == (
        before[0],
        before[1] + 1,
    )


def test_what_limits(run):
    grid = Grid(tuple(range(1, 11)), (8, 64, 256), (5, 40))

    def cost(n=512, outputs=1, machine=MACHINE, **certify):
        config = Config(train={"steps": 10}, certify=certify)
        return finished_cost.predict_certifying(config, grid, n, 64, 2, outputs, machine)

    assert cost(n=100_000).limit == "draws"
    assert cost(prior_share=0.5, prior_steps=500).limit == "trained prior"
    twice = [cost(n=n, outputs=3, machine=Machine(0.0, 1e-9, 0.0)).seconds for n in (512, 1024)]
    assert twice[1] == pytest.approx(2 * twice[0])
    held_out = finished_cost.predict_certifying(Config(train={"rule": "adam"}), None, 512, 64, 2, 1, MACHINE)
    assert held_out.counts["draws"] == 0 and held_out.seconds < 1e-2


@pytest.mark.parametrize("command", ["measure", "certify"])
def test_a_dry_run_changes_no_file(run, command, capsys):
    before = files(run)
    assert main([command, str(run), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "without compilation\n" in out and "limited by" in out and "memory" in out
    assert files(run) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("measure {run} --points 1", "gram_points"),
        ("certify {run} --delta 2", "delta = 2.0 is not allowed"),
        ("certify {run} --settings 0", "settings = 0 is not allowed"),
        ("certify --errors 1 --points 9", "--dry-run is for a run"),
        ("certify {run} --heads 5000", "no sub-network of the grid"),
        ("measure nowhere", "is no run directory"),
    ],
)
def test_a_dry_run_refuses_what_the_command_would_refuse(run, words, message, capsys):
    assert main([*words.format(run=run).split(), "--dry-run"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["measure", "certify"])
@pytest.mark.parametrize("facts", [None, [], {}, {"n": "a"}])
def test_damaged_facts_of_the_data_harm_no_dry_run(run, facts, command, tmp_path, capsys):
    """The data themselves are read, as the command does."""
    own = tmp_path / "run"
    shutil.copytree(run, own)
    record = json.loads((own / "config.json").read_text()) | {"data": facts}
    (own / "config.json").write_text(json.dumps(record))
    assert main([command, str(own), "--dry-run"]) == 0
    assert "limited by" in capsys.readouterr().out


def test_what_is_paid_for_is_not_forgotten(tmp_path, capsys):
    path = tmp_path / "run"
    train(small({"certify": {"settings": 7, "enabled": False}}), path, quiet=True, say=lambda text: None)
    for words in ([], ["--dry-run"]):
        assert main(["certify", str(path), "--settings", "3", *words]) == 2
        assert "settings = 3 is fewer than the 7" in capsys.readouterr().err
    shutil.rmtree(path / "checkpoints")
    for words in ([], ["--dry-run"]):
        assert main(["certify", str(path), *words]) == 2
        assert "no sound checkpoint of a recorded time" in capsys.readouterr().err
