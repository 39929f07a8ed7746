"""Tests of sweeps start many small programs: compiled ones are kept between them and their processes."""

import os

import jax
import pytest

CACHE = {"jax_compilation_cache_dir": None, "jax_persistent_cache_min_compile_time_secs": 0.0}


@pytest.fixture(scope="package", autouse=True)
def compiled_once(tmp_path_factory):
    """A batch costs a fraction of a second instead of two."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    before = {name: getattr(jax.config, name) for name in CACHE}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (CACHE | {"jax_compilation_cache_dir": folder}).items():
            jax.config.update(name, value)
            patch.setitem(os.environ, name.upper(), str(value))
        yield
    for name, value in before.items():
        jax.config.update(name, value)
