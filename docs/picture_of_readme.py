"""Draws docs/_static/two-spirals.png, the picture of README.md, by the training of `make demo`.

python docs/picture_of_readme.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import mfresnet
from mfresnet import Config, states

HERE = Path(__file__).parent
COLOURS = np.array(["#d1495b", "#0f5f7a"])


def main() -> None:
    """A network trained and certified by an annealed Langevin chain: states, prediction, what was paid."""
    matplotlib.use("agg")
    matplotlib.rc_file(HERE / "_static" / "matplotlibrc")
    result = mfresnet.fit(Config(data={"n": 1024}, train={"rule": "langevin"}))
    certificate = mfresnet.certify(result)["path"]
    trained, points, error = result.model, result.split.train, result.summary["test.error"]
    x, y = points.x, points.y[:, 0]

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
    middle.set(title="... the head separates them ...", xticks=[], yticks=[])
    for axes in (left, middle):
        for side in axes.spines.values():
            side.set_visible(False)
    rows = result.history
    steps = [row["step"] for row in rows]
    right.plot(steps, [row["train.error"] for row in rows], color=COLOURS[0], linewidth=1, label="training error")
    price = [row["chain.c"] / len(x) for row in rows]
    right.plot(steps, price, color="#edae49", linewidth=1.2, label="price of the path, c/n")
    right.axhline(certificate.value, color=COLOURS[1], label=f"certified error: {certificate.value:.3f}")
    label = f"error on {result.summary['test.n']:,} held-out points: {error:.3f}"
    right.axhline(error, color="#888", linestyle=":", label=label)
    right.set(
        xlabel="step of the annealed Langevin chain",
        ylim=(0, 0.6),
        title="... and the path bounds the error",
    )
    right.legend(loc="upper right")
    figure.savefig(HERE / "_static" / "two-spirals.png", dpi=110)
    print(f"certified error {certificate.value:.4f}, error on held-out points {error:.4f}")


if __name__ == "__main__":
    main()
