"""Points divided among devices: the field of shares is the field, and one message an evaluation brings it together."""

from __future__ import annotations

import os
import re
import subprocess
import sys

PROGRAM = """
import re
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
from mfresnet import Config
from mfresnet.data import load
from mfresnet.flow import Batch, Options, field
from mfresnet.flow.shares import field_of_shares
from mfresnet.train.devices import Devices
from mfresnet.train.job import assemble

where = Devices.of(4)
def job_of(solver):
    train = {"solver": solver, "steps": 4, "probes": 3, "head_probes": 4}
    config = Config(data={"n": 9, "n_test": 4}, model={"depth": 5, "width": 4, "head_width": 4}, train=train)
    return where.place_start(assemble(config, load(config.data, config.seed)))

job = job_of("euler")
batch = where.share(job.train)  # 9 points on 4 devices: a share of copies alone
assert batch.weights.tolist() == [1.0] * 9 + [0.0] * 3
arguments = job.state.model, job.trainer.trained, batch, Options(), job.state.ensemble.probes, "laplacian"
for one, two in zip(
    jax.tree.leaves(field(*arguments)), jax.tree.leaves(field_of_shares(where.layout, *arguments)), strict=True
):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5 * np.abs(one).max())  # sums in another order

for solver in ("euler", "heun", "adaptive"):
    job = job_of(solver)
    trainer, rest = where.place_trainer(job.trainer), where.place((job.key, jnp.asarray(2)))
    lowered = type(trainer).advance.lower(trainer, job.state, batch, *rest, 2)
    operations = re.findall(r"= (.*?) all-reduce(?:-start)?\\(", lowered.compile().compiled.as_text())
    print("sent", solver, sum(len(re.findall(r"[a-z]+[0-9]+\\[", one)) for one in operations))
"""


def test_a_step_sends_one_array_an_evaluation():
    """Heun evaluates the field twice a step, the adaptive solver also at the start of an interval.

    Without `field_of_shares` a step sends each array of each layer's gradient: more than 40 of this network.
    """
    forced = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
    environment = os.environ | {
        "XLA_FLAGS": f"{forced} --xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    sent = {solver: int(count) for solver, count in re.findall(r"sent (\w+) (\d+)", done.stdout)}
    assert sent["euler"] == 1 and sent["heun"] == 2 and 2 <= sent["adaptive"] <= 4, sent
