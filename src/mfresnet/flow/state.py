"""What training carries from step to step, and how it starts."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from ..errors import MfresnetError
from ..model import AbstractResNet, InitialScales
from .field import Probes


class LogRatio(eqx.Module):
    """Change of the log-density along each probe, int_0^t Laplacian dt' (docs/theory.md, section 7).

    log(tau_t/tau_0)(omega_t) = (|omega_t|^2 - |omega_0|^2)/2 + this, for a standard Gaussian start.
    """

    encoder: Float[Array, "layers probes"]
    head: Float[Array, " head_probes"] | None


class OneToOne(eqx.Module):
    """Whether I - h Hess Phi was positive definite at each probe in every Euler step so far.

    Were it so everywhere, each step would be the gradient of a strictly convex function, hence one-to-one, and
    `LogRatio` the change of the density. One probe where it is not is a place where the step is not: the density
    is then a sum over several preimages, of which `LogRatio` holds one. Solvers of the flow itself leave it as it is.
    """

    encoder: Bool[Array, "layers probes"]
    head: Bool[Array, " head_probes"] | None

    @classmethod
    def of(cls, log_ratio: LogRatio) -> OneToOne:
        """All true, in the shape of ``log_ratio``: before the first step."""
        head = None if log_ratio.head is None else jnp.ones(log_ratio.head.shape, bool)
        return cls(jnp.ones(log_ratio.encoder.shape, bool), head)


class Ensemble(eqx.Module):
    """Probes where they are and where they started, the change of their log-density, and whether it is exact."""

    probes: Probes
    start: Probes
    log_ratio: LogRatio
    one_to_one: OneToOne

    @property
    def not_one_to_one(self) -> Int[Array, ""]:
        """Number of probes, of the encoder and of the head, at which a step is not one-to-one."""
        return sum((jnp.sum(~leaf) for leaf in jax.tree.leaves(self.one_to_one)), jnp.zeros((), int))

    @classmethod
    def create(
        cls, key: Array, model: AbstractResNet, *, encoder: int, head: int, initial: InitialScales | None = None
    ) -> Ensemble:
        """``encoder`` probes in every layer and ``head`` probes of the head, drawn from the starting laws."""
        scales = initial or InitialScales()
        if scales.law != "gaussian":
            raise MfresnetError(
                f"probes need a Gaussian start, but its law is {scales.law!r}: set train.probes 0 and "
                "train.head_probes 0."
            )
        k_encoder, k_head = jax.random.split(key)
        layers = model.encoder.layers
        probes = Probes(
            model.encoder.redraw(k_encoder, (layers, encoder), scales.encoder),
            None if model.head is None else model.head.redraw(k_head, (head,), scales.head),
        )
        zeros = LogRatio(
            jnp.zeros((layers, encoder), model.dtype),
            None if model.head is None else jnp.zeros(head, model.dtype),
        )
        return cls(probes, probes, zeros, OneToOne.of(zeros))


class TrainState(eqx.Module):
    """Everything a step reads and writes; a checkpoint is exactly this.

    Args:
        model: the network as it is.
        ensemble: probes carried along, or None.
        rule: what the rule remembers (optimiser moments, the solver's last step).
        step: steps made.
        time: training time passed, in plain units (the flow's own t).
        order: the current epoch's order of the data, or None for the full batch.
    """

    model: AbstractResNet
    ensemble: Ensemble | None
    rule: Any
    step: Int[Array, ""]
    time: Float[Array, ""]
    order: Int[Array, " n"] | None
