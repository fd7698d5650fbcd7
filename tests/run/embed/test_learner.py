"""Models on embeddings for every kind of target, and how embeddings are stored."""

import numpy as np
import pytest

from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.run.embed.files import Table, read_table, write_table
from swinft.run.embed.inputs import Metadata
from swinft.run.embed.learner import Learner, Targets
from swinft.run.embed.linear import SVR, Logistic, Ridge
from swinft.run.embed.methods import MODELS
from swinft.run.embed.model import Learnt
from swinft.run.embed.neighbours import KNN, Retrieval

RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.normal(size=(90, 8)).astype(np.float32)
CLASSES = (EMBEDDINGS[:, 0] > 0).astype(int) + (EMBEDDINGS[:, 1] > 0)
NUMBERS = np.stack([50 + 20 * EMBEDDINGS[:, 0], EMBEDDINGS[:, 1] ** 2], 1).astype(np.float64)


def schema(kind: str, outputs: list[str], **more: object) -> Schema:
    return Schema(kind, outputs, [], {}, [], [], **more)


def answers(learner: Learner, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    rows = Targets(targets[:60].astype(np.float64), np.ones(60) if weights is None else weights)
    return learner.predict(learner.fit(EMBEDDINGS[:60], None, rows), EMBEDDINGS[60:], None)


@pytest.mark.parametrize("name", MODELS)
def test_classes_get_probabilities_of_sum_1(name):
    arguments = {"ridge": {"alpha": 1.0}, "logistic": {"C": 1.0}}.get(name, {})  # the defaults are for more inputs
    found = answers(Learner(MODELS[name](**arguments), schema("classification", ["a", "b", "c"])), np.eye(3)[CLASSES])
    assert found.shape == (30, 3)
    assert np.allclose(found.sum(1), 1, atol=1e-6)
    assert (found >= 0).all()
    assert (found.argmax(1) == CLASSES[60:]).mean() > 0.5


@pytest.mark.parametrize("model", [Logistic(), KNN(), Retrieval(), Ridge(), SVR()])
def test_a_class_that_no_row_of_the_fit_has_is_improbable(model):
    without = np.eye(4)[np.where(CLASSES == 2, 3, CLASSES)]  # no row of class 2
    found = answers(Learner(model, schema("classification", list("abcd"))), without)
    assert np.allclose(found.sum(1), 1, atol=1e-6)
    assert (found.argmax(1) != 2).all()


@pytest.mark.parametrize("model", [SVR(C=100), Ridge(alpha=0.01), KNN(k=5)])
def test_numbers_stay_in_the_range_of_the_fit_and_gaps_are_left_out(model):
    targets = NUMBERS.copy()
    targets[:30, 1] = np.nan
    found = answers(Learner(model, schema("regression", ["y", "z"])), targets)
    assert (found.min(0) >= np.nanmin(targets[:60], 0).astype(np.float32)).all()
    assert (found.max(0) <= np.nanmax(targets[:60], 0).astype(np.float32)).all()
    assert np.corrcoef(found[:, 0], NUMBERS[60:, 0])[0, 1] > 0.6


@pytest.mark.parametrize("model", [SVR(), Ridge(), KNN(), Logistic(C=1)])
def test_labels_are_probabilities_each_and_one_that_never_varies_is_kept(model):
    labels = np.stack([EMBEDDINGS[:, 0] > 0, EMBEDDINGS[:, 1] > 0, np.zeros(90)], 1).astype(np.float64)
    labels[:20, 0] = np.nan
    found = answers(Learner(model, schema("multilabel", ["p", "q", "r"])), labels)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found[:, 2] < 0.01).all()
    assert ((found[:, 1] > 0.5) == (labels[60:, 1] > 0.5)).mean() > 0.6


def test_grades_are_fitted_as_numbers_where_the_metric_measures_their_distance():
    grades = schema("classification", ["0", "1", "2"], are_ordered=True)
    found = answers(Learner(Ridge(), grades, fits_grades=True), np.eye(3)[CLASSES])
    plain = Ridge().fit(EMBEDDINGS[:60].astype(np.float64), _learnt(CLASSES[:60]))
    assert np.allclose(found.sum(1), 1)
    assert ((found > 0).sum(1) <= 2).all()
    assert plain["coefficients"].shape == (8, 1)
    mean = found @ np.arange(3)
    assert np.corrcoef(mean, CLASSES[60:])[0, 1] > 0.6


def _learnt(numbers: np.ndarray):
    return Learnt(numbers[:, None].astype(np.float64), np.ones(len(numbers)), schema("regression", ["y"]).base)


def test_rows_of_weight_0_do_not_count():
    targets, weights = np.eye(3)[CLASSES], np.ones(60)
    weights[40:] = 0
    changed = targets.copy()
    changed[40:60] = np.eye(3)[(CLASSES[40:60] + 1) % 3]
    for model in (Ridge(), Logistic(), KNN()):
        learner = Learner(model, schema("classification", ["a", "b", "c"]))
        assert np.allclose(answers(learner, targets, weights), answers(learner, changed, weights), atol=1e-5), model


def test_a_row_like_no_class_has_no_probable_class():
    gallery = np.eye(8, dtype=np.float32)[:3]
    rows = Targets(np.eye(3), np.ones(3))
    given = np.concatenate([gallery, np.eye(8, dtype=np.float32)[5:6]]) + np.float32(0.01)
    kind = schema("classification", ["a", "b", "c"])
    plain, open_ = Learner(Retrieval(), kind), Learner(Retrieval(new_class=0.5), kind)
    by_plain = plain.predict(plain.fit(gallery, None, rows), given, None)
    found = open_.predict(open_.fit(gallery, None, rows), given, None)
    assert np.allclose(found.sum(1), 1)
    assert (found.max(1)[:3] > 0.9).all()
    assert found.max(1)[3] < 0.4
    assert (np.argsort(found[:3], 1) == np.argsort(by_plain[:3], 1)).all()


@pytest.mark.parametrize(("name", "kind"), [("logistic", "regression"), ("retrieval", "multilabel")])
def test_a_model_for_another_kind_of_target_is_refused(name, kind):
    with pytest.raises(InputError, match=name):
        Learner(MODELS[name](), schema(kind, ["y", "z"]))


def test_blank_metadata_is_marked_and_an_unknown_category_is_the_mean():
    metadata = Metadata(3, [2])
    features = np.array([[1, 1, 0], [3, 0, 1], [np.nan, 1, 0]], dtype=np.float32)
    learned = metadata.learn(features)
    found = metadata.apply(learned, np.array([[np.nan, 0, 0], [3, 0, 1]], dtype=np.float32))
    assert np.allclose(found[0], [0, 1, 2 / 3, 1 / 3])
    assert np.allclose(found[1], [1, 0, 0, 1])


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1.0, "float16"), (1e6, "float32"), (1e-7, "float32"), (60000.0, "float16")]
)
def test_numbers_that_float16_cannot_hold_are_stored_in_float32(tmp_path, scale, dtype):
    values = np.linspace(-scale, scale, 40, dtype=np.float32).reshape(10, 4)
    assert write_table(tmp_path / "x.parquet", Table([f"{k:03d}" for k in range(10)], values, about={"a": 1})) == dtype
    found = read_table(tmp_path / "x.parquet")
    assert found.ids[7] == "007"
    assert np.isfinite(found.values).all()
    assert np.allclose(found.values, values, rtol=2**-10, atol=scale * 2**-11)
    assert found.about == {"a": 1, "dtype": dtype}
