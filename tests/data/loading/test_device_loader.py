"""What is computed on the device is what the CPU's presets compute, from the same draws."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.nn import functional

from swinft.cli import main
from swinft.data.augment.warp import warp
from swinft.data.cache import budget as capacity
from swinft.data.datamodule import CSVDataModule
from swinft.data.loading import device_loader as device
from swinft.data.loading.device_loader import CHUNK, DeviceLoader, free_memory
from swinft.data.sources.source import ImageError
from swinft.errors import InputError
from tests.conftest import merged, tiny_config, write_config

ROWS, SIZE = 20, (48, 64)
PHOTO = load_sample_image("china.jpg")  # (427, 640, 3)


def write(root, images):
    """A competition of PNGs."""
    (root / "images").mkdir(parents=True)
    for row, image in enumerate(images):
        Image.fromarray(image).save(root / "images" / f"{row:02d}.png")
    (root / "train.csv").write_text("id,color\n" + "".join(f"{row:02d},{'ab'[row % 2]}\n" for row in range(ROWS)))
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Parts of a photograph, all of one shape."""
    starts = np.random.default_rng(0).integers(0, 240, (ROWS, 2))
    return write(tmp_path_factory.mktemp("photos"), [PHOTO[top : top + 150, left : left + 200] for top, left in starts])


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    """Images of many shapes that grow evenly brighter to the right and to the bottom: resizing changes nothing."""
    shapes = np.random.default_rng(0).integers(60, 200, (ROWS, 2))
    edges = [[(np.arange(side) + 0.5) / side * 255 for side in shape] for shape in shapes]
    images = [np.stack(np.broadcast_arrays(x, y[:, None], 128), axis=2).round().astype(np.uint8) for y, x in edges]
    return write(tmp_path_factory.mktemp("ramps"), images)


def module(root, **changes):
    arguments = {
        "root": str(root),
        "train": "train.csv",
        "image": "images/{id}.png",
        "target": "color",
        "target_kind": "classification",
        "folds": {"num": 2},
        "image_size": SIZE,
        "batch_size": 5,
        "augment": "light",
        "loading": {"augment_on": "device", "cache_dir": str(root / "cache")},
    }
    return CSVDataModule(**merged(arguments, changes))


def ready(root, **changes):
    data = module(root, **changes)
    data.setup("fit")
    return data


def images(root, epoch=0, **changes):
    """The images of an epoch by their row, float (3, H, W)."""
    loader = ready(root, **changes).train_dataloader()
    loader.sampler.set_epoch(epoch)
    return {
        row: image.float() for batch in loader for row, image in zip(batch["row"].tolist(), batch["image"], strict=True)
    }


def differences(root, edge=0, **changes):
    """Of the device's images to the CPU's, without so many pixels at the edges, in grey levels (rows, 3, H, W)."""
    there, here = (
        images(root, **changes),
        images(root, **merged(changes, {"loading": {"augment_on": "cpu", "cache": True}})),
    )
    assert list(there) == list(here)
    each = torch.stack([(there[row] - here[row]).abs() for row in here])
    return each[..., edge : SIZE[0] - edge, edge : SIZE[1] - edge]


# In mean and at most. Where the CPU interpolates it rounds, 0.25 on average, and what it does to colours it cuts off.
TOLERANCE = {"none": (0.01, 0.01), "light": (0.01, 0.01), "medium": (0.8, 3), "crop": (0.4, 3)}


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("preset", TOLERANCE)
def test_images_are_those_of_the_cpus_preset_row_by_row(photos, preset, resize):
    # A crop's outermost pixels: the CPU repeats them where the device interpolates with what lies beside the crop.
    found = differences(photos, edge=int(preset == "crop"), augment=preset, loading={"resize": resize})
    assert found.mean((1, 2, 3)).max() < TOLERANCE[preset][0]
    assert found.max() < TOLERANCE[preset][1]
    assert differences(photos, augment=preset, loading={"resize": resize}).mean((1, 2, 3)).max() < 1


def test_some_rows_are_flipped_and_some_are_not(photos):
    flat, light = images(photos, augment="none"), images(photos)
    flipped = [float((light[row] - flat[row].flip(2)).abs().max()) < 0.01 for row in flat]
    same = [float((light[row] - flat[row]).abs().max()) < 0.01 for row in flat]
    assert sum(flipped) + sum(same) == len(flat)
    assert sum(flipped) > 0 < sum(same)


@pytest.mark.parametrize("preset", ["medium", "crop"])
def test_an_image_depends_on_seed_epoch_and_row_alone(photos, preset):
    first = images(photos, augment=preset)
    for changes in (
        {"batch_size": 3},
        {"batch_size": 2, "loading": {"num_workers": 2}},
    ):  # fewer rows where the last is dropped
        again = images(photos, augment=preset, **changes)
        assert set(again) <= set(first)
        assert len(again) >= 9
        assert all(torch.equal(again[row], first[row]) for row in again)
    # Another seed makes other folds: some rows are in both.
    for other in (images(photos, 1, augment=preset), images(photos, augment=preset, folds={"seed": 1})):
        common = set(other) & set(first)
        assert len(common) > 2
        assert sum(torch.equal(other[row], first[row]) for row in common) < 2  # medium may draw nothing twice


def test_crops_of_images_of_many_shapes_are_drawn_in_their_own_proportions(ramps):
    data = ready(ramps, augment="crop")
    shapes = data.train_dataloader().device_images.shapes
    assert len(set(map(tuple, shapes.tolist()))) > 5
    assert differences(ramps, augment="crop").mean((1, 2, 3)).max() < 0.4
    for preset in ("none", "light"):  # resized once, from the cache, as on the CPU
        assert differences(ramps, augment=preset).max() < 0.01


def test_images_of_one_shape_are_stored_as_the_cache_has_them(photos, monkeypatch):
    monkeypatch.setattr(device, "CHUNK", 3)
    assert CHUNK > 3
    data = ready(photos, augment="crop")
    images = data.train_dataloader().device_images
    rows, cache = data.splits.trained_on(data.fold), data.training_cache()
    assert np.array_equal(images.pixels.numpy(), cache.array[rows].reshape(-1, 3))
    size = int(np.prod(cache.shapes[0]))
    assert images.starts[rows].tolist() == [size * index for index in range(len(rows))]
    assert (images.starts[data.fold_of_row == 0] == -1).all()


def test_a_batch_has_images_on_the_device_and_all_else_as_ever(photos):
    data = ready(photos)
    loader = data.train_dataloader()
    assert isinstance(loader, DeviceLoader)
    assert set(loader.dataset[0, 1]) == {
        "matrix",
        "colour",
        "samples",
        "row",
        "target",
    }  # no pixel comes from a loader process
    batch = next(iter(loader))
    assert {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in batch.items()} == {
        "image": ((5, 3, *SIZE), torch.float32),
        "target": ((5,), torch.int64),
        "row": ((5,), torch.int64),
    }
    loader.sampler.set_epoch(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(next(iter(loader))["image"], batch["image"])
    assert all(batch["image"].dtype == torch.uint8 for batch in data.val_dataloader())
    assert torch.equal(
        *(next(iter(ready(photos, loading={"augment_on": on}).val_dataloader()))["image"] for on in ("cpu", "device"))
    )


def test_show_batch_shows_what_the_network_sees(photos):
    shown = ready(photos).show_batch(n=4)
    expected = ready(photos, loading={"augment_on": "cpu"}).show_batch(n=4)
    for one, other in zip(shown.axes, expected.axes, strict=True):
        assert one.get_title() == other.get_title()
        if one.images:
            assert np.array_equal(one.images[0].get_array(), other.images[0].get_array())
    assert ready(photos).show_batch("val", n=1).axes[0].images


def test_images_are_uploaded_once_and_it_is_said(photos, capsys):
    data = ready(photos)
    assert data.train_dataloader().device_images is data.train_dataloader().device_images
    said = capsys.readouterr().out
    assert said.count("are on cpu") == 1
    assert "10 training images of 48 × 64 pixels are on cpu: 0.09 MB of " in said


def test_an_image_that_is_skipped_is_not_read(photos, tmp_path):
    root = write(tmp_path / "data", [np.asarray(Image.open(path)) for path in sorted((photos / "images").iterdir())])
    (root / "images" / "03.png").write_bytes(b"no image")
    data = ready(root, loading={"on_bad_image": "skip"}, folds={"held_out": 1})
    loader = data.train_dataloader()
    assert 3 not in {row for batch in loader for row in batch["row"].tolist()}
    assert loader.device_images.starts[3] == -1
    assert (loader.device_images.starts >= 0).sum() == len(loader.sampler.rows)
    assert len(loader.device_images.pixels) == 48 * 64 * len(loader.sampler.rows)
    for fold in range(2):
        data = ready(root, folds={"held_out": fold})
        if data.fold_of_row[3] != fold:
            with pytest.raises(ImageError, match="id '03'"):
                data.train_dataloader()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"augment": "heavy"}, ["data.loading.augment_on", "data.augment is 'heavy'", "none, light, medium, crop"]),
        (
            {"augment": []},
            ["data.loading.augment_on", "data.augment is a list of transforms", "none, light, medium, crop"],
        ),
        ({"loading": {"cache": False}}, ["data.loading.augment_on", "data.loading.cache is false", "auto or true"]),
        (
            {"loading": {"shrink": False}},
            ["data.loading.augment_on", "data.loading.shrink is false", "to auto or true"],
        ),
        (
            {"loading": {"shrink": False, "cache": True}},
            ["data.loading.augment_on", "data.loading.shrink is false", "to auto or true"],
        ),
        ({"loading": {"augment_on": "gpu"}}, ["data.loading.augment_on is 'gpu'", "'cpu'"]),
    ],
)
def test_settings_that_contradict_it_are_errors(photos, changes, words):
    with pytest.raises(InputError) as caught:
        module(photos, **changes)
    assert all(word in str(caught.value) for word in words)
    assert len(str(caught.value).splitlines()) == 2  # said once


def test_too_little_room_and_another_kind_of_device_are_errors(photos, monkeypatch):
    needed = 10 * 3 * 48 * 64
    monkeypatch.setattr(device, "available_memory", lambda: int(needed / capacity.DEVICE_SHARE) + 1)
    ready(photos).train_dataloader()
    monkeypatch.setattr(device, "available_memory", lambda: int(needed / capacity.DEVICE_SHARE) - 3)
    with pytest.raises(
        InputError, match=r"take 0.09 MB, 40% of what is free on cpu are 0.09 MB. Set data.loading.augment_on"
    ):
        ready(photos).train_dataloader()
    with pytest.raises(InputError, match="works on cuda and cpu, not on mps"):
        free_memory(torch.device("mps"))


def test_the_command_line_refuses_it_before_anything_is_written(competition, tmp_path, capsys):
    changes = {"data.loading.augment_on": "device", "data.augment": "heavy"}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config)]) == 2
    assert "data.augment is 'heavy'" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "tiny").exists()


def test_one_pixel_is_an_image():
    matrix, seven = torch.tensor([[[1.3, 0.2, 0.4], [0.1, -2.0, 0.0]]]), torch.full((1, 3, 1, 1), 7.0)
    assert torch.equal(warp(seven, None, matrix, (4, 5)), torch.full((1, 3, 4, 5), 7.0))
    filled_up = functional.pad(seven, (0, 3, 0, 2))
    assert torch.allclose(warp(filled_up, torch.ones(1, 2), matrix, (4, 5)), torch.full((1, 3, 4, 5), 7.0), atol=1e-3)
