"""Masks of a table: read, checked, and in the geometry of their images."""

from dataclasses import replace

import albumentations as A
import cv2
import numpy as np
import pytest
from PIL import Image

from swinft.data.augment.pipelines import apply_to_both, eval_pipeline
from swinft.data.datamodule import CSVDataModule
from swinft.data.schema import Schema, check_kind
from swinft.data.tables.table import DataError
from swinft.data.target.segmentation import Segmentation
from swinft.errors import InputError
from swinft.inference.maps import inner_box, restored
from tests.conftest import merged
from tests.data.masks.salt import SIZE, disc, write_salt


@pytest.fixture(scope="module")
def salt(tmp_path_factory):
    return write_salt(tmp_path_factory.mktemp("salt"))


def data_of(root, **changes):
    given = {
        "target": "rle_mask",
        "target_kind": "segmentation",
        "train": "train.csv",
        "image": "images/{id}.png",
        "sample_submission": "sample_submission.csv",
        "root": str(root),
        "image_size": SIZE,
        "augment": "none",
        "batch_size": 6,
        "folds": {"num": 2},
        "loading": {"cache": False},
    }
    return CSVDataModule(**merged(given, changes))


def ready(root, **changes):
    data = data_of(root, **changes)
    data.setup("fit")
    return data


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target": "by_rows", "target_kind": Segmentation(order="rows")},
        {"target": "salt", "target_kind": Segmentation(files="masks/{id}.png")},
        {"target": ["salt"], "target_kind": Segmentation(files={"salt": "masks/{id}.png"})},
        {"target": "salt", "target_kind": Segmentation(files="masks/{id}.png", values={"salt": 255})},
    ],
)
def test_masks_of_every_form_are_the_same_and_fit_their_images(salt, changes):
    data = ready(salt, **changes)
    batch = next(iter(data.val_dataloader()))
    assert batch["target"].shape == (6, 1, *SIZE)
    for row, target in zip(batch["row"].tolist(), batch["target"], strict=True):
        np.testing.assert_array_equal(target[0], disc(row))
    assert batch["size"].tolist() == [list(SIZE)] * 6
    np.testing.assert_allclose(data.targets[:, 0], [disc(i).mean() for i in range(18)], rtol=1e-6)
    assert "target" not in next(iter(data.predict_dataloader()))
    assert next(iter(data.predict_dataloader()))["size"].tolist() == [[44, 36]] * 4


def test_several_classes_by_pixel_value_are_planes(salt, tmp_path):
    root = write_salt(tmp_path / "c", 6, 1)
    for i in range(6):
        pixels = disc(i) * np.uint8(3)
        pixels[:5] = 7
        image = Image.fromarray(pixels)
        image.putpalette([value for value in range(256) for _ in range(3)])
        image.save(root / "masks" / f"{i:03d}.png")
    kind = Segmentation(files="masks/{id}.png", values={"a": 3, "b": 7})
    data = ready(root, target=["a", "b"], target_kind=kind)
    batch = data.make_dataset("val", np.arange(6))[2]
    expected = disc(2) & (np.arange(SIZE[0])[:, None] >= 5)
    np.testing.assert_array_equal(batch["target"][0], expected)
    assert batch["target"][1].sum() == 5 * SIZE[1]
    other = ready(root, target=["a"], target_kind=Segmentation(files="masks/{id}.png", values={"a": 3}))
    assert "7 in 6 files" in "\n".join(other.notes)
    with pytest.raises(DataError, match=r"values 3, 7 besides 0"):
        ready(root, target="a", target_kind=Segmentation(files="masks/{id}.png"))


AUGMENTS = {
    "light": "light",
    "medium": "medium",
    "heavy": "heavy",
    "crop": "crop",
    "transforms": [A.RandomResizedCrop((32, 40)), A.RandomRotate90(), A.Resize(32, 48)],
}


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_a_mask_goes_where_the_pixels_of_its_image_go(salt, augment, resize):
    changes = {"augment": AUGMENTS[augment], "image_size": (32, 48), "loading": {"resize": resize}}
    data = ready(salt, **changes)
    dataset = data.make_dataset("train", np.arange(18))
    different = 0
    for epoch in range(3):
        for row in range(6):
            item = dataset[epoch, row]
            bright, mask = item["image"].mean(2) > 120, item["target"][0].numpy() > 0
            # Only pixels at the disc's edge, and holes of `heavy`, may differ.
            edge = mask ^ cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            assert (bright & ~mask).sum() <= 0.6 * edge.sum() + 4, (epoch, row)
            different += int((mask & ~bright).sum())
            again = dataset[epoch, row]
            np.testing.assert_array_equal(again["target"], item["target"])
    total = sum(disc(row).sum() for row in range(6)) * 3
    assert different < 0.25 * total


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loading": {"augment_on": "device", "cache": True}}, "augment_on is device"),
        ({"columns": {"numeric_features": ["z"]}}, "metadata columns"),
        ({"image": ["images/{id}.png", "images/{id}.png"]}, "name one file"),
        ({"columns": {"class_order": ["a"]}}, "class_order"),
        ({"columns": {"auxiliary": [{"target": "z", "target_kind": "regression"}]}}, "auxiliary is set"),
        ({"columns": {"on_missing_target": "skip"}}, "empty cell is an empty mask"),
        ({"loading": {"sampler": "balanced"}}, "sampler chooses rows by classes"),
        ({"target": ["a", "b"], "target_kind": Segmentation(files="m/{id}.png")}, "pixel value of each"),
        (
            {"target": ["b", "a"], "target_kind": Segmentation(files="m/{id}.png", values={"a": 1, "b": 2})},
            "same order",
        ),
    ],
)
def test_settings_that_masks_do_not_allow_are_named(salt, changes, said):
    with pytest.raises(InputError, match=said):
        data_of(salt, **changes)


def test_wrong_arguments_of_the_kind_are_named():
    for arguments, said in (
        ({"order": "column"}, "order is 'column'"),
        ({"missing": "empty"}, "missing is for mask files"),
        ({"values": {"a": 1}}, "values are for files"),
        ({"files": "m/{id}.png", "values": {"a": 0}}, "1 to 65535"),
        ({"files": "m/{id}.png", "values": {"a": 1, "b": 1}}, "two classes one value"),
        ({"files": {"a": "m/x.png"}}, "names no column"),
    ):
        with pytest.raises(InputError, match=said):
            Segmentation(**arguments)


def test_masks_that_do_not_fit_are_listed_with_line_and_id(tmp_path):
    root = write_salt(tmp_path / "c", 8, 1)
    lines = (root / "train.csv").read_text().splitlines()
    lines[1], lines[2], lines[3] = "000,1 3 2 2,", f"001,{SIZE[0] * SIZE[1]} 2,", "002,x 1,"
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError) as error:
        ready(root)
    assert "line 4, id '002'" in str(error.value) or "002" in str(error.value)
    assert "overlapping runs: 1 3 and 2 2" in str(error.value)
    lines[1], lines[3] = "000,,", "002,,"
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"ends at 2081, and the image has 40 x 52 = 2080 pixels"):
        ready(root)
    Image.fromarray(np.zeros((52, 40), np.uint8)).save(root / "masks" / "003.png")
    (root / "masks" / "004.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8) + np.arange(3, dtype=np.uint8)).save(root / "masks" / "005.png")
    files = Segmentation(files="masks/{id}.png")
    with pytest.raises(DataError) as error:
        ready(root, target="salt", target_kind=files)
    said = str(error.value)
    assert "masks/003.png has 52 x 40 pixels, and its image" in said
    assert "images/003.png 40 x 52: a mask must have the size of its image" in said
    assert "004.png cannot be decoded as a mask" in said
    assert "005.png is in colour" in said
    for name in ("003", "004", "005"):
        (root / "masks" / f"{name}.png").unlink()
    with pytest.raises(DataError, match=r"003\.png"):
        ready(root, target="salt", target_kind=files)
    empty = ready(root, target="salt", target_kind=Segmentation(files="masks/{id}.png", missing="empty"))
    assert empty.targets[3, 0] == 0 < empty.targets[2, 0]
    assert "3 rows have no 'masks/{id}.png', an empty mask" in "\n".join(empty.notes)


def test_a_padded_map_comes_back_to_its_image():
    for full in ((44, 36), (31, 77), (100, 100), (7, 300)):
        for size in ((32, 32), (32, 48), (64, 40)):
            ones = np.ones((*full, 1), np.uint8)
            image = np.zeros((*full, 3), np.uint8)
            _, mask = apply_to_both(eval_pipeline(size, "pad"), image, ones, 0, 0, 0)
            top, bottom, left, right = inner_box(full, size, "pad")
            expected = np.zeros(size, np.uint8)
            expected[top:bottom, left:right] = 1
            np.testing.assert_array_equal(mask[..., 0], expected, err_msg=f"{full} {size}")
            assert restored(mask[..., 0] * np.uint8(200), full, "pad").min() == 200


def test_masks_that_changed_since_the_start_of_a_run_are_noticed(salt):
    schema = ready(salt).schema
    check_kind(schema, Schema.from_dict(schema.to_dict()))
    other = replace(schema, kind_check=[schema.kind_check[0] + 0.01, schema.kind_check[1]])
    with pytest.raises(InputError, match="masks of the training rows have changed"):
        check_kind(other, Schema.from_dict(schema.to_dict()))
    of_earlier_version = replace(schema, masks={"order": "columns", "resize": "squash"})
    check_kind(schema, Schema.from_dict(of_earlier_version.to_dict()))


def test_masks_of_the_same_area_in_another_place_are_noticed(tmp_path):
    root, files = write_salt(tmp_path / "c", 6, 1), Segmentation(files="masks/{id}.png")
    known = ready(root, target="salt", target_kind=files).schema
    path = root / "masks" / "002.png"
    Image.fromarray(np.asarray(Image.open(path))[:, ::-1]).save(path)
    schema = ready(root, target="salt", target_kind=files).schema
    assert schema.kind_check == known.kind_check
    with pytest.raises(InputError, match="masks of the training rows have changed"):
        check_kind(schema, known)


def test_images_that_are_shrunk_keep_the_size_of_their_file_and_their_masks(tmp_path):
    root = write_salt(tmp_path / "large", 6, 1, (160, 208))
    data = ready(root, image_size=(40, 52), loading={"cache": False, "shrink": True})
    item = data.make_dataset("val", np.arange(6))[3]
    assert item["size"].tolist() == [160, 208]
    expected = cv2.resize(disc(3, (160, 208)).astype(np.float32), (52, 40), interpolation=cv2.INTER_AREA)
    found = item["target"][0].numpy()
    assert (found[expected > 0.9] == 1).all()
    assert (found[expected < 0.1] == 0).all()
