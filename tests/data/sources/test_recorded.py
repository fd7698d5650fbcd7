"""Rows whose images are gone are those that they were, by an earlier run's images.csv."""

import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from swinft.data.datamodule import CSVDataModule
from swinft.data.sources.recorded import with_recorded
from swinft.errors import InputError
from tests.conftest import write_image

IDS = [f"{number:03d}" for number in range(12)]
COLOR = (200, 40, 40)


def make_data(root: Path) -> Path:
    """Images of which rows show one, all that fit, a list, or cells of a grid; row 3 has none, and 5's is damaged."""
    generator = np.random.default_rng(0)
    lines = ["id,color,list"]
    for number, id in enumerate(IDS):
        names = [f"{id}_{part}.png" for part in range(1 + number % 3)] if number != 3 else []
        for name in names:
            write_image(root / "images" / f"s{number % 2}" / name, COLOR, generator)
            write_image(root / "flat" / name, COLOR, generator)
        if number != 3:
            write_image(root / "single" / f"{id}.png", COLOR, generator)
        lines.append(f"{id},{'red' if number % 2 else 'blue'},{' '.join(names)}")
    (root / "single" / f"{IDS[5]}.png").write_bytes(b"damaged")
    (root / "flat" / f"{IDS[4]}_1.png").write_bytes(b"damaged")
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    with ZipFile(root / "all.zip", "w") as archive:
        for path in sorted((root / "flat").iterdir()):
            archive.write(path, f"flat/{path.name}")
    (root / "some.csv").write_text("".join(line + "\n" for line in lines if line[:3] != IDS[3]))
    return root


KINDS = {
    "one": {"image": "single/{id}.png", "train": "some.csv", "loading": {"on_bad_image": "skip"}},
    "wildcards": {"image": {"path": "flat/{id}_*.png"}, "loading": {"on_bad_image": "skip"}},
    "in folders": {"image": [f"images/s{s}/{{id}}_{part}.png" for s in (0, 1) for part in (0, 1)], "masks": True},
    "list": {"image": {"path": "flat/{list}", "delimiter": " "}, "loading": {"on_bad_image": "skip"}},
    "grid": {"image": {"path": "single/{id}.png", "grid": [2, 2]}, "train": "some.csv"},
    "zip": {"image": {"path": "all.zip/flat/{id}_*.png"}, "loading": {"on_bad_image": "skip", "source": "zip"}},
}


def datamodule(root: Path, kind: str, **changes: object) -> CSVDataModule:
    given = {"train": "train.csv", "loading": {"on_bad_image": "skip"}, **KINDS[kind]}
    if given.pop("masks", False):
        given["image"] = {"path": given["image"], "missing": "mask"}
    given |= {"root": str(root), "target": "color", "target_kind": "classification", "image_size": 16}
    return CSVDataModule(**given, folds={"num": 2}, **changes)


def facts(data: CSVDataModule) -> tuple[object, ...]:
    rows = data.splits.train
    shown = None if rows.shown is None else rows.shown.files.tolist()
    return rows.skipped, data.is_scored.tolist(), data.fold_of_row.tolist(), shown, rows.image_names


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_same_without_their_images(kind, tmp_path):
    root = make_data(tmp_path / "data")
    before = datamodule(root, kind)
    before.check()
    images = tmp_path / "images.csv"
    images.write_text(before.images_csv(), encoding="utf-8")
    for folder in ("images", "flat", "single"):
        shutil.rmtree(root / folder)
    (root / "all.zip").unlink()
    data = datamodule(root, kind)
    with pytest.raises(InputError, match=r"folder of|no training row is left|has no image|has an image of"):
        data.setup("fit")
    data = datamodule(root, kind)
    data.use_images_csv(images)
    data.splits.needs_images = False
    data.splits.settings = with_recorded(data.settings, images)
    data.setup("fit")
    assert facts(data) == facts(before)
