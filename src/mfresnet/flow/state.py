"""What training carries from step to step, and how it starts."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ..model import InitialScales, Particles, ScaledResNet
from .field import Probes


class LogRatio(eqx.Module):
    """Change of the log-density along each probe, int_0^t Laplacian dt' (theory, section 7).

    log(tau_t/tau_0)(omega_t) = (|omega_t|^2 - |omega_0|^2)/2 + this, for a standard Gaussian start.
    """

    encoder: Float[Array, "layers probes"]
    head: Float[Array, " probes"] | None


class Ensemble(eqx.Module):
    """Probes where they are and where they started, and the change of their log-density."""

    probes: Probes
    start: Probes
    log_ratio: LogRatio

    @classmethod
    def create(
        cls, key: Array, model: ScaledResNet, *, encoder: int, head: int, initial: InitialScales | None = None
    ) -> Ensemble:
        """``encoder`` probes in every layer and ``head`` probes of the head, drawn from the starting laws."""
        scales = initial or InitialScales()
        k_encoder, k_head = jax.random.split(key)
        layers, state = model.encoder.w.shape[0], model.encoder.w.shape[-1]
        common: dict[str, Any] = {"state": state, "bias": model.encoder.b is not None, "dtype": model.dtype}
        probes = Probes(
            Particles.gaussian(k_encoder, (layers, encoder), outputs=state, scale=scales.encoder, **common),
            None
            if model.head is None
            else Particles.gaussian(k_head, (head,), outputs=model.head.out.shape[-1], scale=scales.head, **common),
        )
        zeros = LogRatio(
            jnp.zeros((layers, encoder), model.dtype),
            None if model.head is None else jnp.zeros(head, model.dtype),
        )
        return cls(probes, probes, zeros)


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

    model: ScaledResNet
    ensemble: Ensemble | None
    rule: Any
    step: Int[Array, ""]
    time: Float[Array, ""]
    order: Int[Array, " n"] | None
