"""The rule langevin of the classifier."""

import pickle

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


def test_one_row_in_twenty_fixes_the_standardisation():
    """The other estimators leave out a quarter, whose bound is theirs alone."""
    certificate = MeanFieldResNetClassifier(**SMALL, max_iter=20).fit(X, Y).certificate_
    assert certificate.details["n"] == 86 and "4 rows that are left out" in certificate.hypotheses[-1].note


@pytest.mark.parametrize(
    ("options", "words"), [({"early_stopping": True}, "early_stopping"), ({"class_weight": {"above": 2.0}}, "weight")]
)
def test_what_does_not_go_with_the_rule(options, words):
    with pytest.raises(MfresnetError, match=words):
        MeanFieldResNetClassifier(**SMALL, **options).fit(X, Y)


def test_regression_has_no_mistakes():
    with pytest.raises(MfresnetError, match="regression"):
        MeanFieldResNetRegressor(**SMALL).fit(X, X[:, 0])


@pytest.mark.parametrize("classes", [2, 3])
def test_several_chains_vote(classes):
    """The prediction is the vote of the chains, which is what the certificate is of; probabilities are shares of it."""
    y = np.digitize(X[:, 0], [-0.5, 0.5]) if classes == 3 else Y
    model = MeanFieldResNetClassifier(**SMALL, chains=5, max_iter=150, standardize=False).fit(X, y)
    certificate = model.certificate_
    assert certificate.details["chains"] == 5 and "vote" in certificate.certifies
    shares = model.predict_proba(X)
    np.testing.assert_allclose(shares * 5, np.round(shares * 5), atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), model.classes_[shares.argmax(axis=1)])
    np.testing.assert_array_equal(model.predict_by_vote(X), model.predict(X))
    # a vote errs only where half of the networks err: the mean error is at least half of the vote's
    assert 1 - model.score(X, y) <= 2 * certificate.terms["train error"] + 1e-12
    right = np.searchsorted(model.classes_, y)
    mean_error = 1 - shares[np.arange(len(X)), right].mean()
    assert certificate.terms["train error"] == pytest.approx(mean_error, abs=1e-6)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), shares)


def test_no_chains_are_refused():
    with pytest.raises(MfresnetError, match="chains = 0"):
        MeanFieldResNetClassifier(**SMALL, chains=0, max_iter=20).fit(X, Y)
