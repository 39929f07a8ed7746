"""What the commands print and where, what they load, and what stops them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scipy.stats import binom

import mfresnet.runs
from mfresnet import cli
from mfresnet.bounds import held_out_certificate
from mfresnet.cli import main

LOADED = "import sys; from mfresnet.cli import main; code = main(sys.argv[1:]); print('jax' in sys.modules, code)"


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["datasets"], ["train", "--help"], ["nonsense"]])
def test_quick_commands_leave_jax_alone(command):
    done = subprocess.run([sys.executable, "-c", LOADED, *command], capture_output=True, text=True)
    if "--help" in command:  # argparse prints its help and exits
        assert done.returncode == 0
        assert "usage: mfresnet" in done.stdout
        done = subprocess.run([sys.executable, "-X", "importtime", "-m", "mfresnet", *command], capture_output=True)
        assert b"mfresnet.cli" in done.stderr
        assert b"| jax" not in done.stderr.replace(b" ", b"").replace(b"|", b"| ")
    else:
        assert done.stdout.splitlines()[-1].split() == ["False", "2" if command == ["nonsense"] else "0"]


def test_trains_as_a_module_with_results_on_stdout_only(tmp_path):
    """A real process without a terminal: no progress bar, messages apart from results, everything written."""
    small = "--data.n 16 --data.n_test 8 --model.depth 2 --model.width 2 --train.steps 4 --train.rule adam"
    small += " --diagnostics.landscape false --diagnostics.gram_every 0"
    command = [sys.executable, "-m", "mfresnet", "train", "two-spirals", *small.split(), "--out", "run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names[:2] == ["status", "train.loss"]
    assert {"train.error", "test.error", "test.n", "run", "report"} <= set(names)
    assert "step/s" not in done.stderr
    assert "\r" not in done.stderr
    assert "Traceback" not in done.stderr
    inside = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "metrics.jsonl", "summary.json", "report.html", "arrays", "checkpoints"} <= inside
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.name.startswith(".")] == [".lock"]


def test_closed_pipe_is_no_mistake():
    done = subprocess.run(
        f"{sys.executable} -m mfresnet datasets | true", shell=True, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""


def test_without_a_command_help(capsys):
    assert main([]) == 0
    assert "usage: mfresnet" in capsys.readouterr().out


def test_quiet_reaches_the_run(monkeypatch):
    seen = {}

    def train(config, out, **options):
        seen.update(options, out=out)
        return {"status": "completed", "test.n": 1, "wall_s": 0.0, "train.loss": None}

    monkeypatch.setattr(mfresnet.runs, "train", train)
    monkeypatch.setattr("mfresnet.report.write_report", lambda run: run / "report.html")
    assert main(["train", "circles", "--quiet"]) == 0
    assert seen["quiet"] is True
    assert seen["command"] == "mfresnet train circles --quiet"
    assert seen["out"].parts == ("runs", "circles")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (OSError(28, "No space left on device", "here"), 2, "mfresnet: 'here': No space left on device.\n"),
        (MemoryError(), 2, "mfresnet: out of memory: lower data.n"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"), 2, "mfresnet: out of memory: "),
        (KeyboardInterrupt(), 130, "mfresnet: stopped.\n"),
        (KeyboardInterrupt("stopped: go on with X."), 130, "mfresnet: stopped: go on with X.\n"),
    ],
)
def test_what_stops_a_command(raised, code, said, monkeypatch, capsys):
    def stop(options, argv):
        raise raised

    monkeypatch.setitem(cli.COMMANDS, "datasets", (*cli.COMMANDS["datasets"][:2], stop))
    assert main(["datasets"]) == code
    assert said in capsys.readouterr().err


def test_a_mistake_of_ours_is_not_hidden(monkeypatch):
    def broken(options, argv):
        raise RuntimeError("a bug")

    monkeypatch.setitem(cli.COMMANDS, "datasets", (*cli.COMMANDS["datasets"][:2], broken))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["datasets"])


def test_any_predictor_is_certified_by_its_counts(capsys):
    assert main(["certify", "--errors", "3", "--points", "280", "--compared", "8", "--delta", "0.05"]) == 0
    printed = capsys.readouterr().out
    # P(Bin(280, p) <= 3) = 0.05/8
    assert binom.cdf(3, 280, held_out_certificate(3, 280, compared=8).value) == pytest.approx(0.05 / 8)
    assert "held_out: error <= 0.03762 with probability 0.95 (assumed)" in printed


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--errors", "6", "--points", "5"], "errors = 6"),
        (["--errors", "-1", "--points", "5"], "errors = -1"),
        (["--errors", "1"], "--errors and --points"),
        ([], "run directory"),
        (["--errors", "1", "--points", "0"], "points = 0"),
        (["--errors", "1", "--points", "9", "--compared", "0"], "compared = 0"),
        (["--errors", "1", "--points", "9", "--delta", "1"], "delta = 1"),
        (["--errors", "1", "--points", "9", "--guessing", "1"], "guessing = 1"),
        (["--errors", "1", "--points", "9", "--heads", "4"], "--heads is for a run"),
        (["runs/none", "--errors", "1", "--points", "9"], "--errors is for a predictor"),
    ],
)
def test_bad_counts_are_one_sentence(argv, words, capsys):
    assert main(["certify", *argv]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mfresnet: ") and said.count("\n") == 1 and words in said
