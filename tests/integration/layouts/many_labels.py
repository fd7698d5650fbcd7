"""Competitions whose answer is a set of labels, or a probability of each label."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.integration.layouts import scores
from tests.integration.layouts.layout import (
    Frame,
    Layout,
    Metric,
    Random,
    answers,
    classes_of,
    competition,
    hexes,
    numerals,
    of_class,
    of_labels,
    save,
    write,
)

MEAN_AUC = Metric("mean_column_auc", scores.mean_auc)
LEAVES = ["healthy", "multiple_diseases", "rust", "scab"]
DISEASES = ["complex", "frog_eye_leaf_spot", "healthy", "powdery_mildew", "rust", "scab"]
SETS = [
    *DISEASES,
    "scab frog_eye_leaf_spot",
    "scab frog_eye_leaf_spot complex",
    "rust frog_eye_leaf_spot",
    "rust complex",
    "powdery_mildew complex",
    "frog_eye_leaf_spot complex",
]
LINES = [
    "ETT - Abnormal",
    "ETT - Borderline",
    "ETT - Normal",
    "NGT - Abnormal",
    "NGT - Borderline",
    "NGT - Incompletely Imaged",
    "NGT - Normal",
    "CVC - Abnormal",
    "CVC - Borderline",
    "CVC - Normal",
    "Swan Ganz Catheter Present",
]
CHEST = [
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
]


def plant_2020(folder: Path, seed: int) -> Layout:
    """One folder for all images; a column for each class, of which one is 1."""

    def rows(root: Path, numbers: Random, ids: list[str], labels: list[int]) -> Frame:
        for id, k in zip(ids, labels, strict=True):
            save(root / "images" / f"{id}.jpg", of_class(numbers, k, 4))
        return answers(ids, {name: [int(k == place) for k in labels] for place, name in enumerate(LEAVES)})

    def train(root: Path, numbers: Random) -> Frame:
        ids = [f"Train_{row}" for row in range(60)]
        truth = rows(root, numbers, ids, classes_of(numbers, 60, 4, [28, 5, 34, 33]))
        write(root / "train.csv", {"image_id": ids, **{name: truth[name].tolist() for name in LEAVES}})
        return truth

    def test(first: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            ids = [f"Test_{first + row}" for row in range(12)]
            truth = rows(root, numbers, ids, classes_of(numbers, 12, 4))
            write(root / "test.csv", {"image_id": ids})
            write(root / "sample_submission.csv", {"image_id": ids, **dict.fromkeys(LEAVES, [0.25] * 12)})
            return truth

        return make

    metric = Metric("auc", scores.mean_auc)  # of one-hot columns, the mean over classes
    return competition(folder, seed, "plant-pathology-2020-fgvc7", metric, (train, test(0), test(500)))


def likely_labels(column: str, threshold: float = 0.5) -> Callable[[Frame], Frame]:
    """The labels with at least a probability, or the most probable one, in one column."""

    def answer(outputs: Frame) -> Frame:
        chosen = [
            " ".join(name for name in outputs if row[name] >= threshold) or str(row.astype(float).idxmax())
            for _, row in outputs.iterrows()
        ]
        return Frame({column: chosen}, index=outputs.index)

    return answer


def plant_2021(folder: Path, seed: int) -> Layout:
    """Sets of labels in one cell, in any order; three public test images."""

    def rows(root: Path, numbers: Random, count: int, place: str) -> tuple[list[str], list[str]]:
        ids = [f"{id}.jpg" for id in hexes(numbers, 16, count)]
        sets = [SETS[k] for k in classes_of(numbers, count, len(SETS))]
        for id, words in zip(ids, sets, strict=True):
            save(root / place / id, of_labels(numbers, [name in words.split() for name in DISEASES]))
        return ids, sets

    def train(root: Path, numbers: Random) -> Frame:
        ids, sets = rows(root, numbers, 84, "train_images")
        write(root / "train.csv", {"image": ids, "labels": sets})
        return answers(ids, {"labels": sets})

    def test(count: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            ids, sets = rows(root, numbers, count, "test_images")
            write(root / "sample_submission.csv", {"image": ids, "labels": ["healthy"] * count})
            return answers(ids, {"labels": sets})

        return make

    metric, splits = Metric("samples_f1", scores.samples_f1), (train, test(3), test(14))
    return competition(folder, seed, "plant-pathology-2021-fgvc8", metric, splits, likely_labels("labels"))


def ranzcr(folder: Path, seed: int) -> Layout:
    """Names with ` - `, ids of 64 characters, patients of several images, a label that two images of one patient have."""

    def rows(root: Path, numbers: Random, count: int, place: str) -> Frame:
        ids = [f"1.2.826.0.1.3680043.8.498.{id}" for id in numerals(numbers, 38, count)]
        chance = [0.0, 0.25, 0.4, 0.2, 0.3, 0.3, 0.4, 0.3, 0.4, 0.7, 0.25]
        present = (numbers.random((count, len(LINES))) < chance).astype(int)
        present[:2, 0] = 1
        present[-2:] = [[1] * len(LINES), [0] * len(LINES)]
        present[-2, 0] = 0
        for id, row in zip(ids, present, strict=True):
            save(root / place / f"{id}.jpg", of_labels(numbers, row).mean(axis=2).astype(np.uint8))
        return answers(ids, {name: present[:, k].tolist() for k, name in enumerate(LINES)})

    def train(root: Path, numbers: Random) -> Frame:
        truth = rows(root, numbers, 80, "train")
        people = hexes(numbers, 9, 20)
        labels = {name: truth[name].tolist() for name in LINES}
        patients = [people[row // 4] for row in range(80)]
        write(root / "train.csv", {"StudyInstanceUID": list(truth.index), **labels, "PatientID": patients})
        lines = [[str(truth.index[0]), "CVC - Normal", "[[1487, 1279], [1477, 1168]]"]] * 2
        columns = ["StudyInstanceUID", "label", "data"]
        write(root / "train_annotations.csv", {name: [line[k] for line in lines] for k, name in enumerate(columns)})
        return truth

    def test(root: Path, numbers: Random) -> Frame:
        truth = rows(root, numbers, 12, "test")
        cells = dict.fromkeys(LINES, [0] * 12)
        write(root / "sample_submission.csv", {"StudyInstanceUID": list(truth.index), **cells})
        return truth

    return competition(folder, seed, "ranzcr-clip-catheter-line-classification", MEAN_AUC, (train, test, test))


def grand_xray(folder: Path, seed: int) -> Layout:
    """Numbered tables; names of patient, study and image; blanks among the ages; no test table."""

    def rows(root: Path, numbers: Random, count: int, first: int, place: str) -> Frame:
        ids = [f"{first + row // 4:08d}_{1 + row % 4 // 2:03d}_{1 + row % 2:03d}.jpg" for row in range(count)]
        present = (numbers.random((count, 14)) < 0.35).astype(int)
        present[-2:] = [[1] * 14, [0] * 14]
        present[:, CHEST.index("No Finding")] = 0
        present[:, CHEST.index("No Finding")] = present.sum(axis=1) == 0
        for id, row in zip(ids, present, strict=True):
            save(root / place / id, of_labels(numbers, row).mean(axis=2).astype(np.uint8))
        return answers(ids, {name: present[:, k].tolist() for k, name in enumerate(CHEST)})

    def train(root: Path, numbers: Random) -> Frame:
        truth = rows(root, numbers, 80, 12, "train1")
        known = {
            "Image_name": list(truth.index),
            "Patient_ID": [int(name[:8]) for name in truth.index],
            "Study": [int(name[9:12]) for name in truth.index],
            "Sex": [("Male", "Female")[int(name[:8]) % 2] for name in truth.index],
            "Age": ["" if row % 11 == 4 else 40 + row % 37 for row in range(80)],
            "ViewCategory": [("Frontal", "Lateral")[row % 2] for row in range(80)],
            "ViewPosition": [("AP", "LL")[row % 2] for row in range(80)],
        }
        write(root / "train1.csv", {**known, **{name: truth[name].tolist() for name in CHEST}})
        return truth

    def test(first: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            truth = rows(root, numbers, 12, first, "test1")
            cells = dict.fromkeys(CHEST, [0] * 12)
            write(root / "sample_submission_1.csv", {"Image_name": list(truth.index), **cells})
            return truth

        return make

    splits = (train, test(40000), test(50000))
    slug = "grand-xray-slam-division-a"
    return competition(folder, seed, slug, MEAN_AUC, splits, sample="sample_submission_1.csv")
