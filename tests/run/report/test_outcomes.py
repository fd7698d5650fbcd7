"""Numbers of the report against independent answers."""

import json
import math
import re

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, roc_curve

from swinft.run.report.charts import Chart, Line
from swinft.run.report.outcomes import Binary, confusion_counts, mistakes, reliability
from swinft.run.report.sections.confusion import matrix
from swinft.run.report.sections.settings import changed_keys, flat
from swinft.run.report.sections.subgroups import quarters
from swinft.run.report.svg import nice_ticks, span


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    truth = rng.random(500) < 0.3
    scores = np.clip(0.3 * truth + rng.random(500) * 0.7, 0, 1)
    return Binary("one", scores, truth, scores >= 0.5)


def test_rates_and_curves_are_those_of_scikit_learn(rows):
    precision, recall, f1, _ = precision_recall_fscore_support(rows.truth, rows.said, average="binary")
    assert rows.rates() == pytest.approx((precision, recall, f1))
    false, true = rows.roc()
    known_false, known_true, _ = roc_curve(rows.truth, rows.scores, drop_intermediate=False)
    for x, y in list(zip(false, true, strict=True))[1::10]:
        assert y == max(b for a, b in zip(known_false, known_true, strict=True) if a <= x)
    recalls, precisions = rows.precision_recall()
    for x, y in list(zip(recalls, precisions, strict=True))[1::10]:
        above = [t for t in rows.scores if (rows.truth & (rows.scores >= t)).sum() >= x * rows.truth.sum() - 1e-9]
        assert y == pytest.approx(rows.truth[rows.scores >= max(above)].mean())


def test_what_is_undefined_is_no_number():
    nothing = Binary("none", np.array([0.1, 0.9]), np.array([False, False]), np.array([False, False]))
    assert all(math.isnan(each) for each in (*nothing.rates(), nothing.auc(), nothing.average_precision()))
    assert not nothing.is_mixed


def test_the_calibration_error_is_that_of_a_loop_over_bins():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.random(400), [0.0, 1.0]])
    right = rng.random(402) < values**2
    wanted = 0.0
    for low in range(10):
        inside = [v for v in range(402) if low / 10 <= values[v] < (low + 1) / 10 or (low == 9 and values[v] == 1)]
        wanted += abs(np.mean(values[inside]) - np.mean(right[inside])) * len(inside) / 402
    *_, counts, error = reliability(values, right)
    assert error == pytest.approx(wanted)
    assert counts.sum() == 402


@pytest.mark.parametrize("classes", [2, 5, 30, 200])
def test_a_confusion_matrix_is_readable_with_few_and_with_many_classes(classes):
    rng = np.random.default_rng(2)
    true = rng.integers(classes, size=3000)
    said = np.where(rng.random(3000) < 0.7, true, rng.integers(classes, size=3000))
    counts = confusion_counts(true, said, classes)
    assert counts.sum() == 3000
    assert counts[true[0], said[0]] == ((true == true[0]) & (said == said[0])).sum()
    drawn = matrix(counts, [f"</svg>{k}" for k in range(classes)])
    assert drawn.count("</svg>") <= 1
    assert len(drawn) < 400_000
    assert ("data:image/png" in drawn) == (classes == 200)
    written = re.findall(r'on-heat">([0-9,]+)<', drawn)
    assert written == ([f"{count:,}" for count in counts.ravel() if count] if classes <= 12 else [])


def test_parts_of_a_number_hold_every_row_once():
    values = np.array([1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, np.nan])
    parts = quarters(values)
    assert np.sum([inside for _, inside in parts], 0).tolist() == [1] * 10
    assert parts[-1][0] == "(missing)"
    assert [label for label, _ in quarters(np.array([0.0, 1.0, 1.0]))] == ["0", "1"]


def test_keys_that_differ_from_the_defaults():
    found = {row[0].text: (row[1].text, row[2].text) for row in changed_keys("model: {optim: {lr: 0.5}}\nseed: 0\n")}
    assert found["model.optim.lr"][0] == "0.5"
    assert flat({"a": {"b": 1, "c": {"class_path": "x"}}, "d": {}}) == {"a.b": 1, "a.c": {"class_path": "x"}, "d": {}}


def test_a_chart_holds_its_data_and_no_name_ends_its_element():
    lines = [Line("</script><b>", [1, 2, 3], [0.5, math.nan, 0.25], 0), Line("b", [1, 2, 3], [math.nan] * 3, 1)]
    html = Chart("</figcaption>", "epoch", "loss", lines, [(2.0, math.nan, 0)]).html()
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])
    assert [line["y"] for line in data["lines"]] == [[0.5, None, 0.25], [None] * 3]
    assert data["lines"][0]["name"] == "</script><b>"
    assert html.count("</script>") == html.count("</figcaption>") == 1
    assert "nan" not in html
    assert Chart("t", "x", "y", [Line("a", [1.0], [math.nan], 0)]).html() == ""


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7.9), (0.1234, 0.1235), (1e-9, 2e-9), (0, 1e6)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-9 * abs(high) <= tick <= high * (1 + 1e-9) for tick in ticks)
    assert span([5, 5]) == pytest.approx((4.75, 5.25))  # not half a unit, which is much of a score
    assert span([np.nan]) == pytest.approx((-0.04, 1.04))


def test_frequent_mistakes_are_those_of_the_matrix():
    rng = np.random.default_rng(0)
    for _ in range(50):
        classes = int(rng.integers(2, 8))
        true, said = rng.integers(0, classes, (2, int(rng.integers(1, 60))))
        wrong = confusion_counts(true, said, classes)
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:5]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        expected = [[int(one), int(other), int(wrong[one, other])] for one, other in pairs if wrong[one, other]]
        assert mistakes(true, said, 5).tolist() == expected
