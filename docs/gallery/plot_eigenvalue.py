"""
A smallest eigenvalue with its error
====================================

The closer two inputs are, the smaller the eigenvalue, until it drowns in rounding.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from mfresnet import LayeredResNet, gram, smallest_eigenvalue

model = LayeredResNet.create(jax.random.key(0), inputs=3, depth=4, width=32, head_width=200, beta=10.0)
gaps = np.logspace(-9, 0, 19)
values, errors = [], []
for gap in gaps:
    x = np.array([[1.0, 0.0, 0.0], [np.cos(gap), np.sin(gap), 0.0], [0.0, 0.0, 1.0]])
    found = smallest_eigenvalue(gram(model, x).total)
    values.append(abs(found.value))
    errors.append(found.error)
plt.loglog(gaps, values, "o-", label="|λ_min|")
plt.loglog(gaps, errors, "--", label="its error bound")
plt.xlabel("angle between two inputs")
plt.title("Below the dashed line, λ_min is zero")
plt.legend()
plt.show()
