"""
Particles before and after training
===================================

Where the head's particles are, and which way they point.
"""

import matplotlib.pyplot as plt
import numpy as np

from mfresnet import Config, fit

result = fit(
    Config(
        data={"n": 128, "n_test": 16, "transform": "none"},
        model={"depth": 6, "width": 12, "head_width": 256},
        train={"rule": "adam", "steps": 200},
        diagnostics={"gram_every": 0, "kl_every": 0, "landscape": False},
    )
)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), sharex=True, sharey=True)
for axes, model, title in ((left, result.start, "start"), (right, result.model, "after 200 steps")):
    w, a = np.asarray(model.head.w), np.asarray(model.head.out)[:, 0]
    axes.scatter(*w.T, c=a, s=20, cmap="RdBu", vmin=-2, vmax=2, edgecolors="#777", linewidths=0.2)
    axes.set(title=title, xlabel="first input weight")
left.set_ylabel("second input weight")
plt.show()
