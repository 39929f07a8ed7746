"""Messages to the user while a command works."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

Say = Callable[[str], None]


def print_message(message: str) -> None:
    """Print to the standard error stream; the output stream carries results."""
    with suppress(OSError):  # a closed terminal is no reason to stop training
        print(message, file=sys.stderr, flush=True)
