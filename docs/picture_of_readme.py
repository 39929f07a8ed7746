"""Draws docs/_static/two-spirals.png, the picture of README.md: python docs/picture_of_readme.py."""

from __future__ import annotations

from pathlib import Path

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from mfresnet import LayeredResNet, states
from mfresnet.certify import NetworkPredictor, path
from mfresnet.data import two_spirals

HERE = Path(__file__).parent
COLOURS = np.array(["#d1495b", "#0f5f7a"])


def main() -> None:
    """A network trained and certified by an annealed Langevin chain: states, prediction, what was paid."""
    matplotlib.use("agg")
    matplotlib.rc_file(HERE / "_static" / "matplotlibrc")
    x, y = two_spirals(1024, np.random.default_rng(0))
    y = y[:, 0]
    network = LayeredResNet.create(jax.random.key(0), inputs=2, depth=10, width=10, head_width=30, alpha=3.0, beta=30.0)
    f = NetworkPredictor(network)
    done = path(f, f.prior(), (x, y), None, jax.random.key(1), steps=3000, pilot_steps=800)
    trained, certificate = f.network(done.param()), done.certificate
    fresh, truth = two_spirals(4000, np.random.default_rng(1))
    error = float(np.mean(np.asarray(trained(fresh.astype("f4")))[:, 0] * truth[:, 0] <= 0))

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.9), width_ratios=(1, 1, 1.25))
    colours = COLOURS[(y > 0).astype(int)]
    z = np.asarray(states(trained, x.astype("f4")))
    for k in range(0, len(x), 7):
        left.plot(*z[:, k].T, color=colours[k], alpha=0.25, linewidth=0.8)
    left.scatter(*z[-1].T, c=colours, s=5)
    left.set(title="The encoder moves the states ...", xticks=[], yticks=[], aspect="equal")
    span = np.linspace(-1.25, 1.25, 140)
    plane = np.stack(np.meshgrid(span, span), -1).reshape(-1, 2).astype("f4")
    value = np.asarray(trained(plane))[:, 0].reshape(140, 140)
    middle.imshow(np.tanh(value / 2), extent=(-1.25, 1.25) * 2, origin="lower", cmap="RdBu", alpha=0.6)
    middle.scatter(*x.T, c=colours, s=5)
    middle.set(title="... so that the head can tell them", xticks=[], yticks=[])
    for axes in (left, middle):
        for side in axes.spines.values():
            side.set_visible(False)
    losses = np.asarray(done.chains.losses, np.float64)[:, 0]
    gammas = np.asarray(done.schedule.gammas, np.float64)
    price = np.cumsum(gammas * (losses[:-1] - losses[1:])) / len(x)
    right.plot(np.asarray(done.chains.errors)[1:, 0] / len(x), color=COLOURS[0], linewidth=0.7, label="training error")
    right.plot(price, color="#edae49", linewidth=1.2, label="price of the path, c/n")
    right.axhline(certificate.value, color=COLOURS[1], label=f"certified error: {certificate.value:.3f}")
    right.axhline(error, color="#888", linestyle=":", label=f"error on 4,000 new points: {error:.3f}")
    right.set(
        xlabel="step of the annealed Langevin chain",
        ylim=(0, 0.6),
        title="... and the path bounds its error",
    )
    right.legend(loc="upper right")
    figure.savefig(HERE / "_static" / "two-spirals.png", dpi=110)
    print(f"certified error {certificate.value:.4f}, error on new points {error:.4f}")


if __name__ == "__main__":
    main()
