"""
What held-out points prove
==========================

The exact binomial bound against the number of points, for several error rates.
"""

import matplotlib.pyplot as plt
import numpy as np

from mfresnet.bounds import held_out_certificate

points = np.unique(np.logspace(1, 4, 30).astype(int))
for rate in (0.0, 0.02, 0.1):
    bounds = [held_out_certificate(int(rate * m), int(m)).value for m in points]
    plt.loglog(points, bounds, label=f"{100 * rate:g} % errors")
plt.xlabel("held-out points m")
plt.ylabel("bound at δ = 0.05")
plt.title("A bound that every other one has to beat")
plt.legend()
plt.show()
