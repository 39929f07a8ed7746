"""Tests of runs start many small ones: compiled programs are kept between them, and the picture is left out."""

import os

import jax
import numpy as np
import pytest

CACHE = {"jax_compilation_cache_dir": None, "jax_persistent_cache_min_compile_time_secs": 0.0}


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """A run costs a third of a second instead of two."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    before = {name: getattr(jax.config, name) for name in CACHE}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (CACHE | {"jax_compilation_cache_dir": folder}).items():
            jax.config.update(name, value)
            patch.setitem(os.environ, name.upper(), str(value))
        patch.setattr("mfresnet.runs.training.network_figures", no_figures)
        yield
    for name, value in before.items():
        jax.config.update(name, value)


def no_figures(start, end, split):
    """In place of `mfresnet.diagnostics.figures.network_figures`, which has tests of its own."""
    return {"nothing": np.zeros(1, np.float32)}
