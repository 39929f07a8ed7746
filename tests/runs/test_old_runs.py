"""A run directory of an older version opens: settings, data, checkpoints. (Image runs of 0.1: `test_image_runs`.)"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mfresnet.config import build
from mfresnet.data import load
from mfresnet.flow import evaluate
from mfresnet.runs import RunDirectory, checkpoint
from mfresnet.train.job import assemble

OLD = Path(__file__).parents[1] / "reference" / "run-0.1"  # 4 Euler steps on 16 points, written by mfresnet 0.1.0
RECORDED = 9.4459228515625  # train.loss of its last row


def test_a_run_of_version_0_1_opens():
    """Its last state predicts with the loss that 0.1.0 recorded, up to rounding in float32."""
    run = RunDirectory.open(OLD)
    assert run.config["versions"]["mfresnet"] == "0.1.0"
    config = build(run.config["config"])
    job = assemble(config, load(config.data, config.seed))
    state = checkpoint.restore(job.state, checkpoint.read(run.checkpoints, 4)[0])
    assert int(state.step) == 4 and state.ensemble is not None
    assert all(np.all(np.isfinite(leaf)) for leaf in (state.ensemble.log_ratio.encoder, state.ensemble.log_ratio.head))
    loss, _ = evaluate(state.model, job.train, config.train.loss, job.split.train.task)
    np.testing.assert_allclose(loss, RECORDED, rtol=1e-5)
