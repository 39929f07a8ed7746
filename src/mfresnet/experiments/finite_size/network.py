"""Many finite networks trained at once, states and adjoints written out by hand ([Ch25], arXiv 2509.10167).

    z_{l+1} = z_l + alpha/(L M) sum_m out_lm tanh(gain w_lm . (z_l, 1)),   f = read(z_L),   E = |f - y|^2 / (2 N C)
    p_L = dE/dz_L,   e_lm = (p_{l+1} . out_lm) tanh'(.),   p_l = p_{l+1} + alpha gain/(L M) sum_m e_lm w_lm
    out_lm <- out_lm - rate sum_i p_{l+1,i} s_ilm,   w_lm <- w_lm - rate gain sum_i e_ilm (z_il, 1),   s = tanh(.)

The update is ``rate`` times the gradient of E, multiplied by L M / alpha. Depth and number of steps are loop bounds,
and narrow networks are padded with particles at zero that stay there, so that one compiled program serves many sizes.
What makes it fast: the activations are kept (nothing is differentiated), and each step reads the particles of one
buffer and writes those of another, two steps a turn, so that the compiler copies no particles.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ...model import Particles, activation, scaling


class Networks(NamedTuple):
    """Particles of B networks of equal depth; the particle is the last axis, along which everything is vectorised.

    Args:
        w: input weights (with bias a last row of I), shape (L, B, I, M).
        out: output weights, shape (L, B, D, M).
        head: what the readout needs, with a leading axis B where trained (see `READOUTS`), or None.
    """

    w: Float[Array, "depth batch inputs width"]
    out: Float[Array, "depth batch state width"]
    head: Particles | Array | None


class Scales(NamedTuple):
    """Scales of a training, as arrays: runs that differ in them share one program.

    Args:
        alpha: of the residual branch.
        gain: inside tanh, 1/D in [Ch25].
        rate: of the encoder's particles (see the module).
        beta: of the readout "particles".
        head_rate: of its particles: multiplies K times the gradient.
    """

    alpha: Float[Array, ""]
    gain: Float[Array, ""]
    rate: Float[Array, ""]
    beta: Float[Array, ""]
    head_rate: Float[Array, ""]


def _read_state(head: None, z: Array, beta: Array) -> Array:
    """The state itself."""
    return z


def _read_linear(head: Array, z: Array, beta: Array) -> Array:
    """z R / D: a fixed linear readout R of shape (D, C)."""
    return z @ head / z.shape[-1]


def _read_particles(head: Particles, z: Array, beta: Array) -> Array:
    """beta/K sum_k a_k tanh(w_k . z + b_k), trained along ([C24] eq. 1)."""
    return scaling.output(beta, head.total(z, activation("tanh")), head.width)


READOUTS = {"state": _read_state, "linear": _read_linear, "particles": _read_particles}


def _loss(f: Array, y: Array) -> Array:
    """|f - y|^2 / (2 N C)."""
    return 0.5 * jnp.mean((f - y) ** 2)


@partial(jax.jit, static_argnames=("readout", "bias"))
def train(
    networks: Networks,
    z: Float[Array, "points state"],
    y: Float[Array, "points outputs"],
    depth: int | Int[Array, ""],
    widths: Float[Array, " batch"],
    steps: int | Int[Array, ""],
    scales: Scales,
    *,
    readout: str,
    bias: bool,
) -> tuple[Array, Array, Array]:
    """``steps`` gradient steps of every network on the same points.

    Args:
        networks: the start; what lies behind ``depth`` and ``widths`` is zero.
        z: states at s = 0, shape (N, D).
        y: targets, shape (N, C).
        depth: layers L.
        widths: particles M of a layer of each network.
        steps: number of steps.
        readout: "state" ([Ch25]), "linear" (fixed) or "particles" (the head of [C24], trained).
        bias: whether the last row of w multiplies 1.

    Returns:
        The states at s = 1 (B, N, D), the predictions (B, N, C) and the losses (B,) after the last step.
    """
    layers, batch, _, width = networks.w.shape
    n, dtype = len(z), networks.w.dtype
    real = (jnp.arange(width) < widths[:, None]).astype(dtype)[:, None, :]  # particles that are no padding
    share = (scales.alpha / (depth * widths))[:, None, None].astype(dtype)
    start = jnp.broadcast_to(z, (batch, *z.shape))
    read = partial(READOUTS[readout], beta=scales.beta)
    every = jax.vmap(read, in_axes=(0 if readout == "particles" else None, 0))

    def seen(z: Array) -> Array:
        return jnp.concatenate([z, jnp.ones_like(z[..., :1])], axis=-1) if bias else z

    def forward(w: Array, out: Array, entering: Array, kept: Array) -> tuple[Array, Array, Array]:
        def layer(index: Array, carry: tuple) -> tuple:
            z, entering, kept = carry
            s = jnp.tanh(scales.gain * jnp.einsum("bni,bim->bnm", seen(z), w[index]))
            moved = z + share * jnp.einsum("bnm,bdm->bnd", s, out[index])
            return moved, entering.at[index].set(z), kept.at[index].set(s)

        return jax.lax.fori_loop(0, depth, layer, (start, entering, kept))

    def step(w: Array, out: Array, head, new_w: Array, new_out: Array, entering: Array, kept: Array, on: Array):
        """One step from (w, out) into the buffers (new_w, new_out); nothing moves where ``on`` is 0."""
        z, entering, kept = forward(w, out, entering, kept)
        p, pulled = jax.grad(lambda z, head: jnp.sum(jax.vmap(_loss, (0, None))(every(head, z), y)), (0, 1))(z, head)
        moving = on * scales.rate * real

        def layer(turn: Array, carry: tuple) -> tuple:
            p, new_w, new_out = carry
            index = depth - 1 - turn
            s, of_w, of_out = kept[index], w[index], out[index]
            e = scales.gain * jnp.einsum("bnd,bdm->bnm", p, of_out) * (1 - s * s)
            new_out = new_out.at[index].set(of_out - moving * jnp.einsum("bnm,bnd->bdm", s, p))
            new_w = new_w.at[index].set(of_w - moving * jnp.einsum("bnm,bni->bim", e, seen(entering[index])))
            back = jnp.einsum("bnm,bim->bni", e, of_w)[..., : p.shape[-1]]
            return p + share * back, new_w, new_out

        _, new_w, new_out = jax.lax.fori_loop(0, depth, layer, (p, new_w, new_out))
        if readout == "particles":
            head = jax.tree.map(lambda v, g: v - on * scales.head_rate * head.width * g, head, pulled)
        return new_w, new_out, head, entering, kept

    def two(turn: Array, carry: tuple) -> tuple:
        w, out, other_w, other_out, head, entering, kept = carry
        other_w, other_out, head, entering, kept = step(
            w, out, head, other_w, other_out, entering, kept, jnp.ones((), dtype)
        )
        last = (2 * turn + 1 < steps).astype(dtype)  # an odd number of steps ends with one that moves nothing
        w, out, head, entering, kept = step(other_w, other_out, head, w, out, entering, kept, last)
        return w, out, other_w, other_out, head, entering, kept

    entering, kept = jnp.zeros((layers, batch, *z.shape), dtype), jnp.zeros((layers, batch, n, width), dtype)
    w, out, head = networks
    carry = (w, out, jnp.zeros_like(w), jnp.zeros_like(out), head, entering, kept)
    w, out, _, _, head, entering, kept = jax.lax.fori_loop(0, (steps + 1) // 2, two, carry)
    last, _, _ = forward(w, out, entering, kept)
    f = every(head, last)
    return last, f, jax.vmap(_loss, (0, None))(f, y)
