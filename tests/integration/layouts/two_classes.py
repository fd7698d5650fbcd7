"""Competitions whose answer is a probability, or 0 or 1, a row."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

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
    probability_of,
    save,
    write,
    write_json,
)

AUC = Metric("auc", scores.mean_auc)
LOG_LOSS = Metric("kaggle_log_loss", scores.log_loss, is_lower_better=True)
SITES = ["head/neck", "lower extremity", "oral/genital", "palms/soles", "torso", "upper extremity"]


def dogs_vs_cats(folder: Path, seed: int) -> Layout:
    """No table: the class is the name up to the first dot; ids of the test are whole numbers; P(dog) is wanted."""

    def train(root: Path, numbers: Random) -> Frame:
        names = []
        for k, name in enumerate(("cat", "dog")):
            for number in range(30):
                names.append((f"{name}.{number}", k))
                save(root / "train" / f"{name}.{number}.jpg", of_class(numbers, k, 2))
        return answers([f"train/{name}.jpg" for name, _ in names], {"label": [k for _, k in names]})

    def test(count: int) -> Callable[[Path, Random], Frame]:
        def make(root: Path, numbers: Random) -> Frame:
            labels, ids = classes_of(numbers, count, 2), [str(row + 1) for row in range(count)]
            for id, k in zip(ids, labels, strict=True):
                save(root / "test" / f"{id}.jpg", of_class(numbers, k, 2))
            write(root / "sample_submission.csv", {"id": ids, "label": [0.5] * count})
            return answers(ids, {"label": labels})

        return make

    splits, answer = (train, test(12), test(15)), probability_of("dog", "label")
    return competition(folder, seed, "dogs-vs-cats-redux-kernels-edition", LOG_LOSS, splits, answer)


def ai_vs_human(folder: Path, seed: int) -> Layout:
    """A column without a name; the id column of the test has another name; real and generated images in pairs."""

    def train(root: Path, numbers: Random) -> Frame:
        files, labels = [f"train_data/{id}.jpg" for id in hexes(numbers, 32, 60)], [1, 0] * 30
        for file, k in zip(files, labels, strict=True):
            save(root / file, of_class(numbers, k, 2))
        write(root / "train.csv", {"": range(60), "file_name": files, "label": labels})
        return answers(files, {"label": labels})

    def test(root: Path, numbers: Random) -> Frame:
        files, labels = [f"test_data_v2/{id}.jpg" for id in hexes(numbers, 32, 10)], classes_of(numbers, 10, 2)
        for file, k in zip(files, labels, strict=True):
            save(root / file, of_class(numbers, k, 2))
        write(root / "test.csv", {"id": files})
        write(root / "sample_submission.csv", {"id": files, "label": [0] * 10})
        return answers(files, {"label": labels})

    metric = Metric("macro_f1", scores.macro_f1)
    slug = "detect-ai-vs-human-generated-images"
    return competition(folder, seed, slug, metric, (train, test, test), likeliest("label"))


def siim(folder: Path, seed: int) -> Layout:
    """Patients of about three images; blanks in the metadata of both tables; columns that the test lacks."""
    shared = ["image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge"]

    def rows(root: Path, numbers: Random, ids: list[str], labels: list[int], first: int) -> dict[str, list[str]]:
        known: dict[str, list[str]] = {name: [] for name in shared}
        for row, (id, k) in enumerate(zip(ids, labels, strict=True)):
            patient = first + row // 3
            cells = [id, f"IP_{patient:07d}", ("male", "female")[patient % 2], f"{30 + 5 * (patient % 9)}.0"]
            cells.append(SITES[int(numbers.integers(6))])
            for blank, column in ((7, 2), (7, 3), (5, 4)):
                if row % blank == blank - 3:
                    cells[column] = ""
            for name, cell in zip(shared, cells, strict=True):
                known[name].append(cell)
            split = "train" if len(ids) > 20 else "test"
            save(root / "jpeg" / split / f"{id}.jpg", of_class(numbers, k, 2))
        return known

    def train(root: Path, numbers: Random) -> Frame:
        ids = [f"ISIC_{id}" for id in numerals(numbers, 7, 90)]
        labels = [int(row % 3 == 0 and row % 2 == 0) for row in range(90)]
        diagnosis = ["melanoma" if k else ("nevus", "unknown", "seborrheic keratosis")[row % 3]
                     for row, k in enumerate(labels)]  # fmt: skip
        known = rows(root, numbers, ids, labels, 38)
        mark = [("benign", "malignant")[k] for k in labels]
        write(root / "train.csv", {**known, "diagnosis": diagnosis, "benign_malignant": mark, "target": labels})
        return answers(ids, {"target": labels})

    def test(root: Path, numbers: Random) -> Frame:
        ids, labels = [f"ISIC_{id}" for id in numerals(numbers, 7, 12)], classes_of(numbers, 12, 2)
        write(root / "test.csv", rows(root, numbers, ids, labels, 9000))
        write(root / "sample_submission.csv", {"image_name": ids, "target": [0] * 12})
        return answers(ids, {"target": labels})

    slug = "siim-isic-melanoma-classification"
    return competition(folder, seed, slug, AUC, (train, test, test), probability_of("1", "target"))


def histopathologic(folder: Path, seed: int) -> Layout:
    """TIFF files; the table of training labels has another name."""

    def train(root: Path, numbers: Random) -> Frame:
        ids, labels = hexes(numbers, 40, 60), classes_of(numbers, 60, 2)
        for id, k in zip(ids, labels, strict=True):
            save(root / "train" / f"{id}.tif", of_class(numbers, k, 2, (96, 96)))
        write(root / "train_labels.csv", {"id": ids, "label": labels})
        return answers(ids, {"label": labels})

    def test(root: Path, numbers: Random) -> Frame:
        ids, labels = hexes(numbers, 40, 10), classes_of(numbers, 10, 2)
        for id, k in zip(ids, labels, strict=True):
            save(root / "test" / f"{id}.tif", of_class(numbers, k, 2, (96, 96)))
        write(root / "sample_submission.csv", {"id": ids, "label": [0] * 10})
        return answers(ids, {"label": labels})

    slug = "histopathologic-cancer-detection"
    return competition(folder, seed, slug, AUC, (train, test, test), probability_of("1", "label"))


def aerial_cactus(folder: Path, seed: int) -> Layout:
    """Images of 32 × 32 pixels, in zip files inside the download; three of four have a cactus."""

    def archive(path: Path, numbers: Random, ids: list[str], labels: list[int]) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for id, k in zip(ids, labels, strict=True):
                Image.fromarray(of_class(numbers, k, 2, (32, 32))).save(data := io.BytesIO(), "JPEG", quality=95)
                file.writestr(f"{path.stem}/{id}", data.getvalue())

    def train(root: Path, numbers: Random) -> Frame:
        ids, labels = [f"{id}.jpg" for id in hexes(numbers, 32, 60)], classes_of(numbers, 60, 2, [1, 3])
        archive(root / "train.zip", numbers, ids, labels)
        write(root / "train.csv", {"id": ids, "has_cactus": labels})
        return answers(ids, {"has_cactus": labels})

    def test(root: Path, numbers: Random) -> Frame:
        ids, labels = [f"{id}.jpg" for id in hexes(numbers, 32, 10)], classes_of(numbers, 10, 2)
        archive(root / "test.zip", numbers, ids, labels)
        write(root / "sample_submission.csv", {"id": ids, "has_cactus": [0.5] * 10})
        return answers(ids, {"has_cactus": labels})

    slug = "aerial-cactus-identification"
    return competition(folder, seed, slug, AUC, (train, test, test), probability_of("1", "has_cactus"))


def statoil(folder: Path, seed: int) -> Layout:
    """JSON with two bands of 75 × 75 decibels as lists; the angle of some training rows is `na`."""

    def objects(numbers: Random, ids: list[str], labels: list[int], is_train: bool) -> list[dict[str, object]]:
        found = []
        for row, (id, k) in enumerate(zip(ids, labels, strict=True)):
            pixels = of_class(numbers, k, 2, (75, 75)).astype(np.float64)
            bands = [np.round(pixels[..., place] / 255 * 30 - 30 - 4 * place, 6).ravel().tolist() for place in (0, 1)]
            angle = "na" if is_train and row % 10 == 3 else round(float(numbers.uniform(30, 45)), 4)
            each: dict[str, object] = {"id": id, "band_1": bands[0], "band_2": bands[1], "inc_angle": angle}
            found.append(each | ({"is_iceberg": k} if is_train else {}))
        return found

    def train(root: Path, numbers: Random) -> Frame:
        ids, labels = hexes(numbers, 8, 30, ["000004e5", "12345678"]), classes_of(numbers, 30, 2)
        write_json(root / "train.json", objects(numbers, ids, labels, True))
        return answers(ids, {"is_iceberg": labels})

    def test(root: Path, numbers: Random) -> Frame:
        ids, labels = hexes(numbers, 8, 4), classes_of(numbers, 4, 2)
        write_json(root / "test.json", objects(numbers, ids, labels, False))
        write(root / "sample_submission.csv", {"id": ids, "is_iceberg": [0.5] * 4})
        return answers(ids, {"is_iceberg": labels})

    slug = "statoil-iceberg-classifier-challenge"
    return competition(folder, seed, slug, LOG_LOSS, (train, test, test), probability_of("1", "is_iceberg"))
