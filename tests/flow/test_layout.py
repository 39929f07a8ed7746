"""Points that are divided among devices: what a step sends. Its result is in `tests/runs/test_devices.py`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mfresnet import LayeredResNet
from mfresnet.flow import Batch, Layout, Trainer, flow
from mfresnet.flow.layout import PARTICLES, POINTS
from mfresnet.model import trainable


def test_a_step_adds_up_one_array_over_the_devices():
    """Loss, gradient of every part, velocities of probes and their curvature: one message between processes."""
    model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, head_width=4)
    batch = Batch(jnp.ones((6, 2)), jnp.ones((6, 1)), jnp.ones(6))
    layout = Layout(Mesh(np.array(jax.devices()[:1]).reshape(1, 1), (POINTS, PARTICLES)))
    trainer = Trainer(flow("euler", 0.1), trainable(model), layout=layout)
    state = trainer.begin(model, jax.random.key(1), 6, probes=(2, 4))
    sent = str(jax.make_jaxpr(lambda: trainer.step(state, batch, jax.random.key(2))[1])())
    assert sent.count("= psum") == 1
