"""Nodes of a Ray cluster that die during a sweep: nothing is lost, and the user is told."""

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
from mfresnet.errors import MfresnetError
from mfresnet.runs.sweeps import ray_nodes
from mfresnet.runs.sweeps.ray_nodes import Nodes

# a cluster forks its processes, which call exec at once, from one where earlier tests have used JAX
pytestmark = pytest.mark.filterwarnings("ignore:os.fork\\(\\) was called:RuntimeWarning")
installed = pytest.mark.skipif(
    not any((Path(folder) / "ray" / "__init__.py").is_file() for folder in sys.path if folder),
    reason="Ray is not installed: pip install 'mfresnet[ray]'",
)


class FakeCluster:
    """Stands for the module ``ray``: nodes with their cores, None for one that is dead."""

    def __init__(self, **cores: int | None):
        self.cores = cores

    def nodes(self) -> list[dict]:
        return [
            {
                "NodeID": name,
                "NodeManagerAddress": f"address of {name}",
                "Alive": n is not None,
                "Resources": {"CPU": float(n)} if n else {},
            }
            for name, n in self.cores.items()
        ]


def test_lost_nodes_and_a_cluster_without_cores_are_told_once(monkeypatch):
    monkeypatch.setattr(ray_nodes, "LOOK_SECONDS", 0.0)
    cluster, said = FakeCluster(head=0, a=1, b=1), []
    nodes = Nodes(cluster, None, said.append)
    nodes.look()
    assert said == []
    cluster.cores["a"] = None
    nodes.look()
    nodes.look()
    lost = "node address of {} of the Ray cluster is lost: what ran there runs again on another node."
    assert said == [lost.format("a")]
    cluster.cores["b"] = None
    nodes.look()
    nodes.look()
    assert said[1] == lost.format("b") and "has no core" in said[2] and len(said) == 3
    cluster.cores["c"] = 1
    nodes.look()
    cluster.cores["c"] = None  # it is told again when it happens again
    nodes.look()
    assert said[3:] == [lost.format("c"), said[2]]


def test_a_head_that_does_not_answer_ends_the_sweep(monkeypatch):
    monkeypatch.setattr(ray_nodes, "LOOK_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = f"127.0.0.1:{server.getsockname()[1]}"
        nodes = Nodes(FakeCluster(head=1), head, lambda message: None)
        nodes.look()
    nodes.look()  # a moment without an answer is none too many
    monkeypatch.setattr(ray_nodes, "HEAD_SECONDS", 0.0)
    with pytest.raises(MfresnetError, match=rf"head of the Ray cluster at '{head}' has not answered.*resume the sweep"):
        nodes.look()


def kill(node) -> None:
    """All processes of a node at once, as when its machine is switched off."""
    own = [psutil.Process(info.process.pid) for infos in node.all_processes.values() for info in infos]
    below = [child for process in own for child in process.children(recursive=True)]
    for process in own + below:
        os.kill(process.pid, signal.SIGKILL)


def at_work(node) -> bool:
    """Whether a batch runs on a node."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    names = []
    for process in raylet.children():
        try:
            names.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return any("run_task" in name for name in names)


def wait_for(what, process, commands) -> None:
    """Wait until something is so, while the command works."""
    while not what():
        assert process.is_alive(), commands.log.read_text()
        time.sleep(0.005)


@pytest.fixture
def cluster(monkeypatch):
    """A head without a core, and two nodes of one core each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield started, [started.add_node(num_cpus=1) for _ in range(2)]
    finally:
        started.shutdown()


@installed
@pytest.mark.slow
@pytest.mark.parametrize("victims", [1, 2])
def test_nodes_killed(victims, cluster, tmp_path):
    """One of two nodes: the other one does the rest. Both: the sweep waits for a new one. The same files as without."""
    started, nodes = cluster
    commands = Commands(tmp_path)
    long = [*FLAGS[:-1], "200000"]  # half a minute: Ray takes seconds to miss a node
    commands.run("sweep", "grid", *long, "--out", tmp_path / "local")
    sweep = tmp_path / "ray"
    process = commands.start("sweep", "grid", *long, "--executor", "ray", "--address", started.address, "--out", sweep)
    wait_for(lambda: all(map(at_work, nodes)), process, commands)
    for node in nodes[:victims]:
        kill(node)
    before = cells(sweep)
    assert len(before) < 12
    if victims == 2:
        wait_for(lambda: "has no core" in commands.log.read_text(), process, commands)
        started.add_node(num_cpus=1)
    process.join(240)
    said = commands.log.read_text()
    assert process.exitcode == 0, said
    assert said.count("of the Ray cluster is lost") == victims
    assert before.items() <= cells(sweep).items()
    same(sweep, tmp_path / "local")


@installed
@pytest.mark.slow
def test_head_killed(cluster, tmp_path):
    """The driver ends with a sentence, and the sweep is resumed without the cluster."""
    started, nodes = cluster
    commands, sweep = Commands(tmp_path), tmp_path / "ray"
    long = [*FLAGS[:-1], "600000"]  # a minute of work: the driver gives up after half of one
    process = commands.start("sweep", "grid", *long, "--executor", "ray", "--address", started.address, "--out", sweep)
    wait_for(lambda: all(map(at_work, nodes)), process, commands)
    kill(started.head_node)
    process.join(120)
    said = commands.log.read_text()
    assert process.exitcode == 2, said
    assert "has not answered for 30 seconds" in said and "Traceback" not in said
    before = cells(sweep)
    commands.run("resume", sweep)
    assert before.items() <= cells(sweep).items()
    commands.run("sweep", "grid", *long, "--out", tmp_path / "local")
    same(sweep, tmp_path / "local")
