"""Reference values of a finite network: states, adjoints, velocities, Laplacians, loss.

The values come from central differences of the forward pass (error about 1e-9), so 1e-7 is the
tolerance that the reference itself allows.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.flow import Batch, Options, Probes, field, velocities
from mfresnet.flow.adjoint import adjoint
from mfresnet.model import LayeredResNet, Particles, activation, trainable

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "finite_network.json").read_text())


def particles(values: np.ndarray, outputs: int) -> Particles:
    return Particles(
        jnp.asarray(values[..., :outputs]), jnp.asarray(values[..., outputs:-1]), jnp.asarray(values[..., -1])
    )


def joined(p: Particles) -> np.ndarray:
    return np.concatenate([p.out, p.w, p.b[..., None]], axis=-1)


@pytest.fixture(scope="module")
def network():
    with jax.enable_x64(True):
        nu, tau = np.array(REFERENCE["nu"]), np.array(REFERENCE["tau"])
        model = LayeredResNet(
            encoder=particles(nu, REFERENCE["d"]),
            head=particles(tau, 1),
            embedding=None,
            alpha=jnp.asarray(REFERENCE["alpha"]),
            beta=jnp.asarray(REFERENCE["beta"]),
            sigma=activation(REFERENCE["activation"]),
            depth=REFERENCE["L"],
        )
        x, y = jnp.asarray(REFERENCE["x"]), jnp.asarray(REFERENCE["y"])[:, None]
        yield model, x, y


def close(found, name):
    np.testing.assert_allclose(np.asarray(found), np.array(REFERENCE[name]), rtol=1e-7, atol=1e-8)


def test_states_adjoint_and_loss(network):
    model, x, y = network
    sweep = adjoint(model, x)
    close(sweep.z, "z")
    close(sweep.q[:, :, 0], "q")
    close(sweep.f[:, 0], "f")
    close(velocities(model, x, y).loss, "loss")


def test_closed_form_velocities_and_laplacians(network):
    found = velocities(*network)
    close(joined(found.encoder), "velocity_nu")
    close(joined(found.head), "velocity_tau")
    close(found.laplacian_encoder, "laplacian_nu")
    close(found.laplacian_head, "laplacian_tau")


def test_training_field_of_particles_and_of_probes_at_their_places(network):
    """A probe put where a particle stands must see the same velocity, and the Laplacian there."""
    model, x, y = network
    batch = Batch(x, y, jnp.ones(len(x)))
    probes = Probes(model.encoder, model.head)
    found = field(model, trainable(model), batch, Options(), probes, "laplacian")
    close(found.loss, "loss")
    close(joined(found.model.encoder), "velocity_nu")
    close(joined(found.model.head), "velocity_tau")
    close(joined(found.probes.encoder), "velocity_nu")
    close(joined(found.probes.head), "velocity_tau")
    close(found.curvature.encoder, "laplacian_nu")
    close(found.curvature.head, "laplacian_tau")
