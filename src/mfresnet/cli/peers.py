"""Processes of one run notice at once that one of them has ended, and end too, with a sentence.

JAX notices after a minute or more, with a traceback and a dump of its own. Each process beside process 0 holds a
connection to it, which the kernel closes with its process; the keep-alive messages of TCP notice a machine that is
gone. A process that has finished says so before it closes the connection.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

import numpy as np

from ..errors import MfresnetError
from ..messages import print_message
from .parsing import EXIT_BAD_INPUT, EXIT_INTERRUPTED

DONE, FAILED = b"d", b"f"
JOIN_SECONDS = 60
NOTICE_SECONDS = 10  # an error of JAX comes a little before or after the end of the process that caused it
GRACE_SECONDS = 3  # for processes that meet the same mistake, to say it themselves
KEEP_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Peers:
    """The other processes of a run, watched by a thread.

    Args:
        host: of process 0.
        own: number of this process.
        count: number of processes.
        share: gives every process the number that process 0 passes.
        how_to_go_on: a clause for the message, made when it is needed.
    """

    def __init__(self, host: str, own: int, count: int, share: Callable[[int], int], how_to_go_on: Callable[[], str]):
        self.own, self.count, self.how_to_go_on = own, count, how_to_go_on
        self.lock, self.closing = threading.Lock(), False
        self.others: dict[socket.socket, int] = {}
        if own == 0:
            with socket.create_server(("", 0), backlog=count) as server:
                share(server.getsockname()[1])
                server.settimeout(JOIN_SECONDS)
                while len(self.others) < count - 1:
                    self._add(server.accept()[0])
        else:
            leader = socket.create_connection((host, share(0)), timeout=JOIN_SECONDS)
            leader.sendall(own.to_bytes(4, "big"))
            self._add(leader, 0)
        threading.Thread(target=self._watch, daemon=True).start()

    def _add(self, other: socket.socket, number: int | None = None) -> None:
        other.settimeout(JOIN_SECONDS)
        self.others[other] = int.from_bytes(other.recv(4, socket.MSG_WAITALL), "big") if number is None else number
        other.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                other.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def _watch(self) -> None:
        selector, said = selectors.DefaultSelector(), dict.fromkeys(self.others, b"")
        for other in self.others:
            selector.register(other, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                other: socket.socket = key.fileobj  # pyright: ignore[reportAssignmentType]
                try:
                    word = other.recv(1)
                except OSError:
                    word = b""
                if word:
                    said[other] = word
                    continue
                selector.unregister(other)
                if said[other] != DONE:
                    self._end(self.others[other], said[other] == FAILED)

    def _end(self, number: int, failed: bool) -> None:
        """End this process because another one has ended."""
        if failed:
            time.sleep(GRACE_SECONDS)
        with self.lock:
            if self.closing:
                return
            why = "failed, its message says why" if failed else "has died"
            print_message(f"mfresnet: process {number} of {self.count} {why}: the run stops. {self.how_to_go_on()}")
            _exit(EXIT_BAD_INPUT)

    def close(self) -> None:
        """Leave in order: this process has finished."""
        with self.lock:
            self.closing = True
        self._say(DONE)

    def fail(self, error: BaseException) -> NoReturn:
        """End this process with its own error, unless the end of another process was the cause."""
        if not isinstance(error, MfresnetError | KeyboardInterrupt):
            time.sleep(NOTICE_SECONDS)  # the watching thread ends this process where another one has died
        with self.lock:
            self.closing = True
        code = EXIT_BAD_INPUT
        if isinstance(error, MfresnetError):
            print_message(f"mfresnet: {' '.join(str(error).split())}")
        elif isinstance(error, KeyboardInterrupt):
            print_message(f"mfresnet: {str(error) or 'stopped.'}")
            code = EXIT_INTERRUPTED
        else:
            traceback.print_exception(error)
            code = 1
        self._say(FAILED)
        if self.own == 0:  # without process 0 JAX ends the others with a dump
            time.sleep(GRACE_SECONDS + 1)
        _exit(code)

    def _say(self, word: bytes) -> None:
        for other in self.others:
            try:
                other.sendall(word)
                other.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # it has ended before


def share_number(number: int) -> int:
    """Process 0's number in every process; every process must call it."""
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.asarray(number, np.int32)))


def _exit(code: int) -> NoReturn:
    """End without what JAX does at exit, which waits for all processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
