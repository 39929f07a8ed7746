"""One run on several devices and on several processes equals the run on one device to rounding."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import flags

from mfresnet import Config
from mfresnet.runs import RunDirectory, checkpoint
from mfresnet.runs import train as run_into
from mfresnet.runs.devices import Devices, connect

FORCED = "--xla_force_host_platform_device_count="
KINDS = {
    "whole": {"train__rule": "gradient-flow", "train__solver": "heun", "data__n": 30},  # 30 points on 4 devices
    "batches": {"train__rule": "adam", "train__batch_size": 8, "data__n": 30},
}
# many commands in one process: starting JAX takes longer than the runs
COMMANDS = """
import sys, json
from mfresnet.cli import main
from mfresnet.runs import driver
import numpy as np
driver.portrait = lambda start, end, split: {"nothing": np.zeros(1, np.float32)}
codes = [main(argv) for argv in json.loads(sys.argv[1])]
print("codes", codes)
"""


def command(argvs, devices: int) -> list[str]:
    import json

    return [sys.executable, "-c", COMMANDS, json.dumps([[str(a) for a in argv] for argv in argvs])]


def environment(devices: int) -> dict[str, str]:
    flags = re.sub(FORCED + r"\d+", "", os.environ.get("XLA_FLAGS", ""))
    return os.environ | {"XLA_FLAGS": f"{flags} {FORCED}{devices}", "JAX_PLATFORMS": "cpu"}


def state(run: Path) -> dict[str, np.ndarray]:
    return checkpoint.read(run / "checkpoints", checkpoint.steps(run / "checkpoints")[-1])[0]


def close(one: Path, two: Path) -> None:
    """The last states of two runs: sums in another order, 12 steps in float32."""
    first, second = state(one), state(two)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=2e-4, atol=2e-5, err_msg=name)


def train(kind: str, out: Path, *more) -> list:
    return ["train", *flags(**KINDS[kind] | {"certify__enabled": False}), "--out", out, "--quiet", *more]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, str]:
    """Runs on one and on four devices, one to be resumed on two, and a mistake: in one process of 4 devices."""
    folder = tmp_path_factory.mktemp("devices")
    argvs = [train(kind, folder / f"{kind}-{n}", "--devices", n) for kind in KINDS for n in (1, 4)]
    argvs.append(train("whole", folder / "too-many", "--devices", 5))
    done = subprocess.run(command(argvs, 4), env=environment(4), capture_output=True, text=True, timeout=300)
    assert "codes [0, 0, 0, 0, 2]" in done.stdout, done.stdout + done.stderr
    return folder, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_four_devices_give_the_result_of_one(kind, runs):
    folder, _ = runs
    close(folder / f"{kind}-1", folder / f"{kind}-4")
    rows = [RunDirectory.open(folder / f"{kind}-{n}").metrics() for n in (1, 4)]
    for one, two in zip(*rows, strict=True):
        assert one["train.loss"] == pytest.approx(two["train.loss"], rel=1e-4, abs=1e-6)
    assert RunDirectory.open(folder / f"{kind}-4").config["devices_used"] == 4


def test_more_devices_than_there_are(runs):
    folder, said = runs
    assert "mfresnet: devices = 5 is not allowed: JAX has 4 here, so give a value from 1 to 4." in said
    assert not (folder / "too-many").exists()


def test_resumed_on_another_number_of_devices(runs, tmp_path):
    """Half of the run was made on four devices, the rest is made on one, and equals the whole."""
    from mfresnet.runs import resume

    folder, _ = runs
    run = tmp_path / "run"
    shutil.copytree(folder / "whole-4", run)
    (run / "summary.json").unlink()
    middle = [step for step in checkpoint.steps(run / "checkpoints") if 0 < step < 12][-1]
    checkpoint.discard_after(run / "checkpoints", middle)
    assert resume(run, quiet=True, say=lambda message: None)["status"] == "completed"
    close(run, folder / "whole-1")


def test_two_processes_give_the_result_of_one(runs, tmp_path):
    """Two processes of two devices each over gloo; only process 0 writes and speaks."""
    folder, _ = runs
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    out = tmp_path / "run"
    processes = []
    for own in range(2):
        more = ["--coordinator", address, "--processes", 2, "--process-id", own]
        processes.append(
            subprocess.Popen(
                command([train("whole", out, *more)], 2),
                env=environment(2), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    close(out, folder / "whole-1")
    assert "train.loss" in said[0] and "train.loss" not in said[1]
    assert RunDirectory.open(out).config["devices_used"] == 4
    assert len(RunDirectory.open(out).metrics()) == len(RunDirectory.open(folder / "whole-1").metrics())


def test_a_stop_that_another_process_was_asked_for_is_kept(tmp_path, monkeypatch):
    """The first process writes where it stopped, though nobody has asked it."""
    asked = []
    monkeypatch.setattr(Devices, "any", lambda self, flag: flag or (asked.append(flag), len(asked) > 5)[1])
    config = Config(
        data={"n": 8, "n_test": 8},
        model={"depth": 2, "width": 3},
        train={"rule": "sgd", "steps": 50},
        diagnostics={"landscape": False, "gram_every": 0, "kl_every": 0},
    )
    summary = run_into(config, tmp_path / "run", quiet=True)
    assert summary["status"] == "interrupted" and 0 < summary["step"] < 50
    assert checkpoint.steps(tmp_path / "run" / "checkpoints")[-1] == summary["step"]


def test_bad_addresses_and_missing_numbers(monkeypatch):
    connect()  # one process: nothing to join
    with pytest.raises(ValueError, match=r"needs --processes too \(or MFRESNET_PROCESSES\)"):
        connect("127.0.0.1:1")
    with pytest.raises(ValueError, match=r"process 2 of 2 with coordinator '127.0.0.1:1' is not allowed"):
        connect("127.0.0.1:1", 2, 2)
    monkeypatch.setenv("MFRESNET_PROCESS_ID", "one")
    with pytest.raises(ValueError, match="whole numbers"):
        connect("127.0.0.1:1", 2)
    with pytest.raises(ValueError, match="devices = 0 is not allowed"):
        Devices.of(0)
