"""
One learning rate, from depth 4 to 64
=====================================

The loss after 60 steps of Adam against its learning rate: the best one moves by at most one step of this grid.
"""

import matplotlib.pyplot as plt

from mfresnet import Config, fit

rates = (0.003, 0.01, 0.03, 0.1, 0.3)
for depth in (4, 16, 64):
    losses = []
    for rate in rates:
        config = Config(
            data={"n": 64, "n_test": 16},
            model={"depth": depth, "width": 8, "head_width": 32},
            train={"rule": "adam", "learning_rate": rate, "steps": 60},
            diagnostics={"gram_every": 0, "kl_every": 0, "landscape": False},
        )
        losses.append(fit(config).summary["train.loss"])
    plt.loglog(rates, losses, "o-", label=f"L = {depth}")
plt.xlabel("learning rate")
plt.ylabel("training loss after 60 steps")
plt.title("Tune at depth 4, train at depth 64")
plt.legend()
plt.show()
