"""
Order of the depth schemes
==========================

Euler is the ResNet itself; midpoint and RK4 approach the depth ODE faster.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from mfresnet import LayeredResNet

x = jax.random.normal(jax.random.key(1), (16, 2))
depths = [2, 4, 8, 16]
options = {"inputs": 2, "width": 16, "alpha": 2.0, "shared": True}  # one law for every depth: one limit for all
limit = LayeredResNet.create(jax.random.key(0), depth=2, **options).limit_state(x, 1e-6)
for scheme in ("euler", "midpoint", "rk4"):
    errors = []
    for depth in depths:
        model = LayeredResNet.create(jax.random.key(0), depth=depth, scheme=scheme, **options)
        errors.append(np.abs(np.asarray(model.states(x)[-1] - limit)).max())
    plt.loglog(depths, errors, "o-", label=scheme)
plt.xlabel("layers L")
plt.ylabel("distance to the depth ODE")
plt.title("Orders 1, 2 and 4, down to float32")
plt.legend()
plt.show()
