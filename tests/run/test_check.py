"""`swinft check`: what is wrong with the data, and what is worth knowing."""

import shutil

import pytest
from PIL import Image

from swinft.cli import main
from tests.conftest import tiny_config, write_config


@pytest.fixture
def root(competition, tmp_path):
    shutil.copytree(competition, tmp_path / "data")
    return tmp_path / "data"


def check(root, tmp_path, **changes) -> int:
    return main(
        ["check", "--config", str(write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **changes)))]
    )


def test_a_clean_table_is_summed_up(root, tmp_path, capsys):
    assert check(root, tmp_path) == 0
    out = capsys.readouterr().out
    for fact in ("rows: 24", "blue: 8", "test rows: 6", "JPEG 24", "smallest: 36×40"):
        assert fact in out
    assert "notes" not in out
    assert not (tmp_path / "runs" / "tiny").exists()


def test_every_problem_of_both_tables_and_of_the_images_is_listed_at_once(root, tmp_path, capsys):
    train = root / "train.csv"
    train.write_text(train.read_text().replace("003,red", "002,red").replace("004,green", "004,"))
    (root / "images" / "t1.jpg").rename(root / "images" / "t1.jpeg")
    assert check(root, tmp_path) == 2
    err = capsys.readouterr().err
    assert "3 problems with the data" in err
    assert "train.csv:5: id '002': the id is duplicated" in err
    assert "train.csv:6: id '004', column 'color'" in err
    assert "the folder has 't1.jpeg'" in err.lower()


def test_images_that_cannot_be_decoded_are_listed_with_their_rows(root, tmp_path, capsys):
    (root / "images" / "005.jpg").write_bytes((root / "images" / "005.jpg").read_bytes()[:200])
    (root / "images" / "t2.jpg").write_text("<!DOCTYPE html>")
    assert check(root, tmp_path) == 2
    err = capsys.readouterr().err
    assert "train.csv:7: id '005'" in err
    assert "test.csv:3: id 't2'" in err


def test_the_same_image_under_two_ids_is_named_with_its_folds(root, tmp_path, capsys):
    images = root / "images"
    # Another file, the same pixels: the name and the bytes differ.
    Image.open(images / "000.jpg").save(images / "001.png")
    (images / "001.png").rename(images / "001.jpg")
    shutil.copy(images / "002.jpg", images / "t3.jpg")
    assert check(root, tmp_path) == 0
    out = capsys.readouterr().out
    assert "ids 000, 001 are the same image" in out
    assert "their targets differ" in out
    assert "test id t3 is the same image as training id 002" in out


def test_the_same_image_in_two_folds_is_called_a_leak(root, tmp_path, capsys):
    shutil.copy(root / "images" / "000.jpg", root / "images" / "003.jpg")
    folds = tmp_path / "folds.csv"
    folds.write_text("id,fold\n" + "".join(f"{i:03d},{int(i >= 2) if i < 4 else i // 3 % 2}\n" for i in range(24)))
    assert check(root, tmp_path, **{"data.folds.file": str(folds)}) == 0
    out = capsys.readouterr().out
    assert "ids 000, 003 are the same image, in folds [0, 1], a leak in the out-of-fold score." in out
    assert "`data.folds.duplicates: group` keeps such rows in one fold" in out


def test_columns_are_found_in_either_unicode_form(competition, tmp_path, capsys):
    """Names that are copied from files of a Mac are decomposed: an accent is a character of its own."""
    names = {"id": "cle\u0301", "color": "espe\u0300ce", "brightness": "lumie\u0300re", "is_red": "fore\u0302t"}
    table = [
        {"csv": "train.csv"},
        {"rename": names},
        {"map": {"column": names["color"], "values": {"red": "Bl\u00fcte"}, "default": "keep"}},
    ]
    changes = {
        "data.train": table,
        "data.test": None,
        "data.sample_submission": None,
        "data.image": "images/{clé}.jpg",
        "data.id": names["id"],
        "data.target": names["color"],
        "data.columns": {"numeric_features": [names["brightness"]], "class_order": ["Blu\u0308te", "blue", "green"]},
        "data.folds": {"num": 2, "group": names["id"]},
    }
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(path)]) == 0, capsys.readouterr().err
