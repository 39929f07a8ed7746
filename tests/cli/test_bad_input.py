"""Whatever a user gets wrong is one clear sentence on the error stream and exit code 2, never a traceback."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mfresnet.cli import main

GOOD = "a,b,kind\n" + "".join(f"{i},{(i * 7) % 5},{'no' if i % 2 else 'yes'}\n" for i in range(1, 13))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files to get wrong, as the working directory."""
    folder = tmp_path_factory.mktemp("inputs")
    texts = {
        "good.csv": GOOD,
        "empty.csv": "",
        "text.csv": GOOD.replace("3,1,no", "3,many,no"),
        "nan.csv": GOOD.replace("3,1,no", "3,nan,no"),
        "inf.csv": GOOD.replace("3,1,no", "3,inf,no"),
        "one_class.csv": GOOD.replace("yes", "no"),
        "one_row.csv": "a,b,kind\n1,2,no\n",
        "header.csv": "a,b,kind\n",
        "numeric.csv": "a,b,y\n" + "".join(f"{i},{(i * 7) % 5},{i / 7:.3f}\n" for i in range(1, 41)),
        "broken.toml": "[model\ndepth = 3",
        "unknown.toml": "[model]\ndepht = 3\n",
        "wrong.toml": '[model]\ndepth = "deep"\n',
        "flat.toml": 'data = "circles"\n',
        "huge.toml": "seed = " + "9" * 5000,
        "foreign/config.json": '{"name": "not ours"}',
        "something": "a file",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "latin.toml").write_bytes(b"# caf\xe9\n")
    np.save(folder / "x.npy", np.ones((4, 2)))
    np.save(folder / "y.npy", np.ones(3))
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


TINY = "--data.n 16 --data.n_test 8 --model.depth 2 --model.width 2"
CASES = {
    # files
    "train missing.csv --data.target kind": "file 'missing.csv' does not exist.",
    "train empty.csv --data.target kind": "file 'empty.csv' is empty.",
    "train header.csv --data.target kind": "header.csv",
    "train good.csv --data.target color": "'color'",
    "train good.csv": "data.target",
    "train text.csv --data.target kind": "'many'",
    "train nan.csv --data.target kind": "'b'",
    "train inf.csv --data.target kind": "'b'",
    "train one_class.csv --data.target kind": "'no'",
    "train one_row.csv --data.target kind": "row",
    "train x.npy --data.labels y.npy": "4",
    "train x.npy": "data.labels",
    "train foreign": "directory",
    "train good.csv --data.target kind --data.n 900": "data.n = 900",
    # unknown names
    "train two-spiral": "did you mean 'two-spirals'?",
    "train --model.activation tahn": "did you mean 'tanh'",
    "train --train.rule adamm": "unknown train.rule 'adamm': did you mean 'adam'?",
    "train --train.rule optax:adamm": "optax:adamm",
    "train --train.rule optax:adam_w": "optax:adam_w",
    f"train {TINY} --train.rule optax:lbfgs": "train.rule = 'optax:lbfgs' needs more than gradients",
    "train --model.dept 3": "did you mean --model.depth",
    "train --model.head-widht 3": "did you mean --model.head_width",
    "train --overwritten": "did you mean --overwrite?",
    "trian": "did you mean 'train'?",
    "resume --quit RUN": "did you mean --quiet?",
    "datasets --all": "unknown argument '--all'",
    "train circles circles": "unknown argument 'circles'",
    "train --model.activation no.such:THING": "cannot be loaded",
    # values
    "train --model.depth 0": "model.depth = '0' is not allowed: give a whole number >= 1 and <= 1000000.",
    "train --model.width -3": "model.width = '-3' is not allowed: give a whole number >= 1 and <= 1000000.",
    "train --model.depth 2.5": "give a whole number >= 1",
    "train --model.alpha nan": "model.alpha = 'nan' is not allowed: give a number >= 0 and <= 1e+06.",
    "train --model.alpha inf": "model.alpha = 'inf'",
    "train --model.alpha 1e300": "<= 1e+06",
    "train --train.tolerance 0": "give a number > 0 and < 1.",
    "train --seed -1": "seed = '-1' is not allowed: give a whole number >= 0",
    "train --data.n 1": "give a whole number >= 2",
    "train --data.n two": "data.n = 'two'",
    "train --model.bias maybe": "model.bias = 'maybe' is not allowed: give true or false.",
    "train --model.scheme rk5": "unknown depth scheme 'rk5': did you mean 'rk4'? Known: euler, midpoint, rk4.",
    "train --model.depth": "argument --model.depth",
    "train --model.depth= ": "model.depth = ''",
    "train --model.depth 3 --model.depth 4": "--model.depth is given twice",
    "train --model.head-width 3 --model.head_width 4": "--model.head_width is given twice",
    "train --out a --out b": "--out is given twice",
    "train circles --data.name circles": "the data is named twice",
    # too large
    "train --data.n 1000000000000": "memory",
    "train sphere-teacher --data.dimension 100000 --data.n 100000000": "memory",
    "train --data.n 16 --model.depth 1000000 --model.width 1000000": "lower data.n (16), model.depth (1000000)",
    f"train {TINY} --model.head_width 10000000 --train.head_probes 10000000 --model.embedding fixed "
    "--model.embedding_dimension 1000000": "GiB",
    # settings that contradict each other or the data
    f"train {TINY} --train.batch_size 4": "--train.solver heun or euler",
    f"train {TINY} --train.batch_size 17 --train.rule adam": "give a value <= 16",
    f"train {TINY} --model.embedding_dimension 5": "set model.embedding fixed or trained",
    f"train {TINY} --model.head false": "a network without head returns its state of dimension 2",
    f"train {TINY} --model.head false --model.embedding fixed --model.embedding_dimension 1 --train.freeze head": (
        "train.freeze = 'head' has no effect"
    ),
    "train numeric.csv --data.target y --train.loss logistic": "needs classes",
    "train circles --data.turns 3": "data.turns = 3.0 does not apply to 'circles'",
    "train good.csv --data.target kind --data.noise 0.1": "data.noise = 0.1 does not apply",
    # configuration files
    "train --config missing.toml": "configuration file 'missing.toml' cannot be read: No such file or directory.",
    "train --config foreign": "Is a directory",
    "train --config broken.toml": "is no valid TOML",
    "train --config latin.toml": "is no valid TOML",
    "train --config huge.toml": "is no valid TOML",
    "train --config unknown.toml": "'unknown.toml': unknown setting 'model.depht': did you mean model.depth",
    "train --config wrong.toml": "'wrong.toml': model.depth = 'deep' is not allowed: give a whole number",
    "train --config flat.toml --data.n 16": "data = 'circles' is not allowed: give a table of settings.",
    # directories
    f"train {TINY} --out something": "'something' exists and is no run directory: choose another --out.",
    f"train {TINY} --out foreign --overwrite": "'foreign' exists and is no run directory: choose another --out.",
    f"train {TINY} --out something/run": "cannot write 'something/run': Not a directory",
    "resume nowhere": "'nowhere' is no run directory: it has no config.json.",
    "resume something": "is no run directory",
    "resume foreign": "is damaged: it needs config and versions.",
    "resume": "required: RUN",
    "report nowhere": "'nowhere' is no run directory",
}


@pytest.mark.parametrize("command", CASES)
def test_one_sentence(command, folder, capsys):
    argv = command.split(" ")
    inside = sorted(str(p) for p in folder.rglob("*"))
    code = main([part for part in argv if part])
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("mfresnet: ")
    assert CASES[command] in err
    assert err.rstrip()[-1] in ".?"
    assert len(err) < 500
    assert sorted(str(p) for p in folder.rglob("*")) == inside


def test_existing_run_is_kept(folder, capsys):
    run = folder / "a run"
    run.mkdir()
    (run / "config.json").write_text('{"config": {}, "versions": {}}')
    assert main(["train", *TINY.split(), "--out", str(run)]) == 2
    err = capsys.readouterr().err
    assert err == (
        f"mfresnet: run directory '{run}' exists: continue it with `mfresnet resume '{run}'`, "
        "replace it with --overwrite, or choose another --out.\n"
    )
    assert (run / "config.json").exists()
