"""What every test shares."""

import os

# Two compiler threads are enough on small machines, and results do not depend on them.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=true")

import jax
import pytest


@pytest.fixture
def x64():
    """64-bit numbers inside one test."""
    with jax.enable_x64(True):
        yield
