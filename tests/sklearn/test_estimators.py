"""The estimators under scikit-learn's own checks, and what those do not look at."""

import pickle

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

from mfresnet import gram
from mfresnet.errors import DivergedError, MfresnetError
from mfresnet.sklearn import MeanFieldResNetClassifier, MeanFieldResNetRegressor
from mfresnet.sklearn.certify import rows_apart
from mfresnet.sklearn.classifier import nearest_probabilities
from mfresnet.sklearn.rows import Rows, fill_rows, merge_rows, weighted_moments

SMALL = {"depth": 3, "width": 8, "head_width": 16, "max_iter": 100, "random_state": 0}


@parametrize_with_checks([MeanFieldResNetClassifier(), MeanFieldResNetRegressor()])
def test_scikit_learn_accepts(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def line():
    x = np.linspace(-2, 2, 60)[:, None]
    return x, 100 + 50 * np.sin(x[:, 0])


def test_a_pickled_estimator_predicts_the_same_bits(iris, line):
    for estimator, (x, y), method in (
        (MeanFieldResNetClassifier(**SMALL), iris, "predict_proba"),
        (MeanFieldResNetRegressor(**SMALL), line, "predict"),
    ):
        fitted = estimator.fit(x, y)
        text = pickle.dumps(fitted)
        assert b"jax" not in text and b"equinox" not in text
        back = pickle.loads(text)
        assert getattr(back, method)(x).tobytes() == getattr(fitted, method)(x).tobytes()
        # and training goes on from the same bits, the optimiser's memory included
        assert fitted.partial_fit(x, y).particles_["head_w"].tobytes() == (
            back.partial_fit(x, y).particles_["head_w"].tobytes()
        )


def test_the_same_seed_gives_the_same_bits(iris):
    first, second = (MeanFieldResNetClassifier(**SMALL, batch_size=32).fit(*iris) for _ in range(2))
    assert first.decision_function(iris[0]).tobytes() == second.decision_function(iris[0]).tobytes()
    other = MeanFieldResNetClassifier(**SMALL | {"random_state": 1}).fit(*iris)
    assert not np.allclose(other.decision_function(iris[0]), first.decision_function(iris[0]))


def test_pipeline_grid_search_and_cross_validation():
    x, y = load_wine(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), MeanFieldResNetClassifier(**SMALL))
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.93
    search = GridSearchCV(pipeline, {"meanfieldresnetclassifier__beta": [2.0, 10.0]}, cv=2).fit(x, y)
    assert search.best_score_ > 0.9 and search.predict(x[:3]).shape == (3,)


@pytest.mark.parametrize("batch_size", [None, 16])
def test_an_integer_weight_is_a_repeated_row_to_the_bit(iris, batch_size):
    """Equal rows are merged before training, so both fits see the same arrays; no tolerance is needed."""
    x, y = iris[0][::2], iris[1][::2]
    rng = np.random.default_rng(0)
    weights, order = rng.integers(0, 4, len(x)), rng.permutation(len(x))
    model = MeanFieldResNetClassifier(**SMALL, batch_size=batch_size)
    weighted = clone(model).fit(x[order], y[order], weights[order])
    repeated = clone(model).fit(x.repeat(weights, axis=0), y.repeat(weights))
    assert weighted.decision_function(x).tobytes() == repeated.decision_function(x).tobytes()


@pytest.mark.parametrize("class_weight", ["balanced", {0: 0.5, 2: 3.0}, {0: 0, 1: 1, 2: 1}])
def test_class_weights_are_the_sample_weights_that_scikit_learn_computes(iris, class_weight):
    """Not to the bit in the network: the transform is fitted without them in one and with them in the other."""
    x, y = iris[0][20:140], iris[1][20:140]
    own = np.random.default_rng(0).integers(1, 4, len(x))
    weights = own * compute_sample_weight(class_weight, y.repeat(own))[np.cumsum(own) - 1]
    model = MeanFieldResNetClassifier(**SMALL, standardize=False)
    by_class = clone(model).set_params(class_weight=class_weight).fit(x, y, own)
    by_row = clone(model).fit(x, y, weights)
    if class_weight == {0: 0, 1: 1, 2: 1}:
        assert list(by_class.classes_) == [0, 1, 2] and 0 not in by_class.predict(x)
    else:
        assert by_class.decision_function(x).tobytes() == by_row.decision_function(x).tobytes()
    assert by_class.decision_function(x).tobytes() != clone(model).fit(x, y, own).decision_function(x).tobytes()


def test_class_weights_stay_out_of_the_standardisation_and_of_the_certificate(iris):
    x, y = iris[0], np.where(iris[1] == 0, "a", "b")
    flow = {"rule": "gradient-flow", "max_iter": 60, "beta": 5.0, "probes": 8, "head_probes": 64}
    plain = MeanFieldResNetClassifier(**SMALL | flow).fit(x, y)
    balanced = MeanFieldResNetClassifier(**SMALL | flow, class_weight="balanced").fit(x, y)
    assert np.array_equal(plain.transform_.mean, balanced.transform_.mean)
    assert balanced.certificate_ is not None and balanced.certificate_.details["n"] == 112


def test_a_balanced_loss_finds_the_rare_class():
    """A rare class inside a frequent one: recall of it is what class weights buy."""
    rng = np.random.default_rng(0)
    x = np.vstack([rng.normal(size=(950, 2)), rng.normal(size=(50, 2)) * 0.7 + 1.5])
    y = np.repeat([0, 1], [950, 50])
    recall = {}
    for class_weight in (None, "balanced", {1: 19.0}):
        model = MeanFieldResNetClassifier(**SMALL | {"max_iter": 300}, class_weight=class_weight).fit(x, y)
        recall[str(class_weight)] = model.predict(x[y == 1]).mean()
    assert recall["None"] < 0.6 and recall["balanced"] > 0.8 and recall["{1: 19.0}"] > 0.8


def test_class_weights_that_are_refused(iris):
    x, y = iris
    for wrong, said in (
        ("balancd", "'balancd' is not allowed"),
        ({3: 1.0}, "names 3, which is no class"),
        ({0: -1.0}, "of 0 = -1.0 is not allowed"),
        ({0: "a"}, "of 0 = 'a'"),
        ({0: 0, 1: 0, 2: 0}, "no row with weight"),
    ):
        with pytest.raises(MfresnetError, match=said):
            MeanFieldResNetClassifier(**SMALL, class_weight=wrong).fit(x, y)
    with pytest.raises(MfresnetError, match="needs all rows at once"):
        MeanFieldResNetClassifier(**SMALL, class_weight="balanced").partial_fit(x, y, classes=[0, 1, 2])
    model = MeanFieldResNetClassifier(**SMALL, standardize=False)
    once = clone(model).set_params(class_weight={0: 2.0}).partial_fit(x, y, classes=[0, 1, 2])
    again = clone(model).partial_fit(x, y, classes=[0, 1, 2], sample_weight=np.where(y == 0, 2.0, 1.0))
    assert once.decision_function(x).tobytes() == again.decision_function(x).tobytes()


def test_weights_of_the_regressor_move_its_fit(line):
    x, y = line
    doubled, target = np.vstack([x, x]), np.concatenate([y, y + 40])
    model = MeanFieldResNetRegressor(**SMALL | {"max_iter": 400})
    heavy = model.fit(doubled, target, np.repeat([3.0, 1.0], len(x))).predict(x)
    # the weighted mean of the two targets of each point
    assert np.abs(heavy - (y + 10)).mean() < 5
    assert np.abs(clone(model).fit(doubled, target).predict(x) - (y + 20)).mean() < 5


def test_merging_and_filling_keep_every_weighted_sum():
    rng = np.random.default_rng(0)
    x, y, w = rng.integers(0, 3, (200, 2)).astype(float), rng.integers(0, 2, (200, 1)).astype(float), rng.random(200)
    w[:20] = 0
    rows = merge_rows(x, y, w)
    again = merge_rows(x[::-1], y[::-1], w[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(rows, again, strict=True))
    assert len(np.unique(np.hstack([rows.x, rows.y]), axis=0)) == len(rows.x) == 18
    for table in (rows, fill_rows(rows), fill_rows(Rows(*(leaf[:5] for leaf in rows)))):
        assert (table.weights > 0).all()
    whole = np.hstack([x, y])
    for table in (rows, fill_rows(rows)):
        assert np.allclose(table.weights @ np.hstack([table.x, table.y]), w @ whole)
    mean, std = weighted_moments(x, w)
    assert np.allclose(mean, np.average(x, axis=0, weights=w))
    assert np.allclose(std**2, np.average((x - mean) ** 2, axis=0, weights=w))


def test_labels_of_any_type(iris):
    x, y = iris
    for names in (np.array(["rose", "iris", "lily"]), np.array([7, -2, 30]), np.array(["b", "a", "c"], dtype=object)):
        model = MeanFieldResNetClassifier(**SMALL).fit(x, names[y])
        assert list(model.classes_) == sorted(names) and model.score(x, names[y]) > 0.9
    two = np.where(y == 0, "yes", "no")
    model = MeanFieldResNetClassifier(**SMALL).fit(x, two)
    assert model.decision_function(x).shape == (150,) and model.predict_proba(x).shape == (150, 2)
    assert model.score(x, two) == 1.0


def test_squared_loss_gives_probabilities_too(iris):
    x, y = iris
    for target in (y, y == 0):
        model = MeanFieldResNetClassifier(**SMALL, loss="squared").fit(x, target)
        p = model.predict_proba(x)
        assert np.allclose(p.sum(axis=1), 1) and p.min() >= 0
        assert np.array_equal(model.classes_[np.argmax(p, axis=1)], model.predict(x))
    f = np.random.default_rng(0).normal(size=(50, 4))
    nearest = nearest_probabilities(f)
    assert np.allclose(nearest.sum(axis=1), 1) and nearest.min() >= 0
    # no point of the simplex lies nearer: the projection's inequality, at the corners
    assert ((np.eye(4)[None] - nearest[:, None]) * (f - nearest)[:, None]).sum(axis=2).max() < 1e-12


def test_feature_names_are_kept_and_compared(iris):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(iris[0], schema=list("abcd"))
    model = MeanFieldResNetClassifier(**SMALL).fit(frame, iris[1])
    assert list(model.feature_names_in_) == list("abcd") and model.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename({"a": "z"}))


def test_categories_go_through_a_pipeline(iris):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(iris[0][:, :2], columns=["a", "b"]).assign(kind=np.array(["x", "y", "z"])[iris[1]])
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), make_column_selector(dtype_exclude="number")),
        remainder=StandardScaler(),
    )
    model = make_pipeline(columns, MeanFieldResNetClassifier(**SMALL)).fit(frame, iris[1])
    assert model.score(frame, iris[1]) > 0.9
    names = list(model[:-1].get_feature_names_out())
    assert len(names) == model[-1].n_features_in_ == 5
    importance = permutation_importance(model, frame, iris[1], n_repeats=2, random_state=0).importances_mean
    assert np.argmax(importance) == 2  # the category is the class


def test_what_is_refused(iris):
    x, y = iris
    model = MeanFieldResNetClassifier(**SMALL)
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        model.fit(scipy.sparse.csr_array(x), y)
    with pytest.raises(MfresnetError, match=r"1 class .*at least 2"):
        model.fit(x, np.ones(150))
    with pytest.raises(ValueError, match="non-zero"):
        model.fit(x, y, np.zeros(150))
    for wrong, said in (
        ({"depth": 0}, "model.depth = 0"),
        ({"rule": "adamm"}, "rule"),
        ({"loss": "hinge"}, "train.loss"),
        ({"activation": "tan"}, "tanh"),
        ({"delta": 1.5}, "delta = 1.5"),
        ({"validation_fraction": 0}, "validation_fraction"),
        ({"n_iter_no_change": 0}, "n_iter_no_change"),
    ):
        with pytest.raises(MfresnetError, match=said):
            clone(model).set_params(**wrong).fit(x, y)
    with pytest.raises(MfresnetError, match="needs classes"):
        MeanFieldResNetRegressor(loss="logistic").fit(x, y)
    with pytest.raises(DivergedError, match="learning_rate"):
        MeanFieldResNetRegressor(**SMALL | {"rule": "sgd", "learning_rate": 1e6}).fit(x, y)
    for name in ("gram_", "model_"):
        with pytest.raises(NotFittedError):
            getattr(MeanFieldResNetClassifier(), name)


def test_partial_fit_goes_on(iris):
    x, y = iris
    model = MeanFieldResNetClassifier(**SMALL, batch_size=32)
    with pytest.raises(MfresnetError, match="classes is missing"):
        model.partial_fit(x, y)
    losses = []
    for _ in range(40):
        model.partial_fit(x, y, classes=[0, 1, 2])
        losses.append(model.loss_curve_[-1])
    assert losses[-1] < 0.5 * losses[0] and model.n_iter_ == 40 * 8
    assert model.score(x, y) > 0.9 and model.certificate_ is None and "partial_fit" in model.certificate_note_
    with pytest.raises(MfresnetError, match="not in classes"):
        model.partial_fit(x, y + 1)
    with pytest.raises(MfresnetError, match="differ"):
        model.partial_fit(x, y, classes=[0, 1])
    with pytest.raises(MfresnetError, match="depth = 5, but training began with 3"):
        model.set_params(depth=5).partial_fit(x, y)


def test_warm_start_and_early_stopping(iris, line):
    model = MeanFieldResNetRegressor(**SMALL, warm_start=True).fit(*line)
    before = model.score(*line)
    assert model.fit(*line).score(*line) > before and model.n_iter_ == 200
    fresh = MeanFieldResNetClassifier(**SMALL | {"max_iter": 5000}, early_stopping=True, n_iter_no_change=3)
    assert fresh.fit(*iris).n_iter_ < 5000 and fresh.score(*iris) > 0.9


def test_the_gram_matrix_is_that_of_the_training_rows(iris):
    x, y = iris[0][:40], (np.arange(40) % 2)
    model = MeanFieldResNetClassifier(**SMALL).fit(x, y)
    expected = gram(model.model_, model.transform_.apply(x)).total
    assert np.allclose(model.gram_, expected, rtol=1e-6) and model.gram_.shape == (40, 40)
    assert "gram_" not in dir(model)  # so that showing the estimator in a notebook does not compute it


def test_the_certificate_of_a_flow(iris):
    x, y = iris[0], np.where(iris[1] == 0, "a", "b")
    flow = {"rule": "gradient-flow", "max_iter": 60, "beta": 5.0, "probes": 8, "head_probes": 64}
    model = MeanFieldResNetClassifier(**SMALL | flow).fit(x, y)
    found = model.certificate_
    assert found.name == "pac_bayes" and found.details["n"] == 112 and model.certificate_note_ == ""
    assert found.value > np.mean(model.predict(x) != y) and found.status == "estimated"
    # the standardisation is that of the 38 rows that the bound leaves out
    assert "38 training points" in found.hypotheses[-1].note
    apart = rows_apart(150, int(check_random_state(model.random_state).randint(2**31 - 3)))
    assert np.allclose(model.transform_.mean, x[apart].mean(axis=0))
    scaled = StandardScaler().fit_transform(x)
    alone = clone(model).set_params(standardize=False).fit(scaled, y)
    assert alone.certificate_.status == "estimated" and not alone.certificate_.vacuous
    assert alone.certificate_.details["n"] == 150
    again = pickle.loads(pickle.dumps(alone))
    assert again.certificate_ == alone.certificate_
    voted = again.predict_by_vote(scaled)
    assert set(voted) == {"a", "b"} and np.mean(voted != y) <= 2 * alone.certificate_.terms["train error"]
    for change, said in (
        ({"rule": "adam"}, "no flow"),
        ({"probes": 0}, "no probe"),
        ({"activation": "relu"}, "smooth"),
    ):
        other = clone(model).set_params(**change).fit(x, y)
        assert other.certificate_ is None and said in other.certificate_note_
    assert "independent draws" in clone(model).fit(x, y, np.arange(150) % 2 + 1).certificate_note_
    regressor = MeanFieldResNetRegressor(**SMALL).fit(x, iris[1])
    assert regressor.certificate_ is None and "error rate" in regressor.certificate_note_


def test_outputs_that_are_not_finite_are_errors_in_the_score_and_have_no_class():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    y = np.where(x[:, 0] > 0.5, "yes", "no")
    estimator = MeanFieldResNetClassifier(depth=2, width=4, head_width=8, max_iter=2, random_state=0).fit(x, y)
    weights = rng.uniform(size=40)
    accuracy = accuracy_score(y, estimator.predict(x), sample_weight=weights)
    assert estimator.score(x, y, weights) == pytest.approx(accuracy)
    right, lost = estimator.predict(x) == y, np.arange(40) < 10
    assert np.any(right & lost)
    outputs = np.where(lost[:, None], np.nan, estimator._outputs(x))
    estimator._outputs = lambda X: outputs
    assert estimator.score(x, y) == np.mean(right & ~lost)
    for call in (estimator.predict, estimator.predict_proba):
        with pytest.raises(MfresnetError, match="rows 0, 1, 2, 3, 4 and 5 more of X are not finite"):
            call(x)
