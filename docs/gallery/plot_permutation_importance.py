"""
Which features matter
=====================

scikit-learn's permutation importance works with the estimators: how much the score on held-out rows falls when one
column is shuffled. Columns that carry the same information hide each other.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.inspection import permutation_importance
from sklearn.model_selection import train_test_split

from mfresnet.sklearn import MeanFieldResNetClassifier

data = load_wine()
x, x_test, y, y_test = train_test_split(data.data, data.target, random_state=0, stratify=data.target)
classifier = MeanFieldResNetClassifier(max_iter=100, random_state=0).fit(x, y)
found = permutation_importance(classifier, x_test, y_test, n_repeats=10, random_state=0)

order = np.argsort(found.importances_mean)
names = np.array(data.feature_names)[order]
plt.barh(names, found.importances_mean[order], xerr=found.importances_std[order])
plt.xlabel("fall of the accuracy when the column is shuffled")
plt.tight_layout()
