"""What every test shares."""

import os

# The tests are hundreds of small programs: compiling them dominates, so the compiler's costly passes are
# left out. Results are those of the same operations; XLA_FLAGS from outside goes first.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax
import pytest


@pytest.fixture
def x64():
    """64-bit numbers inside one test."""
    with jax.enable_x64(True):
        yield
