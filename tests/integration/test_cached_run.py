"""A cache of decoded images changes how fast a run is, and nothing else."""

import shutil

import numpy as np
import pytest
from PIL import Image

from swinft.cli import main
from swinft.data.cache import budget as capacity
from swinft.data.cache.folder import PIXELS
from swinft.data.cache.pixels import PixelCache
from swinft.data.datamodule import CSVDataModule
from tests.conftest import tiny_config, write_config


@pytest.fixture(scope="module")
def large(competition, tmp_path_factory):
    """The competition with images larger than training needs, so that they are shrunk."""
    root = tmp_path_factory.mktemp("large") / "data"
    shutil.copytree(competition, root)
    rng = np.random.default_rng(0)
    for path in sorted((root / "images").iterdir()):
        image = np.asarray(Image.open(path).resize((150, 120))).astype(int)
        image = image + rng.integers(-20, 20, (120, 1, 1)) + rng.integers(-20, 20, (1, 150, 1))
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path, quality=92)
    return root


def fit(root, folder, capsys, **changes):
    changes = {
        "data.loading.cache_dir": str(folder / "cache"),
        "trainer.max_epochs": 1,
        "data.augment": "heavy",
        **changes,
    }
    config = write_config(folder / "c.yaml", tiny_config(root, folder / "runs", **changes))
    code = main(["fit", "--config", str(config), "--fold", "0"])
    return code, capsys.readouterr()


def test_the_same_bytes_with_and_without_a_cache(large, tmp_path, capsys):
    outcomes = {}
    for name, cache, workers in (("with", True, 0), ("auto", "auto", 2), ("without", False, 0)):
        folder = tmp_path / name
        folder.mkdir()
        code, said = fit(large, folder, capsys, **{"data.loading.cache": cache, "data.loading.num_workers": workers})
        assert code == 0, said.err
        files = list((folder / "cache").glob(f"*{PIXELS}"))
        assert len(files) == (0 if name == "without" else 1)
        expected = "each time they are read: the pixel cache is switched off" if name == "without" else "decoded once"
        assert expected in said.out
        fold = folder / "runs" / "tiny" / "fold_0"
        outcomes[name] = [(fold / file).read_bytes() for file in ("oof.csv", "weights.safetensors")]
        outcomes[name].append((folder / "runs" / "tiny" / "images.csv").read_bytes())
    assert outcomes["with"] == outcomes["auto"] == outcomes["without"]


def test_a_fold_reads_the_cache_and_not_the_files(large, tmp_path, monkeypatch):
    data = CSVDataModule(
        root=str(large),
        train="train.csv",
        image="images/{id}.jpg",
        target="color",
        target_kind="classification",
        image_size=32,
        loading={"cache": True, "cache_dir": str(tmp_path)},
    )
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    assert isinstance(dataset.cache, PixelCache)
    monkeypatch.setattr("swinft.data.loading.dataset.load_image", None)
    assert len(list(data.val_dataloader())) > 0


def test_a_cache_that_is_wanted_and_does_not_fit_is_an_error(large, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(capacity, "available_memory", lambda: 1000)
    code, said = fit(large, tmp_path, capsys, **{"data.loading.cache": True})
    assert code == 2
    assert "the pixel cache does not fit" in said.err
    code, said = fit(large, tmp_path, capsys, **{"data.loading.cache": "auto"})
    assert code == 0
    assert "Images are decoded each time they are read: the decoded images take" in said.out


def test_every_pixel_can_be_had(large, tmp_path, capsys):
    code, said = fit(large, tmp_path, capsys, **{"data.loading.cache": True, "data.loading.shrink": False})
    assert code == 2
    assert "set data.loading.shrink to true too" in said.err
    arguments = {"root": str(large), "train": "train.csv", "image": "images/{id}.jpg", "target": "color"}
    shapes = {}
    for shrink in (True, False):
        data = CSVDataModule(**arguments, target_kind="classification", image_size=32, loading={"shrink": shrink})
        data.setup("fit")
        shapes[shrink] = data.val_dataloader().dataset._decoded(0, 0).shape
    assert shapes == {True: (37, 46, 3), False: (120, 150, 3)}


def test_a_cache_that_cannot_be_written_is_said_and_done_without(large, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    changes = {"data.loading.cache_dir": str(blocked / "cache")}
    code, said = fit(large, tmp_path, capsys, **changes)
    assert code == 0
    assert f"the pixel cache cannot be written to {blocked / 'cache'}: Not a directory" in said.out
    code, said = fit(large, tmp_path, capsys, **changes, **{"data.loading.cache": True, "name": "other"})
    assert code == 2
    assert "Set data.loading.cache_dir to another folder" in said.err
