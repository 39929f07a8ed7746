"""The estimators under scikit-learn's own checks, and what those do not look at."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from mfresnet.sklearn import MeanFieldResNetClassifier, MeanFieldResNetRegressor


@parametrize_with_checks([MeanFieldResNetClassifier(), MeanFieldResNetRegressor()])
def test_scikit_learn_accepts(estimator, check):
    check(estimator)
