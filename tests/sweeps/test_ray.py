"""The Ray executor: the same cells on a real local cluster, with a worker and the driver killed."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest
from small_sweeps import FLAGS, cells, same

from forked import Commands
from mfresnet.cli import main
from mfresnet.runs.sweeps.on_ray import task_environment

# a cluster forks its processes, which call exec at once, from one where earlier tests have used JAX
pytestmark = pytest.mark.filterwarnings("ignore:os.fork\\(\\) was called:RuntimeWarning")
installed = pytest.mark.skipif(
    not any((Path(folder) / "ray" / "__init__.py").is_file() for folder in sys.path if folder),
    reason="Ray is not installed: pip install 'mfresnet[ray]'",
)


def test_without_ray_one_sentence_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", "grid", *FLAGS, "--executor", "ray", "--out", str(tmp_path / "sweep")]) == 2
    assert "install it with `pip install 'mfresnet[ray]'`" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@installed
@pytest.mark.parametrize(
    ("address", "words"),
    [("{free}", "no Ray cluster answers at"), ("nonsense", "give HOST:PORT"), ("h:x", "give HOST:PORT")],
)
def test_an_address_out_of_reach(address, words, tmp_path, capsys):
    with socket.socket() as free:  # a port that nobody listens on
        free.bind(("127.0.0.1", 0))
        address = address.format(free=f"127.0.0.1:{free.getsockname()[1]}")
        flags = ["--executor", "ray", "--address", address, "--out", str(tmp_path / "sweep")]
        assert main(["sweep", "grid", *FLAGS, *flags]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and not (tmp_path / "sweep").exists()


def test_a_task_of_one_core_takes_no_gpu_and_one_thread(monkeypatch):
    for name in ("JAX_PLATFORMS", "NPROC", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert task_environment() == {"JAX_PLATFORMS": "cpu", "NPROC": "1", "OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")  # asked for
    assert task_environment()["JAX_PLATFORMS"] == "cuda"


def workers(driver: int) -> list[psutil.Process]:
    """Ray's worker processes of a driver that are at work on a batch."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if "run_task" in process.name() or "run_task" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@installed
@pytest.mark.slow
def test_worker_and_driver_killed(tmp_path):
    """A worker killed: its cells run again. The driver killed and resumed: equal to the local sweep."""
    commands = Commands(tmp_path)
    commands.run("sweep", "grid", *FLAGS, "--out", tmp_path / "local")
    sweep = tmp_path / "ray"
    process = commands.start("sweep", "grid", *FLAGS, "--executor", "ray", "--out", sweep)
    killed = 0
    while process.is_alive() and not killed:
        for worker in workers(process.pid):
            os.kill(worker.pid, signal.SIGKILL)
            killed += 1
            break
        time.sleep(0.005)
    assert killed, commands.log.read_text()
    while process.is_alive() and not cells(sweep):
        time.sleep(0.005)
    children = psutil.Process(process.pid).children(recursive=True) if process.is_alive() else []
    process.kill()
    process.join()
    psutil.wait_procs(children, timeout=60)  # a cluster ends with its driver
    assert process.exitcode == -signal.SIGKILL and len(cells(sweep)) > 0
    before = cells(sweep)
    commands.run("resume", sweep, "--executor", "ray")
    assert before.items() <= cells(sweep).items()
    same(sweep, tmp_path / "local")
    assert not (Path.home() / ".ray" / "auth_token").exists() or os.environ.get("RAY_AUTH_MODE")


@installed
@pytest.mark.slow
def test_cells_run_on_the_nodes_of_an_existing_cluster(tmp_path, monkeypatch):
    """A head node without a core, where the driver is, and two nodes of one core each: the driver's cores count not."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    commands = Commands(tmp_path)
    commands.run("sweep", "grid", *FLAGS, "--out", tmp_path / "local")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        where = ("--executor", "ray", "--address", cluster.address)
        commands.run("sweep", "grid", *FLAGS, *where, "--out", tmp_path / "ray")
    finally:
        cluster.shutdown()
    same(tmp_path / "ray", tmp_path / "local")


@installed
@pytest.mark.slow
def test_langevin_chains_as_cells(tmp_path):
    """Each cell is one chain with its pilots and its certificate: on Ray the same numbers as without."""
    commands = Commands(tmp_path)
    chains = ("sweep", "certificate", "--set", "data.n=8,12", "--seeds", "1", "--train.steps", "20")
    small = ("--model.depth", "2", "--model.width", "3", "--model.head-width", "3", "--data.n-test", "16")
    commands.run(*chains, *small, "--out", tmp_path / "local")
    commands.run(*chains, *small, "--executor", "ray", "--out", tmp_path / "ray")
    assert len(cells(tmp_path / "local")) == 2
    same(tmp_path / "ray", tmp_path / "local")
