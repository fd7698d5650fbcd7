"""Tiny runs of every kind of target, and of tables that are unusual, each with the sections that its report must have.

A case writes its data into a folder and returns a config; `made` fits it in this process.
"""

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swinft import Metric, Multilabel
from swinft.cli import main
from tests.conftest import in_this_process, tiny_config, write_config
from tests.data.masks.salt import write_salt
from tests.integration.test_segmentation import salt_config
from tests.integration.test_tiles import segmentation, write_shapes

HOSTILE = ["</script><b>1", "שלום \u200f עולם", "🎉 👩‍🔬 {{7*7}}", "<img src=x onerror=alert(2)>"]
COLORS = [(200, 40, 40), (40, 190, 40), (40, 40, 200), (200, 200, 40)]
TRAINED = {"scores", "training", "outputs", "folds", "time", "settings", "images", "augmented"}
SHORT = {"trainer.max_epochs": 1, "data.folds": {"num": 2}}


@dataclass(frozen=True)
class Case:
    """A kind of run.

    Args:
        config: Writes the data into a folder, and returns the config; the first argument is the folder.
        sections: Ids of sections that the report must have besides those of every trained run.
        absent: Ids that it must not have.
        predicts: Whether test rows are predicted before the report is written again.
        names: Texts that the page must show as they are.
    """

    config: Callable[[Path], dict[str, object]]
    sections: Sequence[str] = ()
    absent: Sequence[str] = ()
    predicts: bool = True
    names: Sequence[str] = ()


class Shares(Multilabel):
    """Numbers between 0 and 1, such as the share of experts who agree."""

    def encode(self, cells, outputs, problems, notes=None):
        """The cells as they are."""
        return self.numbers(cells, problems, notes)

    def captions(self, targets, outputs):
        """Every share."""
        return [", ".join(f"{name} {share:.0%}" for name, share in zip(outputs, row, strict=True)) for row in targets]


class Distance(Metric):
    """Mean absolute difference of shares."""

    kinds = ("multilabel",)
    higher_is_better = False

    def compute(self, predictions, targets, rows):
        """A number."""
        return float(np.abs(predictions - targets).mean())


def table(path: Path, rows: list[dict[str, object]]) -> None:
    """Writes rows as a CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_rows(root: Path, number: int, cells: Callable[[int], dict[str, object]], tests: int = 6, sides: str = ""):
    """Images of four colours, their table, and rows to predict; with `sides` several images of a row."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for name, count in (("train", number), ("test", tests)):
        rows = []
        for row in range(count):
            id = f"{name[0]}{row:03d}"
            for side in sides or " ":
                color = np.array(COLORS[row % 4]) * rng.uniform(0.6, 1.2) + rng.normal(0, 12, (36, 40, 3))
                Image.fromarray(color.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{id}{side.strip()}.png")
            rows.append({"id": id} | (cells(row) if name == "train" else {}))
        if rows:
            table(root / f"{name}.csv", rows)
    return root


def config_of(folder: Path, target: object, kind: object, head: str, **changes: object) -> dict[str, object]:
    """A config on the table in `data`."""
    given = {
        **SHORT,
        "data.target": target,
        "data.target_kind": kind,
        "data.image": "images/{id}.png",
        "data.sample_submission": None,
        "model.head": {"class_path": head},
    }
    return tiny_config(folder / "data", folder / "runs", **{**given, **changes})


def soft(folder: Path) -> dict[str, object]:
    """Shares of four classes, whose names are hostile."""
    rng = np.random.default_rng(1)

    def votes(row: int) -> dict[str, object]:
        given = rng.multinomial(12, np.where(np.arange(4) == row % 4, 0.7, 0.1))
        return dict(zip(HOSTILE, given.tolist(), strict=True))

    write_rows(folder / "data", 24, votes)
    changes = {"model.metrics": ["kl_divergence", "accuracy"], "predict": {"views": ["identity", "hflip"]}}
    return config_of(folder, HOSTILE, "classification", "swinft.ClassificationHead", **changes)


def grades(folder: Path) -> dict[str, object]:
    """Grades in words, with an order."""
    words = ["slight", "mild", "moderate", "severe"]
    write_rows(folder / "data", 24, lambda row: {"grade": words[row % 4]})
    changes = {"data.columns": {"class_order": words}, "model.metrics": ["quadratic_kappa", "accuracy"]}
    return config_of(folder, "grade", "classification", "swinft.OrdinalHead", **changes)


def cut_grades(folder: Path) -> dict[str, object]:
    """Grades as numbers that are cut by fitted cut points."""
    write_rows(folder / "data", 24, lambda row: {"grade": row % 4})
    changes = {"model.metrics": ["quadratic_kappa", "rmse"], "submission": {"rules": ["cuts"]}}
    return config_of(folder, "grade", "regression", "swinft.RegressionHead", **changes)


def pairs(folder: Path) -> dict[str, object]:
    """Two images of a row, some of which are missing."""
    write_rows(folder / "data", 24, lambda row: {"color": f"c{row % 4}"}, sides="lr")
    for row in (3, 4, 5):
        (folder / "data" / "images" / f"t{row:03d}r.png").unlink()
    changes = {
        "data.image": {"path": ["images/{id}l.png", "images/{id}r.png"], "missing": "mask", "augment": "independent"},
        "model.pooling": {"images": "attention"},
        "model.mix": {"cutmix_alpha": 1.0},
    }
    return config_of(folder, "color", "classification", "swinft.ClassificationHead", **changes)


def shares(folder: Path) -> dict[str, object]:
    """A custom kind: labels whose targets are shares and not 0 and 1."""
    write_rows(folder / "data", 24, lambda row: {f"share {k}": (k + 1 + row % 3) / 10 for k in range(3)})
    kind = {"class_path": "tests.run.report.kinds.Shares"}
    names = [f"share {k}" for k in range(3)]
    changes = {"model.metrics": [{"class_path": "tests.run.report.kinds.Distance"}]}
    return config_of(folder, names, kind, "swinft.MultilabelHead", **changes)


def gaps(folder: Path) -> dict[str, object]:
    """Numbers of which some are missing, in rows with metadata; no row to predict."""

    def cells(row: int) -> dict[str, object]:
        return {
            "a": "" if row % 5 == 0 else row,
            "b": "" if row % 4 == 1 else 1e6 + row,
            "place": HOSTILE[row % 2],
            "age": "" if row == 7 else 20 + row,
        }

    write_rows(folder / "data", 24, cells, tests=0)
    columns = {
        "on_missing_target": "mask",
        "missing_features": "fill",
        "categorical_features": ["place"],
        "numeric_features": ["age"],
    }
    return config_of(
        folder, ["a", "b"], "regression", "swinft.RegressionHead", **{"data.columns": columns, "data.test": None}
    )


def labels(folder: Path) -> dict[str, object]:
    """Labels of which some are unknown, one is in a single row, and one in all but one."""

    def cells(row: int) -> dict[str, object]:
        return {
            HOSTILE[0]: row % 2,
            "rare": int(row in (1, 2)),
            "common": int(row not in (3, 4)),
            "gaps": "" if row % 3 == 0 else row % 2,
        }

    write_rows(folder / "data", 24, cells)
    names = [HOSTILE[0], "rare", "common", "gaps"]
    return config_of(
        folder, names, "multilabel", "swinft.MultilabelHead", **{"data.columns": {"on_missing_target": "mask"}}
    )


def holdout(folder: Path) -> dict[str, object]:
    """One fold, and two classes."""
    write_rows(folder / "data", 24, lambda row: {"color": ["no", "yes"][row % 2]})
    changes = {"data.folds": {"kind": "holdout", "fraction": 0.25}}
    return config_of(folder, "color", "classification", "swinft.ClassificationHead", **changes)


def leave_one_out(folder: Path) -> dict[str, object]:
    """A fold of one row each."""
    write_rows(folder / "data", 8, lambda row: {"y": 3.5 * row, "fold": row}, tests=2)
    return config_of(folder, "y", "regression", "swinft.RegressionHead", **{"data.folds": {"column": "fold"}})


def thirty_folds(folder: Path) -> dict[str, object]:
    """As many folds as a chart has no colours for."""
    write_rows(folder / "data", 60, lambda row: {"y": ["a", "b"][row % 2], "fold": row // 2}, tests=2)
    changes = {"data.folds": {"column": "fold"}, "data.batch_size": 30}
    return config_of(folder, "y", "classification", "swinft.ClassificationHead", **changes)


def rare(folder: Path) -> dict[str, object]:
    """Classes of a single row, which no fold scores."""
    write_rows(folder / "data", 24, lambda row: {"color": "single" if row == 5 else f"c{row % 2}"})
    changes = {"data.folds": {"num": 2, "rare_classes": "train"}}
    return config_of(folder, "color", "classification", "swinft.ClassificationHead", **changes)


def one_row_a_class(folder: Path) -> dict[str, object]:
    """Every class has one row, which a fold scores that has not seen it."""
    write_rows(folder / "data", 24, lambda row: {"name": f"whale {row}"})
    changes = {"data.folds": {"num": 2, "rare_classes": "spread"}}
    return config_of(folder, "name", "classification", "swinft.ClassificationHead", **changes)


def constant(folder: Path) -> dict[str, object]:
    """A number that is the same in all rows of a fold, and hardly differs in the others."""
    write_rows(folder / "data", 24, lambda row: {"y": 5 if row < 12 else 5 + row % 2, "fold": int(row >= 12)})
    return config_of(folder, "y", "regression", "swinft.RegressionHead", **{"data.folds": {"column": "fold"}})


def many(folder: Path, classes: int, rows: int) -> None:
    """Rows of many classes on few images."""
    write_rows(folder / "data", 24, lambda row: {}, tests=6)
    table(
        folder / "data" / "train.csv",
        [
            {"id": f"r{row}", "file": f"t{row % 24:03d}", "name": f"species number {row % classes}"}
            for row in range(rows)
        ],
    )
    table(folder / "data" / "test.csv", [{"id": f"e{row}", "file": f"t{row:03d}"} for row in range(6)])


def thousand(folder: Path) -> dict[str, object]:
    """A thousand classes."""
    many(folder, 1000, 2000)
    changes = {
        "data.image": "images/{file}.png",
        "data.batch_size": 100,
        "data.folds": {"num": 2, "duplicates": "ignore"},
    }
    return config_of(folder, "name", "classification", "swinft.ClassificationHead", **changes)


def two_hundred_labels(folder: Path) -> dict[str, object]:
    """Two hundred labels in a column."""
    write_rows(folder / "data", 200, lambda row: {"tags": " ".join(f"label{(row + k * 7) % 200}" for k in range(6))})
    changes = {"data.columns": {"label_delimiter": " "}, "data.batch_size": 25}
    return config_of(folder, "tags", "multilabel", "swinft.MultilabelHead", **changes)


def empty_masks(folder: Path) -> dict[str, object]:
    """Masks of which many are empty."""
    write_salt(folder / "data", 24)
    return salt_config(
        folder / "data", folder / "runs", **{"trainer.max_epochs": 1, "data.test": "sample_submission.csv"}
    )


def tiles(folder: Path) -> dict[str, object]:
    """Exclusive classes of large images, which are trained on in tiles."""
    write_shapes(folder / "data")
    kind = segmentation(
        files="masks/{id}.png", values={"ball": 1, "sea": 2}, classes="exclusive", tile={"overlap": 0.5, "masked": 0.5}
    )
    changes = {
        "data.target": ["ball", "sea"],
        "data.target_kind": kind,
        "data.sample_submission": None,
        "data.test": "test.csv",
        "data.loading": {"image_rules": {"min_side": 1}},
        "model.head": {
            "class_path": "swinft.SoftmaxSegmentationHead",
            "init_args": {"decoder_args": {"decoder_channels": [16, 16, 8]}},
        },
        "model.metrics": ["dice", "iou"],
        "trainer.max_epochs": 1,
    }
    return salt_config(folder / "data", folder / "runs", **changes)


def extra(folder: Path) -> dict[str, object]:
    """Rows of another table, which are trained on and not scored; two seeds, and an image that cannot be used."""
    root = write_rows(folder / "data", 24, lambda row: {"color": f"c{row % 4}"})
    shutil.copytree(root / "images", root / "old")
    table(root / "old.csv", [{"id": f"old{row}", "file": f"e{row:03d}", "color": f"c{row % 4}"} for row in range(6)])
    (root / "images" / "t003.png").write_bytes(b"no image")
    for row in range(6):
        (root / "old" / f"t{row:03d}.png").rename(root / "old" / f"e{row:03d}.png")
    changes = {
        "data.folds": {"num": 2, "extra": [{"table": "old.csv", "image": "old/{file}.png", "weight": 0.5}]},
        "data.loading": {"on_bad_image": "skip"},
        "seeds": [1, 2],
    }
    return config_of(folder, "color", "classification", "swinft.ClassificationHead", **changes)


CLASSES = ("confusion", "curves", "calibration", "worst", "uncertain", "mislabelled")
CASES = {
    "soft": Case(
        soft,
        ("confusion", "curves", "calibration", "numbers", "worst", "uncertain", "views", "test"),
        ("mislabelled",),
        names=HOSTILE,
    ),
    "grades": Case(grades, (*CLASSES, "test")),
    "cut_grades": Case(cut_grades, ("numbers", "worst", "test"), ("confusion", "curves")),
    "pairs": Case(pairs, (*CLASSES, "test")),
    "shares": Case(shares, ("numbers", "worst", "test"), ("confusion", "curves", "calibration", "mislabelled")),
    "gaps": Case(gaps, ("numbers", "worst", "parts", "mislabelled"), ("test", "drift"), False, HOSTILE[:2]),
    "labels": Case(labels, ("curves", "calibration", "separation", "worst", "test"), names=HOSTILE[:1]),
    "holdout": Case(holdout, (*CLASSES, "test")),
    "leave_one_out": Case(leave_one_out, ("numbers", "worst", "test")),
    "thirty_folds": Case(thirty_folds, CLASSES),
    "rare": Case(rare, (*CLASSES, "test")),
    "one_row_a_class": Case(one_row_a_class, ("confusion", "curves", "worst", "test")),
    "constant": Case(constant, ("numbers", "worst", "test")),
    "thousand": Case(thousand, (*CLASSES, "test")),
    "two_hundred_labels": Case(two_hundred_labels, ("curves", "calibration", "separation", "worst", "test")),
    "empty_masks": Case(empty_masks, ("masks", "test"), ("worst", "confusion")),
    "tiles": Case(tiles, ("masks", "test"), ("worst", "confusion")),
    "extra": Case(extra, (*CLASSES, "test")),
}
CODE = ["--allow-code", "tests.run.report.kinds"]


def made(name: str, folder: Path) -> Path:
    """Fits a case in this process, predicts, and writes the report again with all that it can have; the run's folder."""
    case = CASES[name]
    folder.mkdir(parents=True, exist_ok=True)
    config = write_config(folder / "c.yaml", case.config(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swinft.run.fit.run_children", in_this_process)
        assert main(["fit", "--config", str(config), *CODE]) == 0
    run = folder / "runs" / "tiny"
    if case.predicts:
        assert main(["predict", str(run), "--device", "cpu", *CODE]) == 0
    assert main(["report", str(run), *CODE]) == 0
    return run
