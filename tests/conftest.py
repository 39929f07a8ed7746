"""What every test shares."""

import gc
import os
from pathlib import Path

# The tests are hundreds of small programs: compiling them dominates, so the compiler's costly passes and its
# splitting of a program into parts are left out. Results are those of the same operations; XLA_FLAGS from outside
# goes first.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of matrices so small a second thread only waits

import jax
import jaxtyping
import pytest

from mfresnet.cache import enable_compilation_cache

# Tests, the processes that they start and later sessions share compiled programs, outside the user's own cache.
enable_compilation_cache(Path(__file__).parents[1] / ".pytest_cache" / "programs", most_bytes=2**31)

# Arguments and results of the mathematics are held to their annotations, shapes included.
CHECKED = ("model", "flow", "kernels", "diagnostics", "bounds", "certify", "stats")
jaxtyping.install_import_hook([f"mfresnet.{name}" for name in CHECKED], "annotation_check.check")
STRICT = ("model", "flow", "kernels", "diagnostics", "bounds", "certify")  # folders of tests


def pytest_collection_finish():
    """Let the collector of cycles pass over what stays to the end, and run less often: tracing makes few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def strict_promotion(request):
    """Tests of the mathematics mix no precisions and broadcast no ranks by accident."""
    if request.path.parent.name not in STRICT:
        yield
        return
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def loose_promotion(strict_promotion):
    """What users' own functions do."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def unchecked():
    """Arguments that their annotations forbid reach the function: what does it say of them?"""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def x64():
    """64-bit numbers inside one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Forget compiled programs before the system runs out of memory maps: each holds several, and a process that has
    none left ends with a segmentation fault inside the compiler."""
    yield
    maps, most = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
    if maps.exists() and maps.read_text().count("\n") > int(most.read_text()) / 3:
        jax.clear_caches()
