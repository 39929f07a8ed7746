"""
The price of a KL divergence
============================

How a PAC-Bayes-kl bound turns training error and KL divergence into a bound.
"""

import matplotlib.pyplot as plt
import numpy as np

from mfresnet.bounds import kl_inverse_upper

n, delta = 1000, 0.05
kl = np.linspace(0, 300, 60)
for error in (0.0, 0.02, 0.1):
    budget = (kl + np.log(2 * np.sqrt(n) / delta)) / n
    plt.plot(kl, [kl_inverse_upper(error, b) for b in budget], label=f"training error {error:g}")
plt.axhline(0.5, color="#888", linewidth=1)
plt.xlabel("KL divergence of posterior to prior, in nats (n = 1000)")
plt.ylabel("bound on the error")
plt.title("Small errors are cheap, and KL is paid for by points")
plt.legend()
plt.show()
