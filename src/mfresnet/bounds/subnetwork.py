"""Sub-networks drawn from the trained laws: k' head particles and N' residual particles, each at a depth of its own.

Theory, section 8(b). Probe particles are independent exact draws of tau_t and nu_t, so k' and N' of them, drawn
*without replacement*, are an exact draw of the posterior Q; the law of one draw does not care that another draw
shares probes with it.
"""

from __future__ import annotations

from functools import partial
from math import ceil, floor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from ..errors import MfresnetError
from ..flow import Probes, is_misclassified
from ..model import AbstractParticles, AbstractResNet, Activation
from ..model.draws import uniform
from .checks import check_count

DEPTHS = ("stratified", "uniform")


class Draw(NamedTuple):
    """Which probes make up a sub-network; entries past the counts are padding.

    Args:
        layer: layer of each residual particle, increasing.
        member: its probe within the layer.
        head: probes of the head.
        residuals: N'.
        heads: k'.
    """

    layer: Int[Array, "*draws N"]
    member: Int[Array, "*draws N"]
    head: Int[Array, "*draws k"]
    residuals: Int[Array, "*draws"]
    heads: Int[Array, "*draws"]


class Subnetwork(eqx.Module):
    """A drawn network: z <- z + alpha/N' sigma(z, theta_j) in order of depth, f = beta/k' sum_k sigma(z, omega_k).

    Args:
        encoder: N' particles in order of depth (and padding), shape (N, .).
        head: k' particles (and padding), shape (k, .), or None where the state is the prediction.
        residuals, heads: N' and k'; arrays, so that one compiled program serves all of them.
    """

    encoder: AbstractParticles
    head: AbstractParticles | None
    embedding: Float[Array, "state inputs"] | None
    alpha: Float[Array, ""]
    beta: Float[Array, ""]
    residuals: Int[Array, ""]
    heads: Int[Array, ""]
    sigma: Activation = eqx.field(static=True)

    def __call__(self, x: Float[Array, "n inputs"]) -> Float[Array, "n outputs"]:
        """The predictions f(x_i), shape (n, C)."""
        z = x if self.embedding is None else x @ self.embedding.T
        place = jnp.arange(self.encoder.width, dtype=self.residuals.dtype)
        share = jnp.where(place < self.residuals, self.alpha / self.residuals.astype(self.alpha.dtype), 0.0)

        def block(z: Array, xs: tuple[AbstractParticles, Array]) -> tuple[Array, None]:
            one, step = xs
            return z + one.at(z, self.sigma, step.astype(z.dtype)), None

        z, _ = jax.lax.scan(block, z, (self.encoder, share))
        if self.head is None:
            return z
        place = jnp.arange(self.head.width, dtype=self.heads.dtype)
        weight = jnp.where(place < self.heads, self.beta / self.heads.astype(self.beta.dtype), 0.0).astype(z.dtype)
        return self.head.weighted(z, weight, self.sigma)


def probes_needed(residuals: int, layers: int, depths: str = "stratified") -> int:
    """How many probes a layer must have so that every draw of N' = ``residuals`` particles finds enough.

    With uniform depths all N' may fall into one layer; with stratified depths only the strata that meet it.

    >>> probes_needed(40, 10), probes_needed(40, 10, "uniform")
    (4, 40)
    """
    if _check_depths(depths) == "uniform":
        return residuals
    return max(ceil((k + 1) * residuals / layers) - floor(k * residuals / layers) for k in range(layers))


def draw(
    key: Array,
    *,
    layers: int,
    probes: int,
    head_probes: int,
    residuals: int,
    heads: int,
    depths: str = "stratified",
) -> Draw:
    """Choose the probes of one sub-network without replacement.

    Depths: "uniform" are N' independent uniform depths, sorted (docs/theory.md, section 8(b)); "stratified" has
    particle j at a uniform depth of [j/N', (j+1)/N'], for the prior and the posterior alike: the same KL, and
    smaller fluctuations.

    Args:
        layers, probes: shape (L, P) of the encoder's probes.
        head_probes: number of the head's probes (0 without head).
        residuals, heads: N' and k'.

    Raises:
        MfresnetError: more particles asked for than there are probes: draws with replacement would follow the
            empirical law, not Q, and the certificate would not hold.

    >>> drawn = draw(jax.random.key(0), layers=4, probes=3, head_probes=5, residuals=8, heads=2)
    >>> drawn.layer.tolist(), len(set(drawn.head.tolist()))
    ([0, 0, 1, 1, 2, 2, 3, 3], 2)
    """
    options: dict[str, Any] = {"layers": layers, "probes": probes, "head_probes": head_probes}
    return jax.tree.map(lambda leaf: leaf[0], draws(key, 1, **options, residuals=residuals, heads=heads, depths=depths))


def draws(
    key: Array,
    count: int,
    *,
    layers: int,
    probes: int,
    head_probes: int,
    residuals: int,
    heads: int,
    most_residuals: int | None = None,
    most_heads: int | None = None,
    most_draws: int | None = None,
    depths: str = "stratified",
    disjoint: bool = False,
) -> Draw:
    """``count`` draws, each alone an exact draw of Q, with a leading axis; see `draw`.

    Args:
        most_residuals, most_heads: sizes to pad to, so that one compiled program serves a grid of N' and k'.
        most_draws: number of draws to compile for, of which the first ``count`` are returned.
        disjoint: no two draws share a probe: the draws are then independent (one round of `GibbsPoint.independent`).
    """
    blocks = check_count(count, name="count") if disjoint else 1
    residuals, heads = check_count(residuals, name="residuals"), check_count(heads, 0, name="heads")
    most_residuals, most_heads = most_residuals or residuals, most_heads or heads
    if heads == 0 and head_probes > 0:
        raise MfresnetError("heads = 0 is not allowed for a network with head: give a whole number >= 1.")
    if residuals > most_residuals or heads > most_heads:
        raise MfresnetError(
            f"{residuals} residual and {heads} head particles exceed most_residuals = {most_residuals} and "
            f"most_heads = {most_heads}: raise the limits."
        )
    needed = probes_needed(residuals, layers, depths)
    _check_pool(needed * blocks, probes, f"{residuals} residual particles ({depths} depths) in {blocks} disjoint draws")
    _check_pool(heads * blocks, head_probes, f"{heads} head particles in {blocks} disjoint draws")
    numbers = [jnp.asarray(v, jnp.int32) for v in (residuals, heads, needed)]
    sizes = (layers, probes, head_probes, most_residuals, most_heads)
    drawn = _draws(key, max(count, most_draws or count), *numbers, sizes, depths, disjoint)
    if most_draws is None:
        return drawn
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], drawn)  # not JAX's, which compiles for every length


@partial(jax.jit, static_argnums=(1, 5, 6, 7))
def _draws(
    key: Array, count: int, residuals: Array, heads: Array, needed: Array, sizes: tuple, depths: str, disjoint: bool
) -> Draw:
    layers, probes, head_probes, most_residuals, most_heads = sizes
    place = jnp.arange(most_residuals, dtype=jnp.int32)

    def one(index: Array) -> Draw:
        k_depth, k_order = jax.random.split(jax.random.fold_in(key, index))
        # Disjoint draws read successive blocks of one shuffled pool, others the first block of their own.
        k_member, k_head = jax.random.split(jax.random.fold_in(key, count) if disjoint else k_order)
        block = index if disjoint else 0
        # float32 uniforms have 24 bits: the law of the layer is uniform to 2^-24
        within = uniform(k_depth, (most_residuals,), jnp.float32)
        padded = jnp.sort(jnp.where(place < residuals, within, 2.0))
        spread = (place.astype(jnp.float32) + within) / residuals.astype(jnp.float32)
        depth = spread if depths == "stratified" else padded
        layer = jnp.clip(jnp.floor(depth * layers), 0, layers - 1).astype(jnp.int32)
        rank = place - jnp.searchsorted(layer, layer, side="left")  # within the layer: picks distinct probes
        shuffled = jnp.argsort(uniform(k_member, (layers, probes), jnp.float32), axis=1)
        # Padding may run past the last probe; it is clipped here and weighs nothing.
        member = shuffled[layer, jnp.clip(block * needed + rank, 0, probes - 1)].astype(jnp.int32)
        if head_probes == 0:
            return Draw(layer, member, jnp.zeros(0, jnp.int32), residuals, heads)
        order = jnp.argsort(uniform(k_head, (head_probes,)))
        chosen = jnp.clip(block * heads + jnp.arange(most_heads, dtype=jnp.int32), 0, head_probes - 1)
        head = order[chosen].astype(jnp.int32)
        return Draw(layer, member, head, residuals, heads)

    return jax.vmap(one)(jnp.arange(count, dtype=jnp.int32))


def assemble(chosen: Draw, probes: Probes, model: AbstractResNet) -> Subnetwork:
    """The sub-network of one draw, with the scales, embedding and activation of the model."""
    encoder = jax.tree.map(lambda leaf: leaf[chosen.layer, chosen.member], probes.encoder)
    head = None if probes.head is None else jax.tree.map(lambda leaf: leaf[chosen.head], probes.head)
    return Subnetwork(
        encoder,
        head,
        model.embedding,
        model.alpha,
        model.beta,
        chosen.residuals,
        chosen.heads,
        model.sigma,
    )


def sample_subnetwork(
    key: Array, probes: Probes, model: AbstractResNet, *, heads: int, residuals: int, depths: str = "stratified"
) -> Subnetwork:
    """One predictor drawn from Q: k' = ``heads`` and N' = ``residuals`` particles of the trained laws.

    Args:
        probes: where the flow carried the probe particles (`Ensemble.probes`).
        model: for alpha, beta, the embedding and the activation.

    >>> from mfresnet.flow import Ensemble
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3)
    >>> probes = Ensemble.create(jax.random.key(1), model, encoder=4, head=8).probes
    >>> sample_subnetwork(jax.random.key(2), probes, model, heads=5, residuals=6)(jnp.ones((7, 2))).shape
    (7, 1)
    """
    return assemble(draw(key, **pool(probes), residuals=residuals, heads=heads, depths=depths), probes, model)


def pool(probes: Probes) -> dict[str, Any]:
    """The sizes `draw` asks for."""
    layers, count = probes.encoder.batch
    return {"layers": layers, "probes": count, "head_probes": 0 if probes.head is None else probes.head.width}


def log_ratio_of(chosen: Draw, encoder: Float[np.ndarray, "layers probes"], head: np.ndarray | None) -> np.ndarray:
    """log(dQ/dP) at each drawn network: the sum of R over its particles (docs/theory.md, section 7).

    Args:
        chosen: one draw, or a batch with a leading axis.
        encoder: R of the encoder's probes, shape (L, P).
        head: R of the head's probes, or None without head.
    """
    encoder = np.asarray(encoder, np.float64)
    layer, member, residuals = (np.asarray(v) for v in (chosen.layer, chosen.member, chosen.residuals))
    real = np.arange(layer.shape[-1]) < residuals[..., None]
    total = np.sum(np.where(real, encoder[layer, member], 0.0), axis=-1)
    if head is not None:
        index, heads = np.asarray(chosen.head), np.asarray(chosen.heads)
        real = np.arange(index.shape[-1]) < heads[..., None]
        total = total + np.sum(np.where(real, np.asarray(head, np.float64)[index], 0.0), axis=-1)
    return np.asarray(total)


@eqx.filter_jit
def predictions(
    chosen: Draw, probes: Probes, model: AbstractResNet, x: Float[Array, "n inputs"], *, batch: int = 16
) -> Float[Array, "draws n outputs"]:
    """f(x) of every drawn network, ``batch`` draws at a time."""
    return jax.lax.map(lambda one: assemble(one, probes, model)(x), chosen, batch_size=batch)


def draw_errors(
    chosen: Draw,
    probes: Probes,
    model: AbstractResNet,
    x: Float[Array, "n inputs"],
    y: Float[Array, "n outputs"],
    *,
    batch: int = 16,
) -> np.ndarray:
    """Share of the points that each drawn network gets wrong (targets -1/+1 in one column, or one-hot), float64.

    Errors are those of `flow.is_misclassified`.
    """
    return np.asarray(_mistakes(chosen, probes, model, x, y, batch), np.float64) / len(y)


@eqx.filter_jit
def _mistakes(chosen: Draw, probes: Probes, model: AbstractResNet, x: Array, y: Array, batch: int) -> Array:
    return jax.lax.map(
        lambda one: jnp.sum(is_misclassified(assemble(one, probes, model)(x), y)), chosen, batch_size=batch
    )


def vote(f: Float[Array, "draws n outputs"]) -> Int[Array, " n"]:
    """The class most draws vote for: 0/1 for one output (sign), else the index of the largest output.

    A draw with an output that is not finite votes for no class; where no draw is finite the result is -1. Wrong only
    where at least half of the draws are, so its error is at most twice theirs. Ties go to the lower class.

    >>> vote(jnp.array([[[1.0]], [[2.0]], [[-1.0]]])).tolist()
    [1]
    """
    outputs = f.shape[-1]
    finite = jnp.all(jnp.isfinite(f), axis=-1)
    ballots = (f[..., 0] > 0).astype(jnp.int32) if outputs == 1 else jnp.argmax(f, axis=-1)
    counts = jnp.sum(jax.nn.one_hot(ballots, max(2, outputs)) * finite[..., None].astype(jnp.float32), axis=0)
    return jnp.where(jnp.any(finite, axis=0), jnp.argmax(counts, axis=-1), -1)


def _check_depths(depths: str) -> str:
    if depths not in DEPTHS:
        raise MfresnetError(f"depths = {depths!r} is not allowed: give one of {', '.join(DEPTHS)}.")
    return depths


def _check_pool(needed: int, there: int, what: str) -> None:
    if there < needed:
        raise MfresnetError(
            f"{what} can need {needed} distinct probes, but there are {there}: train with more probes, or ask for "
            "fewer particles (repeated probes would not be a draw from the trained law)."
        )
