"""Sweeps on disk: killed and resumed the result is identical; stopped in order; one process at a time; bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_sweeps import CELLS, FLAGS, cells, same

from forked import Commands
from mfresnet import MfresnetError
from mfresnet.cli import main
from mfresnet.runs.lock import hold_lock
from mfresnet.runs.sweeps import SweepDirectory, resume_sweep

posix = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp("commands"))


@pytest.fixture(scope="module")
def whole(commands, tmp_path_factory) -> Path:
    """The uninterrupted sweep."""
    out = tmp_path_factory.mktemp("whole") / "sweep"
    commands.said = commands.run("sweep", "grid", *FLAGS, "--out", out)
    return out


def wait_for(process, sweep: Path, count: int) -> None:
    """Until that many cells are done (or the process has ended)."""
    while process.is_alive() and len(cells(sweep)) < count:
        time.sleep(0.002)


def test_what_a_sweep_leaves(whole, commands):
    assert len(cells(whole)) == CELLS
    config, result = (json.loads((whole / f"{name}.json").read_text()) for name in ("config", "result"))
    assert (
        config["experiment"] == "grid" and config["versions"]["jax"] and config["command"].startswith("mfresnet sweep")
    )
    assert len(config["batches"]) == 3 and config["settings"]["model"]["width"] == 3
    assert result["verdict"] and result["points"] and result["figures"]
    table, same_table = pl.read_csv(whole / "cells.csv"), pl.read_parquet(whole / "cells.parquet")
    assert len(table) == len(same_table) == CELLS and set(table.columns) == set(same_table.columns)
    assert table["cell"].to_list() == list(range(CELLS)) and table["test.error"].is_not_null().all()
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "sweep sweep" in page and "test.error against model.depth" in page and "Not everything could" not in page
    assert "verdict" in commands.said and result["verdict"] in commands.said
    assert [path.name for path in whole.rglob(".*")] == [".lock"]


@posix
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(seed, commands, whole, tmp_path):
    random, sweep, kills = np.random.default_rng(seed), tmp_path / "sweep", 0
    process = commands.start("sweep", "grid", *FLAGS, "--out", sweep)
    for after in (0, 1, 5):  # before the first cell, amid the writing of a batch, later
        while process.is_alive() and not (sweep / "config.json").exists():
            time.sleep(0.001)
        wait_for(process, sweep, after)
        time.sleep(random.uniform(0, 0.01 if after else 0.3))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        before = cells(sweep)
        process = commands.start("resume", sweep)
    process.join()
    assert process.exitcode == 0, commands.log.read_text()
    assert kills >= 2
    assert before.items() <= cells(sweep).items()
    same(sweep, whole)


@posix
def test_stopped_politely(commands, whole, tmp_path):
    sweep = tmp_path / "a sweep"
    process = commands.start("sweep", "grid", *FLAGS, "--out", sweep)
    wait_for(process, sweep, 1)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    said = commands.log.read_text()
    if process.exitcode == 0:  # a quick machine was done
        assert len(cells(sweep)) == CELLS
    else:
        assert process.exitcode == 130, said
        assert f"go on with `mfresnet resume '{sweep}'`" in said and "Traceback" not in said
        assert "stopping when the steps at work are made" in said and "checkpoint" not in said
        assert json.loads((sweep / "summary.json").read_text())["status"] == "interrupted"
        assert not (sweep / "result.json").exists()
    commands.run("resume", sweep)
    same(sweep, whole)


def test_only_what_is_missing_is_run(whole, tmp_path, monkeypatch):
    from mfresnet.experiments.grid import Grid

    sweep = tmp_path / "sweep"
    subprocess.run(
        [sys.executable, "-c", "import shutil, sys; shutil.copytree(*sys.argv[1:])", whole, sweep], check=True
    )
    directory, ran = SweepDirectory.open(sweep), []
    batch = directory.config["batches"][1]
    directory.cell_file(batch[0]).unlink()
    directory.cell_file(batch[-1]).write_text('{"cell": 3, "sta')  # torn by hand: a kill cannot do that
    run = Grid.run
    monkeypatch.setattr(Grid, "run", lambda self, some, pulse: ran.append(some) or run(self, some, pulse))
    assert resume_sweep(sweep, quiet=True)["status"] == "completed"
    assert ran == [[directory.config["cells"][place] for place in batch]]
    same(sweep, whole)
    ran.clear()
    resume_sweep(sweep, quiet=True)
    assert ran == []


def test_two_sweeps_in_one_directory(whole, tmp_path, capsys):
    assert main(["sweep", "grid", *FLAGS, "--out", str(whole)]) == 2
    said = capsys.readouterr().err
    assert "exists: continue it with `mfresnet resume" in said and "--overwrite" in said
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert main(["sweep", "grid", *FLAGS, "--out", str(tmp_path / "mine"), "--overwrite"]) == 2
    assert "is no sweep directory: choose another --out" in capsys.readouterr().err
    assert main(["train", "two-spirals", "--out", str(whole), "--overwrite"]) == 2  # a sweep is no run to replace
    assert len(cells(whole)) == CELLS


@pytest.mark.parametrize("name", [".git/HEAD", ".env", "cells/photo.tif", "cells", ".lock.jsonl"])
def test_files_of_others_are_never_removed(name, tmp_path, capsys):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    for more in ([], ["--overwrite"]):
        assert main(["sweep", "grid", *FLAGS, "--out", str(tmp_path), *more]) == 2
        assert "is no sweep directory: choose another --out" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine" and not (tmp_path / ".lock").exists()


def test_what_a_sweep_killed_before_it_began_leaves_is_free(tmp_path):
    (tmp_path / "cells").mkdir()
    for name in (".lock", ".config.json.tmp"):
        (tmp_path / name).touch()
    SweepDirectory(tmp_path).check_free(overwrite=False)


def test_arrays_stay_out_of_the_tables(tmp_path):
    rows = [{"cell": 0, "state": None, "loss": 1.0}, {"cell": 1, "state": [1.0, 2.0], "loss": None}]
    SweepDirectory(tmp_path).write_tables(rows)
    assert pl.read_csv(tmp_path / "cells.csv").columns == ["cell", "loss"]
    assert pl.read_parquet(tmp_path / "cells.parquet").columns == ["cell", "loss"]


def test_the_command_that_goes_on_says_where(tmp_path):
    directory = SweepDirectory(tmp_path / "a sweep", ("--executor", "ray", "--address", "h:1"))
    assert directory.how_to_resume == f"`mfresnet resume '{tmp_path}/a sweep' --executor ray --address h:1`"


def test_data_that_changed_are_refused(tmp_path, capsys, monkeypatch):
    """The cells that are missing would be trained on other points than those that are there."""
    from mfresnet.experiments.grid import Grid

    monkeypatch.setattr(Grid, "run", lambda self, some, pulse: [{"status": "completed", "test.error": 0.1}] * len(some))
    table, out = tmp_path / "points.csv", tmp_path / "sweep"
    rows = [f"{x:.2f},{x * x:.2f},{'ab'[k % 2]}" for k, x in enumerate(np.linspace(0.1, 1, 24))]
    table.write_text("\n".join(["x,y,target", *rows]))
    own = ["--set", "train.learning_rate=0.01", "--seeds", "1", "--train.steps", "2", "--data.name", str(table)]
    own += ["--data.target", "target"]
    assert main(["sweep", "grid", *own, *FLAGS[6:10], "--out", str(out), "--quiet"]) == 0
    capsys.readouterr()
    before = (out / "config.json").read_bytes()
    table.write_text("\n".join(["x,y,target", *rows[::-1]]))
    assert main(["resume", str(out)]) == 2
    said = capsys.readouterr().err
    assert "the data of 'points.csv' changed since the sweep began" in said and "run a new sweep" in said
    stored = json.loads(before)
    assert list(stored["data_sums"]) == ["points.csv"]
    table.write_text("\n".join(["x,y,target", *rows]))
    assert main(["resume", str(out), "--quiet"]) == 0


def test_one_process_at_a_time(whole, commands):
    with hold_lock(whole):
        said = commands.run("resume", whole, code=2)
    assert f"{str(whole)!r} is in use by another process: wait for it, or stop it first." in said
    with hold_lock(whole):  # released by its holder, and free again
        pass


def test_a_lock_ends_with_its_process(tmp_path):
    """A killed holder leaves no lock behind: the kernel releases it."""
    code = "import sys, time, pathlib; from mfresnet.runs.lock import hold_lock\n"
    code += "with hold_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(MfresnetError, match="is in use by another process"), hold_lock(tmp_path):
        raise AssertionError
    holder.kill()
    holder.communicate()
    with hold_lock(tmp_path):
        pass


def test_one_of_many_threads_has_the_lock(tmp_path):
    inside, most = [], []

    def want(_: int) -> None:
        with suppress(MfresnetError), hold_lock(tmp_path):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(want, range(16)))
    assert set(most) == {1}


def test_a_cell_that_diverges(tmp_path, capsys):
    flags = [*("--set", "train.learning_rate=0.1,1e8", "--train.rule", "sgd", "--seeds", "1"), *FLAGS[6:]]
    assert main(["sweep", "grid", *flags, "--out", str(tmp_path / "sweep"), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "cell 1 (train.learning_rate = 100000000.0, seed = 0) diverged at step" in err
    assert "2 of 2 done, 1 diverged" in out and "1 of 2 cells diverged and is left out of fits." in out
    row = json.loads((tmp_path / "sweep" / "cells" / "000001.json").read_text())
    assert row["status"] == "diverged" and row["diverged.step"] > 0 and "train.loss" not in row
    assert pl.read_csv(tmp_path / "sweep" / "cells.csv")["status"].to_list() == ["completed", "diverged"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["rat"], "invalid choice: 'rat'"),
        (["rate", "--n", ","], "n is empty: give whole numbers"),
        (["rate", "--n", "8,0"], "give whole numbers >= 2"),
        (["rate", "--train.stepz", "3"], "did you mean --train.steps"),
        (["rate", "--data.name", "no-such"], "unknown data set 'no-such'"),
        (["grid", "--set", "model.alpha"], "give NAME=VALUE,VALUE"),
        (["rate", "--executor", "slurm"], "unknown executor 'slurm'"),
        (["rate", "--address", "h:1"], "give --executor ray with it"),
        ([], "NAME"),
    ],
)
def test_bad_input_is_one_sentence(flags, words, tmp_path, capsys):
    out = tmp_path / "sweep"
    assert main(["sweep", *flags, *(["--out", str(out)] if flags else [])]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not out.exists()


def test_resume_of_what_is_no_sweep(whole, tmp_path, capsys):
    assert main(["resume", str(tmp_path), "--executor", "local"]) == 2
    assert "--executor is of sweeps" in capsys.readouterr().err
    with pytest.raises(MfresnetError, match="is no sweep directory"):
        resume_sweep(tmp_path)


def test_changed_settings_are_refused(whole, tmp_path):
    config = json.loads((whole / "config.json").read_text())
    config["settings"]["seeds"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MfresnetError, match="no longer give its cells"):
        resume_sweep(tmp_path, quiet=True)
