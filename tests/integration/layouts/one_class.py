"""Competitions whose answer is one class a row."""

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
    likeliest,
    numerals,
    of_class,
    save,
    write,
    write_json,
)

ACCURACY = Metric("accuracy", scores.accuracy)
CASSAVA = [
    "Bacterial Blight (CBB)",
    "Brown Streak Disease (CBSD)",
    "Green Mottle (CGM)",
    "Mosaic Disease (CMD)",
    "Healthy",
]
PADDY = [
    "bacterial_leaf_blight",
    "bacterial_leaf_streak",
    "bacterial_panicle_blight",
    "blast",
    "brown_spot",
    "dead_heart",
    "downy_mildew",
    "hispa",
    "normal",
    "tungro",
]
WNIDS = {
    "imagenette2": ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042",
                    "n03425413", "n03445777", "n03888257"],
    "imagewoof2": ["n02086240", "n02087394", "n02088364", "n02089973", "n02093754", "n02096294", "n02099601",
                   "n02105641", "n02111889", "n02115641"],
}  # fmt: skip


def cassava(folder: Path, seed: int) -> Layout:
    """Ids hold the suffix; no test.csv; one public test image; three of five rows have one class."""

    def rows(root: Path, numbers: Random, count: int, place: str) -> tuple[list[str], list[int]]:
        ids = [f"{id}.jpg" for digits in (6, 8, 10) for id in numerals(numbers, digits, (count + 2) // 3)][:count]
        labels = classes_of(numbers, count, 5, [5, 10, 11, 61, 12]) if count >= 25 else classes_of(numbers, count, 5)
        for id, k in zip(ids, labels, strict=True):
            save(root / place / id, of_class(numbers, k, 5))
        return ids, labels

    def train(root: Path, numbers: Random) -> Frame:
        ids, labels = rows(root, numbers, 60, "train_images")
        write(root / "train.csv", {"image_id": ids, "label": labels})
        write_json(
            root / "label_num_to_disease_map.json", {str(k): f"Cassava {name}" for k, name in enumerate(CASSAVA)}
        )
        return answers(ids, {"label": labels})

    def test(count: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            ids, labels = rows(root, numbers, count, "test_images")
            write(root / "sample_submission.csv", {"image_id": ids, "label": [4] * count})
            return answers(ids, {"label": labels})

        return make

    splits = (train, test(1), test(12))
    return competition(folder, seed, "cassava-leaf-disease-classification", ACCURACY, splits, likeliest("label"))


def paddy(folder: Path, seed: int) -> Layout:
    """The class is a folder and a word; the sample's cells are empty."""

    def train(root: Path, numbers: Random) -> Frame:
        ids, labels = [f"{100001 + row}.jpg" for row in range(60)], classes_of(numbers, 60, 10)
        for id, k in zip(ids, labels, strict=True):
            save(root / "train_images" / PADDY[k] / id, of_class(numbers, k, 10, (96, 72)))
        known = {"variety": ["ADT45", "Ponni"] * 30, "age": [45 + row % 30 for row in range(60)]}
        write(root / "train.csv", {"image_id": ids, "label": [PADDY[k] for k in labels], **known})
        return answers(ids, {"label": [PADDY[k] for k in labels]})

    def test(first: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            ids, labels = [f"{first + row}.jpg" for row in range(10)], classes_of(numbers, 10, 10)
            for id, k in zip(ids, labels, strict=True):
                save(root / "test_images" / id, of_class(numbers, k, 10, (96, 72)))
            write(root / "sample_submission.csv", {"image_id": ids, "label": [""] * 10})
            return answers(ids, {"label": [PADDY[k] for k in labels]})

        return make

    splits = (train, test(200001), test(200101))
    return competition(folder, seed, "paddy-disease-classification", ACCURACY, splits, likeliest("label"))


def breeds() -> list[str]:
    """120 names in alphabetical order, with a hyphen and underscores in some."""
    real = [
        "affenpinscher",
        "afghan_hound",
        "german_short-haired_pointer",
        "wire-haired_fox_terrier",
        "yorkshire_terrier",
    ]
    return sorted([*real, *(f"breed_{chr(97 + k % 26)}{chr(97 + k // 26)}" for k in range(115))])


def dog_breed(folder: Path, seed: int) -> Layout:
    """120 classes of two rows; a column for each in the sample."""
    names = breeds()

    def rows(root: Path, numbers: Random, labels: list[int], place: str) -> list[str]:
        ids = hexes(numbers, 32, len(labels))
        for id, k in zip(ids, labels, strict=True):
            save(root / place / f"{id}.jpg", of_class(numbers, k, 120))
        return ids

    def wide(ids: list[str], labels: list[int]) -> Frame:
        return answers(ids, {name: [int(names[k] == name) for k in labels] for name in names})

    def train(root: Path, numbers: Random) -> Frame:
        labels = classes_of(numbers, 240, 120)
        ids = rows(root, numbers, labels, "train")
        write(root / "labels.csv", {"id": ids, "breed": [names[k] for k in labels]})
        return wide(ids, labels)

    def test(root: Path, numbers: Random) -> Frame:
        labels = classes_of(numbers, 8, 120)
        ids = rows(root, numbers, labels, "test")
        cells = dict.fromkeys(names, ["0.00833333333333333"] * 8)
        write(root / "sample_submission.csv", {"id": ids, **cells})
        return wide(ids, labels)

    metric = Metric("kaggle_log_loss", scores.log_loss, is_lower_better=True)
    return competition(folder, seed, "dog-breed-identification", metric, (train, test, test))


def digit_recognizer(folder: Path, seed: int) -> Layout:
    """Pixels in the table; no id column: the sample's ids are the numbers of the test table's rows."""

    def pixels(numbers: Random, labels: list[int]) -> dict[str, list[int]]:
        images = np.array([of_class(numbers, k, 10, (28, 28)).mean(axis=2) for k in labels]).astype(int)
        return {f"pixel{k}": column.tolist() for k, column in enumerate(images.reshape(len(labels), -1).T)}

    def train(root: Path, numbers: Random) -> Frame:
        labels = classes_of(numbers, 80, 10)
        write(root / "train.csv", {"label": labels, **pixels(numbers, labels)})
        return answers([str(row + 1) for row in range(80)], {"Label": labels})

    def test(count: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            labels, ids = classes_of(numbers, count, 10), [str(row + 1) for row in range(count)]
            write(root / "test.csv", pixels(numbers, labels))
            write(root / "sample_submission.csv", {"ImageId": ids, "Label": [0] * count})
            return answers(ids, {"Label": labels})

        return make

    return competition(folder, seed, "digit-recognizer", ACCURACY, (train, test(11), test(20)), likeliest("Label"))


def _folders(folder: Path, seed: int, slug: str) -> Layout:
    """A folder per class, suffixes in upper case, a table with noisy labels; neither a sample nor rows to predict."""
    wnids, noise = WNIDS[slug], (1, 5, 25, 50)

    def train(root: Path, numbers: Random) -> Frame:
        labels, places = classes_of(numbers, 80, 10), ["train"] * 60 + ["val"] * 20
        names = [f"{'ILSVRC2012_val_' if row % 9 == 0 else wnids[k] + '_'}{10 * row + 7:08d}.JPEG"
                 for row, k in enumerate(labels)]  # fmt: skip
        paths = [f"{place}/{wnids[k]}/{name}" for place, k, name in zip(places, labels, names, strict=True)]
        for path, k in zip(paths, labels, strict=True):
            save(root / path, of_class(numbers, k, 10))
        noisy = {f"noisy_labels_{share}": [wnids[int(numbers.integers(10))] if place == "train" and
                                           numbers.random() < share / 100 else wnids[k]
                                           for k, place in zip(labels, places, strict=True)]
                 for share in noise}  # fmt: skip
        right = [wnids[k] for k in labels]
        table = {"path": paths, "noisy_labels_0": right, **noisy, "is_valid": [place == "val" for place in places]}
        write(root / f"noisy_{slug[:-1]}.csv", table)
        return answers(paths, {"label": right})

    def nothing(root: Path, numbers: Random) -> Frame:
        return answers([], {"label": []})

    return competition(folder, seed, slug, ACCURACY, (train, nothing, nothing), likeliest("label"), sample=None)


def imagenette(folder: Path, seed: int) -> Layout:
    """Ten easy classes of ImageNet."""
    return _folders(folder, seed, "imagenette2")


def imagewoof(folder: Path, seed: int) -> Layout:
    """Ten breeds of dogs of ImageNet."""
    return _folders(folder, seed, "imagewoof2")
