"""The nodes of a Ray cluster, watched while a sweep waits for rows.

Ray runs the batches of a lost node again by itself. It waits without a word where no node is left, and it ends the
process of the driver, without a word of ours, a minute after the head has died.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from ...errors import MfresnetError
from ...messages import Say

LOOK_SECONDS = 2.0  # between two looks
REACH_SECONDS = 5.0
HEAD_SECONDS = 30.0  # without an answer of the head, until it counts as dead; less than the minute of Ray


class Nodes:
    """Says which node is lost and when none is left, and ends the sweep when the head is.

    Args:
        cluster: the module ``ray``, connected.
        head: HOST:PORT of the cluster's control store; None where it cannot be reached from here.
        say: where messages go.
    """

    def __init__(self, cluster: Any, head: str | None, say: Say):
        self.cluster, self.head, self.say = cluster, head, say
        self.alive: dict[str, str] = {}
        self.cores = 1.0
        self.answered = time.monotonic()
        self.next_look = 0.0

    def look(self) -> None:
        """Tell what has changed since the last look, which was at least `LOOK_SECONDS` ago.

        Raises:
            MfresnetError: the head has not answered for `HEAD_SECONDS`.
        """
        now = time.monotonic()
        if now < self.next_look:
            return
        self.next_look = now + LOOK_SECONDS
        if self.head is not None and not can_connect(self.head):
            if time.monotonic() - self.answered > HEAD_SECONDS:
                raise MfresnetError(
                    f"the head of the Ray cluster at {self.head!r} has not answered for {HEAD_SECONDS:g} seconds: the "
                    "cells that are done are kept, so start the cluster again, then resume the sweep."
                )
            return  # to ask it for its nodes would not return
        self.answered = time.monotonic()
        self._compare([node for node in self.cluster.nodes() if node["Alive"]])

    def _compare(self, nodes: list[dict[str, Any]]) -> None:
        alive = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
        cores = sum(node["Resources"].get("CPU", 0.0) for node in nodes)
        for name in self.alive.keys() - alive.keys():
            self.say(f"node {self.alive[name]} of the Ray cluster is lost: what ran there runs again on another node.")
        if cores < 1 <= self.cores:
            self.say("the Ray cluster has no core: the sweep waits until a node joins it (Ctrl-C stops the sweep).")
        self.alive, self.cores = alive, cores


def can_connect(address: str) -> bool:
    """Whether somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError:
        return False
    return True
