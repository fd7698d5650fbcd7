"""Runs whose images are in archives, HDF5 files and columns: the same bytes as with files, and errors before training."""

import shutil
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image

from swinft.cli import main
from tests.conftest import tiny_config, write_config

SMALL = {"trainer.max_epochs": 1, "data.image_size": 16}


@pytest.fixture(scope="module")
def pngs(competition, tmp_path_factory):
    """The tiny competition as lossless PNGs of 20 × 18 pixels, in colour and in grey."""
    root = tmp_path_factory.mktemp("pngs")
    for path in sorted((competition / "images").glob("*.jpg")):
        small = Image.open(path).resize((18, 20))
        for folder, mode in (("images", "RGB"), ("grey", "L")):
            (root / folder).mkdir(exist_ok=True)
            small.convert(mode).save(root / folder / f"{path.stem}.png")
    for name in ("train.csv", "test.csv", "sample_submission.csv"):
        (root / name).write_bytes((competition / name).read_bytes())
    pack(root)
    return root


def pack(root):
    """The images in every other way."""
    files = sorted((root / "images").iterdir())
    pixels = {path.stem: np.asarray(Image.open(path)) for path in files}
    with (
        zipfile.ZipFile(root / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        tarfile.open(root / "all.tar", "w") as tar,
    ):
        for path in files:
            archive.write(path, f"images/{path.name}")
            tar.add(path, f"./images/{path.name}")
    with h5py.File(root / "all.h5", "w") as file:
        for path in files:
            file[f"images/{path.stem}"] = np.void(path.read_bytes())
        file["pixels"], file["ids"] = np.stack(list(pixels.values())), [name.encode() for name in pixels]
    for name in ("train", "test"):
        header, *lines = (root / f"{name}.csv").read_text().splitlines()
        rows = [np.asarray(Image.open(root / "grey" / f"{line.split(',')[0]}.png")).ravel() for line in lines]
        names = ",".join(f"pixel{k}" for k in range(20 * 18))
        whole = [f"{line},{','.join(map(str, row))}" for line, row in zip(lines, rows, strict=True)]
        (root / f"{name}_pixels.csv").write_text("\n".join([f"{header},{names}", *whole]) + "\n")


def column_source(**arguments):
    return {"class_path": "swinft.ColumnSource", "init_args": arguments}


KINDS = {
    "zip": {"image": "all.zip/images/{id}.png", "loading.source": "zip", "loading.num_workers": 2},
    "tar": {"image": "all.tar/images/{id}.png", "loading.source": "zip", "loading.cache": False},
    "hdf5": {"image": "all.h5/images/{id}", "loading.source": "hdf5", "loading.cache": False},
    "files, then hdf5": {
        "columns.test_image": "all.h5/pixels/{id}",
        "loading.test_source": {"class_path": "swinft.HDF5Source", "init_args": {"ids": "ids"}},
    },
    "column": {
        "image": "pixel*",
        "train": "train_pixels.csv",
        "test": "test_pixels.csv",
        "loading.source": column_source(width=18),
    },
}


def start(root, folder, name, *words, **data):
    """The folder of a run that has been fitted."""
    changes = {f"data.{key}": value for key, value in {"image": "images/{id}.png", **data}.items()}
    config = write_config(folder / f"{name}.yaml", {**tiny_config(root, folder, **SMALL, **changes), "name": name})
    assert main(["fit", "--config", str(config), *words]) == 0
    return folder / name


def fit(root, folder, name, **data):
    """The first fold's out-of-fold predictions, and predictions of the test rows."""
    run = start(root, folder, name, "--fold", "0", **data)
    assert main(["predict", str(run), "--folds", "0", "--device", "cpu"]) == 0
    return [(run / file).read_bytes() for file in ("fold_0/oof.csv", "test_predictions.csv")]


@pytest.fixture(scope="module")
def from_files(pngs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {
        "images": fit(pngs, folder, "images"),
        "grey": fit(pngs, folder, "grey", image="grey/{id}.png"),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_files_byte_for_byte(pngs, from_files, tmp_path, kind):
    assert fit(pngs, tmp_path, "run", **KINDS[kind]) == from_files["grey" if kind == "column" else "images"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_pooled_out_of_fold_table_is_that_of_files_byte_for_byte(pngs, tmp_path, kind):
    from_files = {"image": "grey/{id}.png"} if kind == "column" else {}
    runs = [start(pngs, tmp_path, "run", **KINDS[kind]), start(pngs, tmp_path, "files", **from_files)]
    one, other = ((run / "oof.csv").read_bytes() for run in runs)
    assert one.count(b"\n") == 25
    assert one == other


def checked(root, tmp_path, capsys, *words, **data):
    changes = {f"data.{key}": value for key, value in data.items()}
    config = write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path, **SMALL, **changes))
    code = main(["check", "--config", str(config), *words])
    return code, capsys.readouterr().err


def test_all_missing_members_are_named_at_once(pngs, tmp_path, capsys):
    shutil.copytree(pngs, tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "data" / "some.zip", "w") as archive:
        for path in sorted((pngs / "images").iterdir())[3:]:
            archive.write(path, path.name)
    code, said = checked(tmp_path / "data", tmp_path, capsys, image="some.zip/{id}.png", **{"loading.source": "zip"})
    assert code == 2
    assert said.count("the image file is missing") == 3


WRONG = {
    "data.loading.source: `zp` is not allowed; it must be files, zip, hdf5 or column.": {"loading.source": "zp"},
    "names columns: 'pixel*'": {"loading.source": "column"},
    "data.image 'images/x.png' names no column": {"image": "images/x.png"},
    "data.columns.test_image 'a.png' names no column": {"columns.test_image": "a.png"},
    "data.columns.test_image 'images/{id}.jpg' is a path": {"loading.test_source": "column"},
    "data.loading.follow_links is for data.loading.source 'files'": {
        "loading.source": "zip",
        "loading.follow_links": True,
    },
    "data.loading.source needs a class derived from swinft's Source": {
        "loading.source": {"class_path": "swinft.BalancedSampler"}
    },
    "data.loading.source.height is 0. Allowed: a number from 1.": {"loading.source": column_source(height=0)},
    "has no argument 'side'": {"loading.source": column_source(side=3)},
    "is a folder on disk; data.loading.source: files reads its images": {"loading.source": "zip"},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_settings_are_named_with_what_is_right(competition, tmp_path, capsys, message):
    code, said = checked(competition, tmp_path, capsys, **WRONG[message])
    assert code == 2
    assert message in said


def test_an_archive_may_be_copied_between_start_and_resume_and_not_changed(pngs, tmp_path, capsys):
    root = shutil.copytree(pngs, tmp_path / "data")
    changes = {"data.image": "all.zip/images/{id}.png", "data.loading.source": "zip", "data.loading.cache": False}
    config = write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path, **SMALL, **changes))
    words = ["fit", "--config", str(config), "--fold"]
    assert main([*words, "0"]) == 0
    whole = (root / "all.zip").read_bytes()
    with zipfile.ZipFile(root / "all.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["images/003.png"] = members["images/004.png"]
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    capsys.readouterr()
    assert main([*words, "1", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "1 problem" in said
    assert "id '003': the image is not that of the run's start" in said
    (root / "all.zip").write_bytes(whole)
    assert main([*words, "1", "--resume"]) == 0


def test_two_arrays_under_one_name_have_caches_of_their_own(pngs, tmp_path):
    root = shutil.copytree(pngs, tmp_path / "data")
    with h5py.File(root / "all.h5", "a") as file:
        file["other"] = file["ids"][:][::-1]
    source = {"class_path": "swinft.HDF5Source", "init_args": {"ids": "ids"}}
    one, _ = fit(root, tmp_path, "one", image="all.h5/pixels/{id}", **{"loading.source": source})
    other = {"class_path": "swinft.HDF5Source", "init_args": {"ids": "other"}}
    assert fit(root, tmp_path, "two", image="all.h5/pixels/{id}", **{"loading.source": other})[0] != one
