"""The examples in the docstrings of the kernel and transport diagnostics run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    ["blocks", "eigen", "empirical", "gram", "initial_kernel", "matrix_free", "precision", "sweeps", "transport"],
)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"mfresnet.diagnostics.{name}"))
    assert found.failed == 0
    assert found.attempted > 0
