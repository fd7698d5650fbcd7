"""`data.image` of several images per row: which files, which parts, in which order, and what is wrong with them."""

import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from swinft import CSVDataModule, InputError, RowImages
from swinft.data.row_images import row_images, spread
from swinft.data.tables.table import DataError
from tests.conftest import merged

SIDE = 16
IDS = ["a*b", "c[1]", "d?", "e", "f", "g"]


def level(value, size=(20, 24)):
    """An image of one grey level, with noise by which two are told apart."""
    noise = np.random.default_rng(value).integers(0, 4, (*size, 3))
    return np.clip(value + noise, 0, 255).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Six rows; of each two files, whose grey levels are 10 · row and 10 · row + 100."""
    lines = ["id,label,files,other,context"]
    for row, id in enumerate(IDS):
        names = [f"{id}_{number}.png" for number in (2, 10)]
        for number, name in enumerate(names):
            save(tmp_path / "images" / name, level(10 * row + 100 * number, (20 + row, 24)))
        lines.append(f"{id},{'xy'[row % 2]},{names[1]}; {names[0]} ;{names[1]},{names[0]},e_10")
    save(tmp_path / "images" / "axb_5.png", level(200))  # as the first id would match if its `*` were a wildcard
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "test.csv").write_text("id,files,other\n" + "".join(f"{id},{id}_2.png,{id}_2.png\n" for id in IDS[:2]))
    return tmp_path


def module(root, image, **changes):
    arguments = {
        "target": "label",
        "target_kind": "classification",
        "train": "train.csv",
        "root": str(root),
        "image_size": SIDE,
        "augment": "none",
        "batch_size": 3,
        "folds": {"num": 2, "duplicates": "ignore"},
        "loading": {"cache": False, "num_workers": 0},
    }
    return CSVDataModule(**merged(arguments, {"image": image, **changes}))


def item(root, image, row=0, **changes):
    """The item of a row."""
    data = module(root, image, **changes)
    data.setup("fit")
    return data.make_dataset("val", np.arange(6))[0, row]


def levels(item):
    """The mean of each image of an item that is there."""
    return [
        int(image.mean()) // 10 * 10 for image, there in zip(item["image"], item["image_mask"], strict=True) if there
    ]


@pytest.mark.parametrize(
    "image",
    [
        ["images/{id}_2.png", "images/{id}_10.png"],
        {"first": "images/{id}_2.png", "second": "images/{id}_10.png"},
        "images/{id}_*.png",  # 10 after 2, and neither `*` nor `[1]` of an id is a wildcard
        {"path": "images/{id}_*.png", "max": 4},
    ],
)
def test_files_come_by_list_by_name_and_by_wildcard_in_natural_order(image, folder):
    for row in range(len(IDS)):
        assert levels(item(folder, image, row)) == [10 * row, 10 * row + 100]


def test_a_cell_lists_files_in_its_own_order_each_once(folder):
    data = module(folder, {"path": "images/{files}", "delimiter": ";"})
    data.setup("fit")
    dataset = data.make_dataset("val", np.arange(6))
    assert [levels(dataset[0, row]) for row in range(3)] == [[100, 0], [110, 10], [120, 20]]
    assert any("6 cells list a file twice, which is taken once" in note for note in data.notes)


def test_of_a_thousand_files_as_many_as_max_are_taken_evenly_spread(folder):
    for number in range(1000):
        (folder / "many").mkdir(exist_ok=True)
        (folder / "many" / f"e_{number}.png").touch()
    (folder / "many" / "f_7.png").touch()
    (folder / "train.csv").write_text("id,label\ne,x\nf,y\n")
    rows = module(folder, {"path": "many/{id}_*.png", "max": 5}, folds={"rare_classes": "train"}).splits.read_tables()[
        0
    ]
    names = [path.rpartition("/")[2] for path in rows.paths]
    assert names == ["e_100.png", "e_300.png", "e_500.png", "e_700.png", "e_900.png", "f_7.png"]
    assert rows.shown.files.tolist() == [[0, 1, 2, 3, 4], [5, -1, -1, -1, -1]]
    assert any("1 row has more than 5 images" in note for note in rows.table.notes)
    assert spread(3, 5) == [0, 1, 2]


def test_rows_without_any_image_are_errors_or_left_out(folder):
    (folder / "images" / "e_2.png").unlink()
    (folder / "images" / "e_10.png").unlink()
    with pytest.raises(DataError) as error:
        module(folder, "images/{id}_*.png").setup("fit")
    assert "the row has no image" in str(error.value)
    assert "id 'e'" in str(error.value)
    data = module(folder, "images/{id}_*.png", loading={"on_bad_image": "skip"})
    data.setup("fit")
    assert data.splits.status == ["ok", "ok", "ok", "bad image", "ok", "ok"]


def test_a_missing_image_is_an_error_or_masked_and_leaves_its_place(folder):
    (folder / "images" / "e_2.png").unlink()
    paths = ["images/{id}_2.png", "images/{id}_10.png"]
    with pytest.raises(DataError, match="the image file is missing"):
        module(folder, paths).setup("fit")
    found = item(folder, {"path": paths, "missing": "mask"}, 3)
    assert found["image_mask"].tolist() == [False, True]
    assert levels(found) == [130]
    assert not found["image"][0].any()


def test_a_damaged_image_is_masked_only_where_both_settings_let_it(folder):
    (folder / "images" / "e_2.png").write_bytes(b"no image")
    paths = ["images/{id}_2.png", "images/{id}_10.png"]
    for images, loading in ((paths, {}), ({"path": paths, "missing": "mask"}, {})):
        data = module(folder, images, loading=loading)
        with pytest.raises(DataError, match="the image cannot be used"):
            data.check()
    data = module(folder, paths, loading={"on_bad_image": "skip"})
    data.check()
    assert data.splits.status[3] == "bad image"
    data = module(folder, {"path": paths, "missing": "mask"}, loading={"on_bad_image": "skip"})
    data.check()
    assert data.splits.status == ["ok"] * 6
    assert data.make_dataset("val", np.arange(6))[0, 3]["image_mask"].tolist() == [False, True]
    assert any("an image of id e is left out" in note for note in data.notes)
    (line,) = [line for line in data.images_csv().splitlines() if line.startswith("train,e_2.png,")]
    assert not line.endswith(",")  # why it cannot be used


def test_the_cache_keeps_each_distinct_file_once_and_changes_nothing(folder):
    paths = ["images/{id}_2.png", "images/{context}.png", "images/{id}_2.png"]
    with_cache = module(folder, [*paths], loading={"cache": True, "cache_dir": str(folder / "cache")})
    with_cache.check()
    assert len(with_cache.training_cache()) == len(IDS) + 1
    without = module(folder, [*paths])
    without.setup("fit")
    for row in range(6):
        one, two = (data.make_dataset("val", np.arange(6))[0, row] for data in (with_cache, without))
        assert np.array_equal(one["image"], two["image"])


@pytest.mark.parametrize("preset", ["medium", "crop", "heavy"])
def test_augmentation_is_shared_by_the_images_of_a_row_or_drawn_for_each(preset, folder):
    rng = np.random.default_rng(0)
    for row, id in enumerate(IDS):
        save(folder / "images" / f"{id}_2.png", rng.integers(0, 256, (30 + row, 24, 3)).astype(np.uint8))
    twice = ["images/{id}_2.png", "images/{id}_2.png"]
    for augment in ("shared", "independent"):
        data = module(folder, {"path": twice, "augment": augment}, augment=preset)
        data.setup("fit")
        dataset = data.make_dataset("train", np.arange(6))
        pairs = [dataset[epoch, row]["image"] for epoch in range(2) for row in range(6)]
        assert all(np.array_equal(*pair) for pair in pairs) == (augment == "shared")
        assert not np.array_equal(pairs[0], pairs[6])  # another epoch, another augmentation
        again = data.make_dataset("train", np.arange(6))[1, 0]["image"]
        assert np.array_equal(again, pairs[6])


# --- parts of files


def test_halves_and_grids_are_the_pixels_of_the_file(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (2 * SIDE, 3 * SIDE, 3)).astype(np.uint8)
    for id in IDS:
        save(folder / "sheets" / f"{id}.png", pixels)
    found = item(folder, {"path": "sheets/{id}.png", "grid": [2, 3]})
    cells = [pixels[SIDE * y : SIDE * (y + 1), SIDE * x : SIDE * (x + 1)] for y in range(2) for x in range(3)]
    assert np.array_equal(found["image"], cells)
    assert found["image_mask"].all()
    halves = item(folder, {"path": "sheets/{id}.png", "grid": [1, 2]})
    assert halves["image"].shape == (2, SIDE, SIDE, 3)


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp"])
def test_frames_of_a_stack_are_spread_over_it_and_missing_ones_masked(suffix, folder):
    for row, id in enumerate(IDS):
        frames = [Image.fromarray(level(20 * number)) for number in range(3 + row)]
        (folder / "stacks").mkdir(exist_ok=True)
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(folder / "stacks" / f"{id}.{suffix}", save_all=True, append_images=frames[1:], **options)
    image = {"path": f"stacks/{{id}}.{suffix}", "frames": True, "max": 4}
    assert [mean // 20 for mean in levels(item(folder, image, 0))] == [0, 1, 2]
    assert item(folder, image, 0)["image_mask"].tolist() == [True] * 3 + [False]
    assert [mean // 20 for mean in levels(item(folder, image, 5))] == [1, 3, 5, 7]  # of eight


def test_tiles_cover_the_file_and_empty_ones_are_dropped(folder):
    rng = np.random.default_rng(0)
    pixels = np.full((SIDE + 4, 3 * SIDE, 3), 255, dtype=np.uint8)
    pixels[:, 2 * SIDE :] = rng.integers(0, 256, (SIDE + 4, SIDE, 3))
    for id in IDS:
        save(folder / "slides" / f"{id}.png", pixels)
    image = {"path": "slides/{id}.png", "tile": SIDE, "max": 8}
    whole = item(folder, image)
    assert whole["image_mask"].tolist() == [True] * 6 + [False] * 2
    assert np.array_equal(whole["image"][5], pixels[-SIDE:, 2 * SIDE :])  # the last one ends at the edge
    kept = item(folder, {**image, "least_contrast": 5})
    assert np.array_equal(kept["image"][:2], [pixels[:SIDE, 2 * SIDE :], pixels[-SIDE:, 2 * SIDE :]])
    assert kept["image_mask"].sum() == 2
    fewer = item(folder, {**image, "overlap": 8, "max": 2})
    assert fewer["image_mask"].all()
    for id in IDS[:1]:
        save(folder / "slides" / f"{id}.png", np.full_like(pixels, 255))
    for cache in (True, False):
        loading = {"cache": cache, "cache_dir": str(folder / "cache")}
        data = module(folder, {**image, "least_contrast": 5}, loading=loading)
        with pytest.raises(DataError, match="All its parts are empty"):
            data.check()
        data = module(folder, {**image, "least_contrast": 5}, loading={**loading, "on_bad_image": "skip"})
        data.check()
        assert data.splits.status == ["bad image", *["ok"] * 5]
        assert data.summary()["images"]["unreadable"] == 0
        assert data.make_dataset("val", np.arange(6))[0, 1]["image_mask"].sum() == 2


def test_channels_are_grey_or_rgb_and_what_is_missing_is_black(folder):
    (folder / "images" / "e_2.png").unlink()
    paths = {"path": ["images/{id}_2.png", "images/{id}_10.png"], "missing": "mask"}
    grey, rgb = (item(folder, {**paths, "channels": channels}, 3) for channels in ("grey", "rgb"))
    assert grey["image"].shape == (SIDE, SIDE, 2)
    assert rgb["image"].shape == (SIDE, SIDE, 6)
    assert not grey["image"][..., 0].any()
    assert grey["image"][..., 1].mean() == pytest.approx(rgb["image"][..., 3:].mean(), abs=1)
    assert "image_mask" not in grey


# --- leaks


def test_rows_of_different_folds_that_share_a_file_are_a_leak(folder):
    paths = ["images/{id}_2.png", "images/{context}.png"]  # the same context for all
    rng = np.random.default_rng(0)
    for path in (folder / "images").iterdir():
        save(path, rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    data = module(folder, paths, folds={"duplicates": "report", "kind": "kfold"})
    data.check()
    assert any("are the same image, in folds [0, 1], a leak" in note for note in data.notes)
    with pytest.raises(InputError, match="more than one fold"):
        module(folder, paths, folds={"duplicates": "error", "kind": "kfold"}).check()
    shared = ["images/{id}_2.png", "images/{other}"]  # each row shows one file twice: no news
    data = module(folder, shared, folds={"duplicates": "error"})
    data.check()
    assert not [note for note in data.notes if "same image" in note]
    table = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(table.replace(",a*b_2.png,", ",c[1]_2.png,"))  # the first row shows the second's
    data = module(folder, shared, folds={"duplicates": "group"})
    data.check()
    assert data.fold_of_row[0] == data.fold_of_row[1]


# --- what is refused, before anything is read

REFUSED = {
    "an option in a mapping without path": ({"glob": "images/{id}/*", "max": 3}, "write the template of the files as `path`"),
    "an unknown option": ({"path": "{id}", "tiles": 3}, "has no 'tiles'. Did you mean 'tile'"),
    "no text": ([1, "images/{id}"], "several of them"),
    "an empty list": ([], "several of them"),
    "a template without a column": (["images/{id}.png", "images/x.png"], "names no column"),
    "a wildcard in a folder": ("images/*/{id}.png", "in its last part only"),
    "two ways to cut": ({"path": "{id}", "grid": [1, 2], "frames": True}, "keep one"),
    "wildcards in several": (["{id}_*.png", "{id}.png"], "one template"),
    "max of a fixed number": ({"path": ["{id}a", "{id}b"], "max": 3}, "does nothing"),
    "max below 1": ({"path": "{id}*", "max": 0}, "whole number from 1"),
    "a grid of one cell": ({"path": "{id}", "grid": [1, 1]}, "rows and columns"),
    "overlap above the tile": ({"path": "{id}", "tile": 32, "overlap": 32}, "below it"),
    "contrast of whole files": ({"path": ["{id}a", "{id}b"], "least_contrast": 3}, "for parts"),
    "masks of one file": ({"path": "{id}", "missing": "mask"}, "names one"),
    "independent augmentation of one": ({"path": "{id}", "augment": "independent"}, "a row has one"),
    "a word": ({"path": "{id}*", "channels": "gray"}, "Did you mean 'grey'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_act_is_refused_with_the_key(case, folder):
    image, message = REFUSED[case]
    with pytest.raises(InputError) as error:
        module(folder, image)
    assert message in str(error.value)
    assert "data.image" in str(error.value)


def test_what_knows_one_image_per_row_refuses_several(folder):
    with pytest.raises(InputError, match="knows one image per row"):
        module(folder, "images/{id}_*.png", loading={"augment_on": "device", "cache": "auto"})
    with pytest.raises(InputError, match="takes them from the table"):
        module(folder, "images/{id}_*.png", loading={"source": "column"})
    with pytest.raises(InputError, match="as many images"):
        module(folder, ["{id}a", "{id}b"], columns={"test_image": "{id}"})


def test_one_template_however_it_is_written_is_plain():
    for given in ("images/{id}.png", ["images/{id}.png"], {"it": "images/{id}.png"}, {"path": "images/{id}.png"}):
        assert row_images(given).is_plain
    assert row_images("pixel*").is_plain  # columns of pixels
    assert RowImages(["{a}", "{b}"]).num_images == 2
    assert RowImages(["{a}", "{b}"], grid=(1, 2)).most == 4


def test_padding_has_one_image_and_a_batch_its_mask(folder):
    data = module(folder, ["images/{id}_2.png", "images/{id}_10.png"], batch_size=4)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == (3, 2, 3, SIDE, SIDE)
    assert batch["image_mask"].dtype == torch.bool
    padding = data.make_dataset("val", np.arange(6))[0, -1]
    assert padding["image_mask"].tolist() == [True, False]
    assert padding["image"].shape == (2, SIDE, SIDE, 3)


# --- sources


def test_archives_and_pixels_in_columns_give_several_images_too(folder):
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for path in (folder / "images").iterdir():
            archive.write(path, f"inner/{path.name}")
    for image in ("all.zip/inner/{id}_*.png", {"path": "all.zip/inner/{files}", "delimiter": ";"}):
        found = item(folder, image, 1, loading={"source": "zip"})
        assert sorted(levels(found)) == [10, 110]
    names = [f"{side}{number}" for side in "ab" for number in range(64)]
    lines = [f"{id},{'xy'[row % 2]}," + ",".join(["7"] * 64 + ["200"] * 64) for row, id in enumerate("efghij")]
    (folder / "train.csv").write_text("\n".join([f"id,label,{','.join(names)}", *lines, ""]))
    found = item(folder, ["a*", "b*"], loading={"source": "column"})
    assert [int(image.mean()) for image in found["image"]] == [7, 200]


def test_a_template_that_no_row_has_is_no_mask(folder):
    with pytest.raises(DataError, match="no row has an image of a template"):
        module(folder, {"path": ["images/{id}_2.png", "images/{id}_11.png"], "missing": "mask"}).setup("fit")
    (folder / "train.csv").write_text("id,label,files\ne,x,../e.png;e_2.png\nf,y,/f.png\n")
    with pytest.raises(DataError, match="leaves the images' folder"):
        module(folder, {"path": "images/{files}", "delimiter": ";"}).setup("fit")


def test_extra_tables_show_several_images_and_a_shared_file_leaves_a_row_out(folder):
    rng = np.random.default_rng(0)
    for path in (folder / "images").iterdir():
        save(path, rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    save(folder / "old" / "n_2.png", rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    save(folder / "old" / "n_10.png", rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    shutil.copy(folder / "images" / "e_10.png", folder / "old" / "m_10.png")
    save(folder / "old" / "m_2.png", rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    (folder / "extra.csv").write_text("id,label\nn,x\nm,y\n")
    folds = {"kind": "kfold", "duplicates": "report", "extra": [{"table": "extra.csv", "image": "old/{id}_*.png"}]}
    data = module(folder, "images/{id}_*.png", folds=folds)
    data.check()
    dataset = data.make_dataset("train", np.arange(8))
    assert dataset[0, 6]["image_mask"].sum() == 2
    fold = int(data.fold_of_row[3])  # holds out the image that the extra row `m` shows
    assert 7 not in data.splits.trained_on(fold)
    assert {6, 7} <= set(data.splits.trained_on(1 - fold).tolist())
    with pytest.raises(InputError, match="as many images"):
        module(folder, ["{id}a", "{id}b"], folds={"extra": [{"table": "extra.csv", "image": "{id}"}]}).setup("fit")
