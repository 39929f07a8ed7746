"""The field that moves the laws: velocities of particles and of probes, and the curvature probes see.

    v_theta = -grad dLoss/dnu(theta, s),      v_omega = -grad dLoss/dtau(omega)

([C24], eqs. 2-3; docs/theory.md, section 3). For a particle of the network this is the gradient per unit of
mass; a probe is moved by the same field but has no mass. One reverse sweep gives all of it, for
every depth scheme, loss and mini-batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ..model import AbstractParticles, AbstractResNet, ProbePoints, scaling
from .losses import Loss, loss_of


class Batch(NamedTuple):
    """Points of one step: inputs (n, d), targets (n, C), weights (n,)."""

    x: Float[Array, "n inputs"]
    y: Float[Array, "n outputs"]
    weights: Float[Array, " n"]


class Probes(eqx.Module):
    """Probe particles: independent draws of the starting laws, moved by the field, without mass.

    Args:
        encoder: shape (L, P, .) (or (1, P, .) where depth shares the law).
        head: shape (P, .), or None without head.
    """

    encoder: AbstractParticles
    head: AbstractParticles | None


class Laplacians(eqx.Module):
    """Laplacian of the first variation at each probe, shapes (L, P) and (P,): see `ProbePoints`."""

    encoder: Float[Array, "layers probes"]
    head: Float[Array, " head_probes"] | None


class Hessians(eqx.Module):
    """Both non-zero blocks of the Hessian of the first variation at each probe: see `ProbePoints`."""

    encoder: tuple[Array, Array]
    head: tuple[Array, Array] | None


CURVATURES = {"laplacian": Laplacians, "hessian": Hessians}
Curvature = TypeVar("Curvature", Laplacians, Hessians)
Tree = TypeVar("Tree")


class Field(NamedTuple):
    """The field at one state of the network.

    Args:
        loss: of the batch.
        model: velocities, in the shape of the model's trained leaves (None elsewhere).
        probes: velocities of the probes, or None.
        curvature: at the probes, or None.
    """

    loss: Float[Array, ""]
    model: AbstractResNet
    probes: Probes | None
    curvature: Laplacians | Hessians | None

    @property
    def of_probes(self) -> dict[str, Any]:
        """The part that belongs to the probes, by name."""
        return {"probes": self.probes, "curvature": self.curvature}

    def at_probes(self, kind: type[Curvature]) -> tuple[Probes, Curvature]:
        """Velocities of the probes and the curvature they see, of a field that was asked for both."""
        assert self.probes is not None and isinstance(self.curvature, kind), "a field holds what it was asked for"
        return self.probes, self.curvature


class Options(eqx.Module):
    """What the field is taken of; all static.

    Args:
        loss: a name of `mfresnet.flow.LOSSES`, or a loss.
        recompute: recompute the states in segments of depth (memory like sqrt(L)).
        compute: precision of the network's sweep, or None for the particles' own, which probes have always.
        rates: learning-rate factors of (encoder, head).
    """

    loss: str | Loss = eqx.field(static=True, default="squared")
    recompute: bool = eqx.field(static=True, default=False)
    compute: str | None = eqx.field(static=True, default=None)
    rates: tuple[float, float] = eqx.field(static=True, default=(1.0, 1.0))


def field(
    model: AbstractResNet,
    trained: AbstractResNet,
    batch: Batch,
    options: Options,
    probes: Probes | None = None,
    curvature: str = "none",
) -> Field:
    """Velocities of all that moves.

    Args:
        trained: tree of booleans, see `mfresnet.model.trainable`; what is frozen has velocity zero.
        curvature: "none", "laplacian" or "hessian" at the probes.
    """
    if probes is not None and options.compute is not None:
        # densities need the derivative of the very field that moves the probes, which a rounded field does not have
        network = field(model, trained, batch, options)
        return network._replace(
            **field(model, trained, batch, replace(options, compute=None), probes, curvature).of_probes
        )
    moved, still = eqx.partition(model, trained)
    points = None
    if probes is not None:
        points = (
            ProbePoints.of(probes.encoder, curvature),
            None if probes.head is None else ProbePoints.of(probes.head, curvature),
        )

    def loss(moved: AbstractResNet, points: tuple[ProbePoints, ProbePoints | None] | None) -> Array:
        network, inputs = eqx.combine(moved, still), batch.x
        if options.compute is not None:
            network, points, inputs = cast((network, points, inputs), options.compute)
        prediction = network(inputs, *(points or (None, None)), recompute=options.recompute)
        return loss_of(options.loss)(prediction.astype(batch.y.dtype), batch.y, batch.weights)

    value, (of_model, of_points) = jax.value_and_grad(loss, argnums=(0, 1))(moved, points)
    velocity = jax.tree.map(jnp.negative, per_mass(of_model, model, options.rates))
    if of_points is None:
        return Field(value, velocity, None, None)

    # A probe carries unit mass in its layer, whose share of depth is 1/layers; a frozen law stands still.
    encoder_rate, head_rate = options.rates
    on_encoder = encoder_rate * scaling.encoder_mass(model.encoder.layers, 1) * _moves(trained.encoder)
    encoder = jax.tree.map(lambda g: on_encoder * g, of_points[0])
    head = of_points[1]
    if head is not None:
        assert trained.head is not None, "probes have a head only where the network has one"
        on_head = head_rate * scaling.head_mass(1) * _moves(trained.head)
        head = jax.tree.map(lambda g: on_head * g, head)
    moving = Probes(encoder.particles, None if head is None else head.particles)
    seen = None
    if curvature != "none":
        seen = CURVATURES[curvature](encoder.curvature, None if head is None else head.curvature)
    return Field(value, velocity, jax.tree.map(jnp.negative, moving), seen)


def _moves(flags: AbstractParticles) -> bool:
    return any(jax.tree.leaves(flags))


def per_mass(gradient: AbstractResNet, model: AbstractResNet, rates: tuple[float, float]) -> AbstractResNet:
    """Gradients per unit of mass (see `Part`), times the rates of encoder and head."""
    of_group = {"encoder": rates[0], "head": rates[1]}
    for part in model.parts():
        factor = of_group[part.group] * part.mass
        scaled = jax.tree.map(lambda g, factor=factor: factor * g, getattr(gradient, part.name))
        gradient = eqx.tree_at(
            lambda m, name=part.name: getattr(m, name), gradient, scaled, is_leaf=lambda leaf: leaf is None
        )  # a part that does not move has no gradient
    return gradient


def decay_rate(
    model: AbstractResNet, trained: AbstractResNet, x: Array, rates: tuple[float, float] = (1.0, 1.0), rounds: int = 20
) -> Float[Array, ""]:
    """Largest rate at which the flow changes predictions, beta^2 lambda_max(G)/n, by the power method.

    A step h of the flow is stable below 2 / rate (docs/theory.md, sections 3 and 4). The power method
    approaches it from below.
    """
    moved, still = eqx.partition(model, trained)

    def predict(moved: AbstractResNet) -> Array:
        return eqx.combine(moved, still)(x)

    def product(v: Array) -> Array:
        gradient = per_mass(jax.vjp(predict, moved)[1](v)[0], model, rates)
        return jax.jvp(predict, (moved,), (gradient,))[1] / x.shape[0]

    def turn(_: Array, v: Array) -> Array:
        w = product(v)
        return w / jnp.linalg.norm(w)

    start = jnp.ones((x.shape[0], predict(moved).shape[1]), x.dtype) / x.shape[0]
    v = jax.lax.fori_loop(0, rounds, turn, start.at[0].multiply(1.5))
    return jnp.vdot(v, product(v)) / jnp.vdot(v, v)


def cast(tree: Tree, dtype: str) -> Tree:
    """Every floating-point leaf in that precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)
