"""
Kernel at the start, by activation
==================================

The Gram matrix of the limit at the start depends on the angle between two inputs only.
"""

import matplotlib.pyplot as plt
import numpy as np

from mfresnet import initial_kernel

angle = np.linspace(0, np.pi, 60)
x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
for name in ("tanh", "erf", "relu", "sin"):
    row = initial_kernel(x, name).gram[0]
    plt.plot(angle, row / row[0], label=name)
plt.xlabel("angle between two inputs")
plt.ylabel("kernel, relative to its diagonal")
plt.title("What the network finds similar before training")
plt.legend()
plt.show()
