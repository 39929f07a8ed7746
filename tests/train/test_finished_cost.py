"""The predicted cost of measuring and certifying: counts of what is really done, and commands that do nothing."""

import numpy as np
import pytest

from mfresnet import Config
from mfresnet.bounds import nested
from mfresnet.certify import draws as drawn
from mfresnet.certify import gibbs
from mfresnet.cli import main
from mfresnet.kernels import eigen
from mfresnet.runs import certify, measure, predict_certify, predict_measure, train
from mfresnet.train import finished_cost
from mfresnet.train.cost import Machine

MACHINE = Machine(operation=7e-6, element=2e-9, product=2e-11)
FLOW = {"solver": "euler", "steps": 6, "time": 1.0, "probes": 16, "head_probes": 64}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Encoder 60, head 20 parameters; five recorded times beside the start; 24 training points."""
    path = tmp_path_factory.mktemp("cost") / "run"
    config = Config(
        data={"n": 24, "n_test": 8},
        model={"depth": 3, "width": 4, "head_width": 4},
        train=FLOW,
        record={"report": False, "snapshots": 5},
        certify={"heads": (8, 16), "residuals": (3, 5, 9), "draws": 20, "prior_share": 0.5, "prior_steps": 30},
    )
    train(config, path, quiet=True, say=lambda text: None)
    return path


def files(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_eigenvalue_problems_are_those_that_are_solved(run, monkeypatch):
    """Of 24 rows the head has rank 20: its smallest eigenvalue is known without a computation."""
    predicted = predict_measure(run)
    calls = []
    solve, lowest = np.linalg.eigvalsh, eigen._dense
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda a: calls.append(len(a)) or solve(a))
    monkeypatch.setattr(eigen, "_dense", lambda a, *rest: calls.append(len(a)) or lowest(a, *rest))
    rows = measure(run, say=lambda text: None)
    assert predicted.counts["checkpoints"] == len(rows)
    assert predicted.counts["eigenvalue problems"] == len(calls) == 5 * len(rows)
    assert {predicted.counts["Gram rows"]} == set(calls)
    assert predict_measure(run, points=10).counts["Gram rows"] == 10


def test_draws_are_those_that_are_made(run, monkeypatch):
    """Within a fifth: draws on the test points, and copies that fill the last block, are not counted."""
    predicted = predict_certify(run)
    count, mistakes = [0], nested.mistakes_by_heads

    def counted(chosen, probes, model, x, y, heads):
        count[0] += len(chosen.heads) * (len(x) != 8)
        return mistakes(chosen, probes, model, x, y, heads)

    for module in (drawn, nested):
        monkeypatch.setattr(module, "mistakes_by_heads", counted)
    certificates = certify(run, say=lambda text: None)
    assert {"pac_bayes", "pac_bayes_learned", "gibbs"} <= set(certificates)
    assert predicted.counts["draws"] == pytest.approx(count[0], rel=0.2)
    assert gibbs.FEW == finished_cost.FEW


def test_what_limits(run):
    def cost(n=512, outputs=1, machine=MACHINE, **certify):
        config = Config(train={"steps": 10}, certify=certify)
        return finished_cost.predict_certifying(config, n, 64, 2, outputs, 10, machine)

    assert cost(n=100_000).limit == "draws"
    assert cost(prior_share=0.5, prior_steps=500).limit == "trained prior"
    twice = [cost(n=n, outputs=3, machine=Machine(0.0, 1e-9, 0.0)).seconds for n in (512, 1024)]
    assert twice[1] == pytest.approx(2 * twice[0])
    held_out = finished_cost.predict_certifying(Config(train={"rule": "adam"}), 512, 64, 2, 1, 10, MACHINE)
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
        ("measure nowhere", "is no run directory"),
    ],
)
def test_a_dry_run_refuses_what_the_command_would_refuse(run, words, message, capsys):
    assert main([*words.format(run=run).split(), "--dry-run"]) == 2
    assert message in capsys.readouterr().err
