"""Draws the moving pictures of the concepts page: python docs/pictures.py FOLDER.

All come from trainings of mfresnet on two spirals; nothing is drawn by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.animation import FuncAnimation, PillowWriter

from mfresnet import Config, LayeredResNet, Result, fit, states

COLOURS = np.array(["#d1495b", "#0f5f7a"])
SPAN = np.linspace(-1.25, 1.25, 80)
PLANE = np.stack(np.meshgrid(SPAN, SPAN), axis=-1).reshape(-1, 2).astype(np.float32)


def train() -> Result:
    """A network that bends two spirals apart, its state kept at 30 times."""
    return fit(
        Config(
            data={"n": 256, "n_test": 64, "transform": "none"},
            model={"depth": 20, "width": 20, "head_width": 64, "alpha": 10, "beta": 20, "antithetic": True},
            train={"time": 600, "steps": 120, "probes": 4, "head_probes": 512},
            record={"snapshots": 30, "metrics_every": 2},
            diagnostics={"gram_every": 0, "kl_every": 0, "landscape": False, "solver_error": False},
        )
    )


def colours(result: Result) -> np.ndarray:
    """The colour of each training point."""
    return COLOURS[(np.asarray(result.split.train.y)[:, 0] > 0).astype(int)]


def save(figure, draw, frames: int, path: Path, rate: int = 12, hold: int = 10) -> None:
    """Write an animation whose last frame stays for a while."""
    order = [*range(frames), *[frames - 1] * hold]
    FuncAnimation(figure, lambda k: draw(order[k]), frames=len(order)).save(path, PillowWriter(fps=rate), dpi=80)
    plt.close(figure)


def plain(axes, limit: float = 1.25) -> None:
    """A square picture without ticks."""
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)


def depth(result: Result, path: Path) -> None:
    """Points on their way through the layers, over what the head reads at each place."""
    model, c = result.model, colours(result)
    z = np.asarray(states(model, result.split.train.x))
    reach = 1.05 * np.abs(z).max()
    span = np.linspace(-reach, reach, 90)
    plane = np.stack(np.meshgrid(span, span), axis=-1).reshape(-1, 2).astype(np.float32)
    read = np.asarray(model.read(jnp.asarray(plane)))[:, 0].reshape(90, 90)
    figure, axes = plt.subplots(figsize=(4.6, 4.8))
    axes.contourf(span, span, np.clip(read, -2, 2), 21, cmap="RdBu", alpha=0.35)
    axes.contour(span, span, read, [0], colors="#444", linewidths=1)
    dots = axes.scatter(*z[0].T, c=c, s=14, edgecolors="white", linewidths=0.4)
    plain(axes, reach)
    fine = np.linspace(0, len(z) - 1, 24)

    def draw(k: int):
        low = int(min(fine[k], len(z) - 2))
        share = fine[k] - low
        dots.set_offsets((1 - share) * z[low] + share * z[low + 1])
        axes.set_title(f"depth s = {fine[k] / (len(z) - 1):.2f}")

    save(figure, draw, len(fine), path)


def boundary(result: Result, path: Path) -> None:
    """The prediction over the plane while the laws move, with the loss."""
    x, c = np.asarray(result.split.train.x), colours(result)
    kept = sorted(result.snapshots)
    time = {row["step"]: row["time"] for row in result.history}
    loss = {row["step"]: row["train.loss"] for row in result.history}
    kept = [step for step in kept if step in time]
    values = [np.asarray(result.snapshots[step].model(PLANE))[:, 0].reshape(80, 80) for step in kept]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4.1), width_ratios=(1, 1))
    image = left.imshow(
        values[0], extent=(-1.25, 1.25) * 2, origin="lower", cmap="RdBu", vmin=-1.5, vmax=1.5, alpha=0.6
    )
    left.scatter(*x.T, c=c, s=10, edgecolors="white", linewidths=0.3)
    plain(left)
    (line,) = right.plot([], [], color=COLOURS[1])
    t = np.array([time[step] for step in kept])
    y = np.array([loss[step] for step in kept])
    right.set(xlim=(max(t[1] / 2, 1e-3), t[-1]), ylim=(y.min() / 1.5, y.max() * 1.5), xscale="log", yscale="log")
    right.set(xlabel="training time, in 1/β²", title="training loss")

    def draw(k: int):
        image.set_data(values[k])
        left.set_title(f"prediction at t = {t[k]:.3g}")
        line.set_data(t[1 : k + 1], y[1 : k + 1])

    save(figure, draw, len(kept), path, rate=8)


def law(result: Result, path: Path) -> None:
    """512 probes of the head's law, which has no mass of its own and moves with the field."""
    kept = sorted(result.snapshots)
    probes = [result.snapshots[step].ensemble.probes.head for step in kept]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4.1), sharex=True, sharey=True)
    reach = max(float(np.abs(np.asarray(p.w)).max()) for p in (probes[0], probes[-1]))
    size = 1.02 * min(reach, 6.0)
    limits = {"vmin": -2.5, "vmax": 2.5, "cmap": "RdBu", "s": 14, "edgecolors": "#777", "linewidths": 0.2}
    start, now = np.asarray(probes[0].w), np.asarray(probes[0].out)[:, 0]
    left.scatter(*start.T, c=now, **limits)
    moving = right.scatter(*start.T, c=now, **limits)
    for axes in (left, right):
        plain(axes, size)
    left.set_title("τ₀: the start, N(0, I)")

    def draw(k: int):
        moving.set_offsets(np.asarray(probes[k].w))
        moving.set_array(np.asarray(probes[k].out)[:, 0])
        right.set_title(f"τₜ after {kept[k]} steps")

    save(figure, draw, len(kept), path, rate=8)


def limit(path: Path) -> None:
    """Where one point goes in networks at the start, as the number of particles grows."""
    x = np.array([[1.0, 0.0]], np.float32)
    sizes = [(4, 1), (16, 4), (64, 16), (256, 64)]
    figure, rows = plt.subplots(1, 4, figsize=(9.6, 2.7), sharey=True)
    for axes, (length, width) in zip(rows, sizes, strict=True):
        for seed in range(12):
            model = LayeredResNet.create(jax.random.key(seed), inputs=2, depth=length, width=width, alpha=1.0)
            z = np.asarray(states(model, x))[:, 0, 1]
            axes.plot(np.linspace(0, 1, length + 1), z, color=COLOURS[1], alpha=0.5, linewidth=1)
        axes.axhline(0, color=COLOURS[0], linewidth=1.5)
        axes.set(title=f"L = {length}, M = {width}", xlabel="depth s")
    rows[0].set(ylabel="second coordinate of z(s)", ylim=(-1.5, 1.5))
    figure.savefig(path)
    plt.close(figure)


def main(folder: Path) -> None:
    """Draw all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    result = train()
    depth(result, folder / "depth.gif")
    boundary(result, folder / "boundary.gif")
    law(result, folder / "law.gif")
    limit(folder / "limit.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
