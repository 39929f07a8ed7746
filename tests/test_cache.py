"""The user's cache directory, and compiled programs in it: read by a second start, and never a reason to fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from mfresnet.cache import OFF, cache_directory, enable_compilation_cache

SMALL = "--data.n 16 --data.n_test 8 --model.depth 2 --model.width 2 --model.head_width 4 --train.steps 4"
SMALL += " --train.solver heun --diagnostics.landscape false --diagnostics.gram_every 0 --record.report false"
SMALL += " --diagnostics.solver_error false --train.time 1 --train.probes 2 --train.head_probes 4"
OWN = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", OFF)


def test_the_cache_directory(tmp_path, monkeypatch):
    for name in ("MFRESNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_directory() == Path("/home/someone/.cache/mfresnet")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the standard
    assert cache_directory() == Path("/home/someone/.cache/mfresnet")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_directory() == Path("/var/cache/mfresnet")
    monkeypatch.setenv("MFRESNET_CACHE", "/mine")
    assert cache_directory() == Path("/mine") and cache_directory(tmp_path) == tmp_path


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*-cache")}


def command(cache: Path, *words: str) -> None:
    """A process of its own, with its compiled programs in ``cache``."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN}
    environment["MFRESNET_CACHE"] = str(cache)
    done = subprocess.run([sys.executable, "-m", "mfresnet", *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def train(directory: Path, cache: Path) -> dict[str, bytes]:
    """All arrays that a training has written."""
    command(cache, "train", "two-spirals", *SMALL.split(), "--out", str(directory))
    return {
        f"{path.relative_to(directory)}:{name}": array.tobytes()
        for path in directory.rglob("*.safetensors")
        for name, array in load_file(path).items()
    }


def test_a_second_start_reads_its_programs_and_computes_the_same_to_the_bit(tmp_path):
    """Cold, warm, with a quarter of the programs damaged (flipped byte, cut): one result."""
    cache = tmp_path / "cache"
    cold = train(tmp_path / "cold", cache)
    written = files(cache)
    assert cold and len(written) > 5
    assert train(tmp_path / "warm", cache) == cold
    assert files(cache) == written  # nothing was compiled again
    for number, path in enumerate(sorted(cache.rglob("*-cache"))[::4]):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content if number % 2 else content[: len(content) // 2])
    assert train(tmp_path / "damaged", cache) == cold


def test_the_flag_switches_it_off(tmp_path):
    counts = ("certify", "--errors", "3", "--points", "100")
    command(tmp_path / "off", *counts, "--no-compilation-cache")
    command(tmp_path / "on", *counts)
    assert [path.name for path in tmp_path.iterdir()] == ["on"]


@pytest.fixture
def fresh_environment(monkeypatch):
    for name in OWN:
        monkeypatch.setenv(name, "x")  # so that it is put back
        monkeypatch.delenv(name)


def test_a_directory_that_cannot_be_made_costs_time_only(tmp_path, fresh_environment):
    (tmp_path / "file").write_bytes(b"")
    assert enable_compilation_cache(tmp_path / "file") is None
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_what_the_user_has_set_stays(tmp_path, fresh_environment, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    assert enable_compilation_cache(tmp_path) == tmp_path / "mine"
    assert "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ
    monkeypatch.setenv(OFF, "false")
    assert enable_compilation_cache(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_cache_of_a_process_is_enabled_after_its_first_program_and_bounded(tmp_path):
    """Programs that were not used for longest go first."""
    code = """
import os, sys, time
import jax, jax.numpy as jnp
from pathlib import Path
import mfresnet
jnp.arange(3.0).sum()  # JAX looks for its cache once
place = mfresnet.enable_compilation_cache(sys.argv[1])
jax.jit(lambda x: jnp.sin(x) * 3)(jnp.arange(5.0))
names = sorted(path.name for path in place.iterdir())
assert any("lambda" in name for name in names), names
for age, name in enumerate(names):
    os.utime(place / name, (time.time() - 100 * age,) * 2)
size = sum((place / name).stat().st_size for name in names)
del os.environ["JAX_COMPILATION_CACHE_DIR"]
mfresnet.enable_compilation_cache(sys.argv[1], most_bytes=size - 1)
assert sorted(path.name for path in place.iterdir()) == names[:-1]
"""
    environment = {name: value for name, value in os.environ.items() if name not in OWN}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
