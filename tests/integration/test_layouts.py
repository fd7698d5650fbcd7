"""The generated competitions are what they promise, and their official metrics are those of the definitions."""

import csv

import numpy as np
import pandas as pd
import pytest

from tests.integration.layouts import LAYOUTS, scores

Frame = pd.DataFrame


def words(*cells: str) -> Frame:
    return Frame({"label": cells})


def numbers(*rows: tuple[float, ...], ids: list[str] | None = None) -> Frame:
    return Frame(rows, index=ids)


FAST = ("petfinder", "cassava", "plant_2021", "csiro", "isic_2024", "digit_recognizer")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in LAYOUTS]
)
def test_a_competition_has_a_rerun_with_other_rows_and_without_training_files(name, tmp_path):
    layout = LAYOUTS[name](tmp_path, 7)
    assert not {*layout.train.index} & {*layout.hidden.index} or name == "digit_recognizer"
    assert np.isfinite(layout.metric.score(layout.train, layout.train))
    if layout.sample is None:
        return
    for root, hidden in ((layout.root, layout.hidden), (layout.rerun, layout.hidden_rerun)):
        with (root / layout.sample).open(newline="") as file:
            header, *rows = csv.reader(file)
        assert header[1:] == list(hidden.columns)
        assert sorted(row[0] for row in rows) == sorted(hidden.index)
    assert list(hidden.index) != list(layout.hidden.index)
    assert not [path for path in layout.rerun.iterdir() if "train" in path.name]
    known = {path.name for path in layout.root.iterdir()}
    assert {path.name for path in layout.rerun.iterdir()} <= known


SETS = (words("A", "A B", "C", "B", "C"), words("A", "A C", "A B C", "A", "C"))
RANKED = (
    words("a", "b", "new", "c", "d"),
    words("a b c d e", "a b new c d", "a b c d new", "a b d e new", "a a d b c"),
)
GRADES = (numbers(*[(y,) for y in (0, 0, 1, 2, 2, 3, 4, 4)]), numbers(*[(y,) for y in (0, 1, 1, 2, 3, 3, 2, 4)]))
MASSES = ["Dry_Green_g", "Dry_Dead_g", "Dry_Clover_g", "GDM_g", "Dry_Total_g"]
CELLS = [f"{row}__{name}" for row in range(3) for name in MASSES]
TRUE_MASSES = (10, 5, 0, 10, 15, 30, 10, 5, 35, 45, 20, 0, 10, 30, 30)
FOUND_MASSES = (12, 4, 1, 13, 17, 25, 12, 4, 29, 41, 22, 1, 8, 30, 31)
POSITIVE, NEGATIVE = (0.95, 0.9, 0.8, 0.35, 0.30), (0.85, 0.7, 0.6, 0.4, 0.35, 0.25, 0.2, 0.15, 0.1, 0.05)
STUDIES = [
    ("1_spinal_canal_stenosis_l1_l2", (1, 0, 0), (0.8, 0.15, 0.05)),
    ("1_spinal_canal_stenosis_l2_l3", (0, 0, 1), (0.2, 0.3, 0.5)),
    ("2_spinal_canal_stenosis_l1_l2", (0, 1, 0), (0.3, 0.5, 0.2)),
    ("2_spinal_canal_stenosis_l2_l3", (1, 0, 0), (0.9, 0.08, 0.02)),
    ("1_left_neural_foraminal_narrowing_l1_l2", (1, 0, 0), (0.7, 0.2, 0.1)),
    ("2_left_neural_foraminal_narrowing_l1_l2", (0, 1, 0), (0.4, 0.4, 0.2)),
    ("1_left_subarticular_stenosis_l1_l2", (0, 0, 1), (0.1, 0.3, 0.6)),
    ("2_left_subarticular_stenosis_l1_l2", (1, 0, 0), (0.6, 0.3, 0.1)),
]
VESSELS = (
    numbers((1, 0, 0, 1), (0, 0, 0, 0), (0, 1, 0, 1), (0, 0, 0, 0), (0, 0, 1, 1), (0, 0, 0, 0)),
    numbers(
        (0.6, 0.2, 0.1, 0.7),
        (0.3, 0.4, 0.2, 0.6),
        (0.2, 0.3, 0.1, 0.4),
        (0.1, 0.1, 0.3, 0.2),
        (0.7, 0.1, 0.2, 0.9),
        (0.2, 0.2, 0.05, 0.5),
    ),
)
TREE = {"a": ["root", "a"], "b": ["root", "a", "b"], "c": ["root", "a", "c"], "d": ["root", "d", "e", "d"]}


@pytest.mark.parametrize(
    ("score", "truth", "answers", "expected"),
    [
        (scores.samples_f1, *SETS, 0.6),
        (scores.map_at(5), *RANKED, 0.406667),
        (scores.partial_auc, numbers(*[(1,)] * 5, *[(0,)] * 10), numbers(*[(p,) for p in POSITIVE + NEGATIVE]), 0.1),
        (scores.kl, numbers((0.5, 0.5, 0), (1, 0, 0), (0.25, 0.25, 0.5)),
         numbers((0.4, 0.4, 0.2), (0.9, 0.05, 0.05), (0.3, 0.3, 0.4)), 0.116305),
        (scores.weighted_r2({"Dry_Green_g": 0.1, "Dry_Dead_g": 0.1, "Dry_Clover_g": 0.1, "GDM_g": 0.2, "Dry_Total_g": 0.5}),
         numbers(*[(y,) for y in TRUE_MASSES], ids=CELLS), numbers(*[(y,) for y in FOUND_MASSES], ids=CELLS), 0.959866),
        (scores.severity_loss, numbers(*[row[1] for row in STUDIES], ids=[row[0] for row in STUDIES]),
         numbers(*[row[2] for row in STUDIES], ids=[row[0] for row in STUDIES]), 0.584495),
        (lambda truth, answers: scores.weighted_auc(3)(truth, answers), *VESSELS, 0.772222),
        (scores.tree_distance(TREE), words("b", "b", "b", "b"), words("b", "a", "c", "d"), (0 + 1 + 2 + 5) / 4),
        (scores.kappa, *GRADES, 0.8),
        (scores.balanced_accuracy, words(*"aaaabbcO"), words(*"aaabbaca"), 0.5625),
        (scores.log_loss, numbers((1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
         numbers((0.7, 0.2, 0.1), (0, 0.5, 0.5), (0.2, 0.2, 0.2), (0.1, 0.1, 0.8)), 9.054302),
        (scores.mean_precision_of_masks(10, 10), words("1 100", "", "1 50", ""), words("1 62", "", "", "1 1"), 1.3 / 4),
    ],
    ids=["samples f1", "map@5", "partial auc", "kl", "weighted r2", "rsna 2024", "rsna 2025", "tree", "kappa",
         "balanced", "log loss", "masks"],
)  # fmt: skip
def test_an_official_metric_has_the_value_of_an_example(score, truth, answers, expected):
    assert score(truth, answers) == pytest.approx(expected, abs=6e-7)
