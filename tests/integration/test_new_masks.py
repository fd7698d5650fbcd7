"""`swinft new` for masks, in files and as run lengths: classes that exclude each other, ignored pixels, tiles."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swinft.cli import main
from swinft.data.masks.rle import encode, text_of
from tests.integration.layouts.layout import write
from tests.integration.new_layouts import one_of_each
from tests.integration.test_new import new, proposed


def shapes_of(number: int, side: int = 48) -> np.ndarray:
    """Pixels of two classes, 1 and 2, and of none; the borders are not labelled."""
    pixels = np.zeros((side, side), np.uint8)
    pixels[4 + number % 7 : 20, 4:20] = 1
    pixels[24:40, 10 + number % 5 : 40] = 2
    pixels[:, :2] = 255
    return pixels


def mask_folder(root: Path, count: int = 12, ending: str = "", values: tuple[int, ...] = (1, 2, 255)) -> Path:
    """Images and files of masks with the same names, in two folders; no table."""
    for folder in ("train/images", "train/masks", "test/images"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = shapes_of(number)
        pixels[~np.isin(pixels, values)] = 0
        Image.fromarray(np.repeat(pixels[..., None] % 3 * np.uint8(90), 3, 2)).save(
            root / f"train/images/a{number:02d}.jpg"
        )
        Image.fromarray(pixels).save(root / f"train/masks/a{number:02d}{ending}.png")
    one_of_each([f"test/images/b{number}.jpg" for number in range(3)], root, np.random.default_rng(0))
    return root


MADE_SMALL = ["--model.backbone", "test_convnext", "--model.pretrained", "false", "--data.image_size", "32"]


@pytest.mark.parametrize(("has_table", "ending"), [(True, ""), (False, "_mask")])
def test_files_of_masks_beside_the_images_are_the_target(has_table, ending, tmp_path):
    root = mask_folder(tmp_path / "data", ending=ending)
    if has_table:
        write(root / "train.csv", {"id": [f"a{number:02d}" for number in range(12)], "depth": range(12)})
        write(root / "test.csv", {"id": [f"b{number}" for number in range(3)], "depth": range(3)})
    config = proposed("mine", root, tmp_path)
    assert config["data.target_kind"] == {
        "class_path": "swinft.Segmentation",
        "init_args": {
            "files": f"train/masks/{{{'id' if has_table else 'name'}}}{ending}.png",
            "values": {"class_1": 1, "class_2": 2},
            "classes": "exclusive",
            "ignore": 255,
        },
    }
    assert config["data.target"] == ["class_1", "class_2"]
    assert config["model.head"]["class_path"] == "swinft.SoftmaxSegmentationHead"
    assert "data.columns.numeric_features" not in config
    text = (tmp_path / "mine.yaml").read_text()
    words = " ".join(text.replace("#", " ").split())
    assert "ignore is a guess: 255 is in 12 of 12 files beside numbers of classes" in words
    assert "12 of 12 files were looked at, whose pixels are 0, 1, 2, 255" in words
    assert "swinft.Segmentation" in text
    assert main(["check", "--config", str(tmp_path / "mine.yaml"), *MADE_SMALL]) == 0


@pytest.mark.parametrize(("values", "kept"), [((255,), {}), ((1, 255), {"ignore": 255})])
def test_one_class_in_files_is_all_that_is_not_0(values, kept, tmp_path):
    config = proposed("mine", mask_folder(tmp_path / "data", values=values), tmp_path)
    assert config["data.target"] == "mask"
    assert config["data.target_kind"]["init_args"] == {"files": "train/masks/{name}.png", **kept}
    assert config["model.head"]["class_path"] == "swinft.SegmentationHead"
    assert main(["check", "--config", str(tmp_path / "mine.yaml"), *MADE_SMALL]) == 0


def test_three_grey_levels_are_two_classes(tmp_path):
    root = mask_folder(tmp_path / "data")
    for path in (root / "train/masks").iterdir():
        pixels = np.asarray(Image.open(path))
        Image.fromarray((pixels == 1) * np.uint8(128) + (pixels == 2) * np.uint8(255)).save(path)
    arguments = proposed("mine", root, tmp_path)["data.target_kind"]["init_args"]
    assert arguments["values"] == {"class_128": 128, "class_255": 255}
    assert "ignore" not in arguments


def test_photographs_and_colours_are_no_masks(tmp_path, capsys):
    root = mask_folder(tmp_path / "data")
    for path in (root / "train/masks").iterdir():
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)).save(path)
    assert new(root) == 2
    assert "data.train could not be decided" in capsys.readouterr().err


def run_lengths(root: Path, overlap: bool, count: int = 12, side: int = 48) -> Path:
    """Images with a column of run lengths for each of two classes."""
    (root / "images").mkdir(parents=True)
    cells: dict[str, list[str]] = {"id": [], "one": [], "two": []}
    for number in range(count):
        pixels = shapes_of(number, 48)
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(root / "images" / f"a{number:02d}.png")
        first, second = pixels == 1, (pixels == 2) | (overlap & (pixels == 1) & (number == 7))
        cells["id"].append(f"a{number:02d}")
        for name, mask in (("one", first), ("two", second)):
            whole = np.zeros((side, side), bool)
            whole[:48, :48] = mask
            cells[name].append(text_of(encode(whole)))
    write(root / "train.csv", cells)
    (root / "sample_submission.csv").write_text("id,one,two\n" + "".join(f"a{n:02d},,\n" for n in range(2)))
    return root


@pytest.mark.parametrize("overlap", [False, True])
def test_columns_of_run_lengths_exclude_each_other_where_no_row_shows_another(overlap, tmp_path):
    config = proposed("mine", run_lengths(tmp_path / "data", overlap), tmp_path)
    assert config["data.target"] == ["one", "two"]
    kind = config["data.target_kind"]
    words = " ".join((tmp_path / "mine.yaml").read_text().replace("#", " ").split())
    if overlap:
        assert kind == "segmentation"
        assert "there are rows whose masks overlap" in words
    else:
        assert kind["init_args"] == {"classes": "exclusive"}
        assert "no pixel is in two classes, in 12 rows that have masks of several" in words
    assert config["model.head"]["class_path"] == f"swinft.{'' if overlap else 'Softmax'}SegmentationHead"


def test_large_images_with_masks_get_tiles(tmp_path):
    config = proposed("mine", run_lengths(tmp_path / "data", False, 12, 1100), tmp_path)
    assert config["data.target_kind"]["init_args"] == {"classes": "exclusive", "tile": {"per_image": 5}}
    assert config["data.image_size"] == 512
    words = " ".join((tmp_path / "mine.yaml").read_text().replace("#", " ").split())
    assert "images have 1100 × 1100 pixels (median of 12) and would lose details as a whole" in words
    small = proposed("other", run_lengths(tmp_path / "small", False, 12, 60), tmp_path)
    assert "tile" not in small["data.target_kind"]["init_args"]
    assert small["data.image_size"] == 64


@pytest.mark.parametrize(("change", "kind"), [(None, "classification"), ("two", "multilabel"), ("none", "multilabel")])
def test_columns_with_exactly_one_1_in_every_row_are_classes(change, kind, tmp_path):
    root = tmp_path / "data"
    one_of_each([f"images/a{row}.png" for row in range(30)], root, np.random.default_rng(0))
    cells = {name: [int(row % 3 == k) for row in range(30)] for k, name in enumerate(("cat", "dog", "owl"))}
    if change:
        cells["cat"][4 if change == "two" else 3] = int(change == "two")
    write(root / "train.csv", {"id": [f"a{row}" for row in range(30)], **cells})
    config = proposed("mine", root, tmp_path)
    assert config["data.target"] == ["cat", "dog", "owl"]
    assert config["data.target_kind"] == kind
