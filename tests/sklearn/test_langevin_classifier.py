"""The rule langevin of the classifier."""

import numpy as np
import pytest

from mfresnet.errors import MfresnetError
from mfresnet.sklearn import MeanFieldResNetClassifier, MeanFieldResNetRegressor

X = np.random.default_rng(0).normal(size=(90, 2))
Y = np.where(X[:, 0] + X[:, 1] > 0, "above", "below")
SMALL = {"rule": "langevin", "depth": 1, "width": 2, "head_width": 8, "beta": 30.0, "random_state": 0}


def test_fit_certifies_the_network_it_predicts_with():
    model = MeanFieldResNetClassifier(**SMALL, max_iter=300, standardize=False).fit(X, Y)
    certificate = model.certificate_
    assert certificate is not None and model.certificate_note_ == ""
    assert certificate.details["n"] == 90
    assert certificate.terms["train error"] == pytest.approx(1 - model.score(X, Y), abs=1e-9)


@pytest.mark.parametrize(
    ("options", "words"), [({"early_stopping": True}, "early_stopping"), ({"class_weight": {"above": 2.0}}, "weight")]
)
def test_what_does_not_go_with_the_rule(options, words):
    with pytest.raises(MfresnetError, match=words):
        MeanFieldResNetClassifier(**SMALL, **options).fit(X, Y)


def test_regression_has_no_mistakes():
    with pytest.raises(MfresnetError, match="regression"):
        MeanFieldResNetRegressor(**SMALL).fit(X, X[:, 0])
