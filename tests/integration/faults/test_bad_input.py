"""Every way a CSV or an image is known to be bad, one by one, through `swinft check`.

A case is a group of the catalogue (C for CSVs, I for images), what is done to a healthy competition, and what must come
of it: the exit code, and words that the output must hold.
"""

import gzip
import os
import re
import shutil
import signal
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from swinft.cli import main
from swinft.data.datamodule import CSVDataModule
from swinft.data.images.decode import decode
from swinft.data.images.rules import ImageRules
from swinft.data.loading import dataset as batches
from swinft.data.schema import Schema
from swinft.data.sources.source import ImageError
from swinft.data.tables.table import read_table
from swinft.inference.predictions import Predictions
from swinft.model.metrics import traits_of
from swinft.run.submission.decide import plan_submission
from swinft.run.submission.plan import SubmissionConfig, build_submission
from swinft.run.submission.sample import Sample
from tests.conftest import tiny_config, write_config

ONE = "005"  # the id that most cases break; line 7 of train.csv


@dataclass(frozen=True)
class Case:
    """One row of the catalogue, in one of its forms."""

    group: str
    name: str
    harm: Callable[[Path], object]
    code: int
    says: tuple[str, ...] = ()
    changes: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.group}-{self.name}"


def train(root: Path) -> Path:
    return root / "train.csv"


def rewrite(change: Callable[[str], str]) -> Callable[[Path], object]:
    """Changes the text of train.csv."""
    return lambda root: train(root).write_text(change(train(root).read_text()), newline="")


def lines(change: Callable[[int, str], str]) -> Callable[[Path], object]:
    """Changes every line of train.csv; line 0 is the header."""
    return rewrite(lambda text: "".join(f"{change(i, line)}\n" for i, line in enumerate(text.splitlines())))


def swap(old: str, new: str) -> Callable[[Path], object]:
    return rewrite(lambda text: text.replace(old, new))


def rename(*ids: str) -> Callable[[Path], object]:
    """Gives the first rows other ids, and their images other names."""

    def harm(root: Path) -> None:
        for old, new in zip(("000", "001", "002", "003"), ids, strict=False):
            (root / "images" / f"{old}.jpg").rename(root / "images" / f"{new}.jpg")
            train(root).write_text(train(root).read_text().replace(f"\n{old},", f"\n{new},"))

    return harm


def content(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Changes the bytes of one image."""
    return lambda root: image(root).write_bytes(change(image(root).read_bytes()))


def image(root: Path) -> Path:
    return root / "images" / f"{ONE}.jpg"


def resaved(save: Callable[[Image.Image, Path], object]) -> Callable[[Path], object]:
    """Writes one image anew in another way."""
    return lambda root: save(Image.open(image(root)).convert("RGB"), image(root))


def grow(text: str, fields: str) -> str:
    return f"{text},{fields}"


REGRESSION = {
    "data.target": "brightness",
    "data.target_kind": "regression",
    "data.sample_submission": None,
    "model.head": {"class_path": "swinft.RegressionHead"},
}
LABELS = {
    "data.target": "tags",
    "data.target_kind": "multilabel",
    "data.columns.label_delimiter": " ",
    "model.head": {"class_path": "swinft.MultilabelHead"},
}
CSV_CASES = [
    Case("C1", "bom", lambda r: train(r).write_bytes(b"\xef\xbb\xbf" + train(r).read_bytes()), 0, ("rows: 24",)),
    Case(
        "C2",
        "utf16",
        lambda r: train(r).write_text(train(r).read_text(), encoding="utf-16"),
        2,
        ("UTF-16", "data.columns.encoding"),
    ),
    Case(
        "C2",
        "utf16-named",
        lambda r: [path.write_text(path.read_text(), encoding="utf-16") for path in r.glob("*.csv")],
        0,
        ("rows: 24",),
        {"data.columns.encoding": "utf-16"},
    ),
    Case(
        "C2",
        "latin",
        lambda r: train(r).write_bytes(train(r).read_bytes().replace(b"warm", b"\xe9t\xe9", 1)),
        2,
        ("train.csv:2: byte", "is not UTF-8", "cp1252"),
    ),
    Case(
        "C2",
        "latin-named",
        lambda r: train(r).write_bytes(train(r).read_bytes().replace(b"warm", b"\xe9t\xe9", 1)),
        0,
        ("rows: 24",),
        {"data.columns.encoding": "cp1252"},
    ),
    Case(
        "C2",
        "gzip",
        lambda r: train(r).write_bytes(gzip.compress(train(r).read_bytes())),
        0,
        ("rows: 24", "read through gzip"),
    ),
    Case("C3", "crlf", rewrite(lambda t: t.replace("\n", "\r\n")), 0, ("rows: 24",)),
    Case("C3", "cr", rewrite(lambda t: t.replace("\n", "\r")), 0, ("rows: 24",)),
    Case("C3", "blank-lines", rewrite(lambda t: t.replace("\n", "\n\n")), 0, ("rows: 24",)),
    Case("C4", "empty", rewrite(lambda t: ""), 2, ("train.csv: the file is empty",)),
    Case("C4", "header-only", rewrite(lambda t: t.splitlines()[0] + "\n"), 2, ("a header but no row",)),
    Case(
        "C5",
        "semicolons",
        rewrite(lambda t: t.replace(",", ";")),
        0,
        ("rows: 24", "train.csv: the fields are separated by semicolons"),
    ),
    Case("C5", "tabs", rewrite(lambda t: t.replace(",", "\t")), 0, ("rows: 24", "separated by tabs")),
    Case("C5", "excel", rewrite(lambda t: "sep=,\n" + t), 2, ("Excel's `sep=`",)),
    Case("C6", "leading-zeros", rename("007x", "7x"), 0, ("rows: 24",)),
    Case("C7", "null-words", rename("NA", "null", "nan", "None"), 0, ("rows: 24",)),
    Case("C8", "equal-as-numbers", rename("1e5", "100000", "1.0", "1"), 0, ("rows: 24",)),
    Case("C9", "23-digits", rename("12345678901234567890123", "12345678901234567890124"), 0, ("rows: 24",)),
    Case(
        "C10",
        "header",
        swap("brightness", "color"),
        2,
        ("train.csv:1: column 'color': the header names the column twice",),
    ),
    Case(
        "C11",
        "one-field-more",
        lines(lambda i, t: grow(t, "x") if i else t),
        2,
        ("24 problems", "train.csv:2: the row has 7 fields, the header 6"),
    ),
    Case("C12", "longer", lines(lambda i, t: grow(t, "x") if i == 3 else t), 2, ("train.csv:4: the row has 7 fields",)),
    Case(
        "C12",
        "shorter",
        lines(lambda i, t: t.rpartition(",")[0] if i == 3 else t),
        2,
        ("train.csv:4: the row has 5 fields",),
    ),
    Case("C13", "trailing-comma", lines(lambda i, t: f"{t},"), 0, ("column 7 has no name",)),
    Case("C13", "saved-index", lines(lambda i, t: f"{i or ''},{t}"), 0, ("column 1 has no name (a saved index?)",)),
    Case("C13", "hides-a-column", swap("id,color", "id,"), 2, ("column 'color': there is no such column",)),
    Case("C14", "header", swap("id,color", "id, color "), 0, ("the header's ' color ' is read without its blanks",)),
    Case("C14", "label", swap("000,red", "000, Red"), 2, ("'Red' and 'red' differ only by case, blanks",)),
    Case("C15", "missing", swap("id,color", "id,colour"), 2, ("Change data.target. Did you mean 'colour'?",)),
    Case("C15", "extra", lines(lambda i, t: grow(t, "new" if not i else "1")), 0, ("rows: 24",)),
    *(
        Case(
            "C16",
            f"target-{cell or 'empty'}",
            lines(lambda i, t, c=cell: re.sub(r",35,", f',"{c}",', t)),
            2,
            ("train.csv:7: id '005', column 'brightness'",),
            REGRESSION,
        )
        for cell in ("NaN", "inf", "1e400", "1,234", "bright", "")
    ),
    Case(
        "C16",
        "skipped",
        swap(",35,", ",,"),
        0,
        ("not scored", "no target: 1"),
        {**REGRESSION, "data.columns.on_missing_target": "skip"},
    ),
    Case(
        "C17",
        "whole-numbers-as-floats",
        rewrite(lambda t: t.replace("red", "1").replace("green", "2.0").replace("blue", "2")),
        2,
        ("'2' and '2.0' differ only by",),
    ),
    Case(
        "C18",
        "same-label",
        swap("\n003,", "\n000,"),
        2,
        ("train.csv:5: id '000': the id is duplicated. Line 2 has it too",),
    ),
    Case("C18", "other-label", swap("\n001,", "\n000,"), 2, ("train.csv:3: id '000': the id is duplicated",)),
    Case("C19", "nul", swap("\n001,", "\n0\x0001,"), 2, ("NUL",)),
    Case("C19", "newline-in-id", swap("\n001,", '\n"0\n01",'), 2, ("the id contains a control character",)),
    Case("C19", "unclosed-quote", swap("\n020,", '\n"020,'), 2, ("train.csv:22: the CSV is broken",)),
    Case(
        "C20",
        "parent",
        swap("\n001,", "\n../001,"),
        2,
        ("train.csv:3: id '../001'", "the path leaves the images' folder"),
    ),
    Case("C20", "absolute", swap("\n001,", "\n/etc/passwd,"), 2, ("id '/etc/passwd'",)),
    Case("C20", "home", swap("\n001,", "\n~/001,"), 2, ("id '~/001'", "missing")),
    Case("C20", "drive", swap("\n001,", "\nC:\\001,"), 2, (r"id 'C:\\001'", "missing")),
    Case(
        "C20",
        "link",
        lambda r: (image(r).unlink(), image(r).symlink_to("/etc/passwd")),
        2,
        ("a link that leaves the images' folder",),
    ),
    Case("C21", "case", rename("a", "A"), 0, ("are equal on some file systems: 'a' and 'A'",)),
    Case("C21", "accents", rename("e\u0301", "\u00e9"), 0, ("are equal on some file systems",)),
    Case(
        "C22",
        "unknown-class",
        lambda r: (r / "test.csv").write_text("id,color\n" + "".join(f"t{i},pink\n" for i in range(1, 7))),
        2,
        ("test.csv:2: id 't1', column 'color', value 'pink': the training table has no such class",),
    ),
    Case(
        "C23",
        "rare",
        swap("000,red", "000,pink"),
        2,
        ("value 'pink': the class has fewer rows than the 2 folds", "data.folds.rare_classes to train"),
    ),
    Case(
        "C23", "rare-trained", swap("000,red", "000,pink"), 0, ("in no fold: 1",), {"data.folds.rare_classes": "train"}
    ),
    Case(
        "C24",
        "too-few-groups",
        swap("color", "color"),
        2,
        ("all rows of the class are of one group", "3 problems"),
        {"data.folds.num": 4, "data.folds.group": "color", "data.target": "label2", "data.sample_submission": None},
    ),
    Case(
        "C24",
        "fold-without-class",
        swap("color", "color"),
        2,
        ("value 'blue': all rows of the class are of one group, which is in one fold",),
        {"data.folds.group": "color", "data.target": "label2", "data.sample_submission": None},
    ),
    Case(
        "C25",
        "single-class",
        lines(lambda i, t: re.sub("green|blue", "red", t, count=1) if i else t),
        2,
        ("all rows have the class ['red']",),
    ),
    Case(
        "C25",
        "constant",
        lines(lambda i, t: re.sub(r",\d+,", ",7,", t, count=1)),
        2,
        ("all rows have the same number",),
        REGRESSION,
    ),
    Case(
        "C25",
        "fewer-rows-than-folds",
        rewrite(lambda t: "\n".join(t.splitlines()[:4]) + "\n"),
        2,
        ("fewer rows than the 5 folds",),
        {"data.folds.num": 5},
    ),
    Case("C26", "empty-group", swap(",cool\n006", ",\n006"), 2, ("the group is empty",), {"data.folds.group": "tags"}),
    Case(
        "C26",
        "group-in-two-folds",
        lambda r: (r / "folds.csv").write_text("id,fold\n" + "".join(f"{i:03d},{i // 3 % 2}\n" for i in range(24))),
        2,
        ("group 'red' is in more than one fold",),
        {"data.folds.group": "color", "data.folds.file": "folds.csv"},
    ),
    Case(
        "C27",
        "missing-id",
        lambda r: (r / "test.csv").write_text("id\nt1\nt2\n"),
        2,
        ("sample_submission.csv:2: id 't3'", "has no such id"),
    ),
    Case(
        "C27",
        "extra-id",
        lambda r: (r / "sample_submission.csv").write_text("id,color\nt1,red\n"),
        2,
        ("test.csv:3: id 't2'",),
    ),
    Case(
        "C28",
        "doubled-label",
        swap("cool plant", "cool cool"),
        2,
        ("a label is empty or repeated",),
        {**LABELS, "data.sample_submission": None},
    ),
    Case(
        "C28",
        "empty-label",
        swap("cool plant", "cool  plant"),
        2,
        ("a label is empty or repeated",),
        {**LABELS, "data.sample_submission": None},
    ),
    Case(
        "C30",
        "endless-field",
        swap("\n001,", f'\n"{"x" * 200_000}",'),
        2,
        ("train.csv:3: id 'xxx", "(200,000 characters)", "the image file is missing"),
    ),
]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def claims(width: int, height: int) -> bytes:
    """A tiny PNG that claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def break_crc(data: bytes) -> bytes:
    place = data.index(b"IDAT") + 30
    return data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]


def png(path: Path) -> bytes:
    Image.open(path).save(path, "PNG")
    return path.read_bytes()


def save_as(kind: str, **options: object) -> Callable[[Path], object]:
    return resaved(lambda image, path: image.save(path, kind, **options))


def convert(mode: str, kind: str = "PNG") -> Callable[[Path], object]:
    return resaved(lambda image, path: image.convert(mode).save(path, kind))


def cut(kind: str, share: float) -> Callable[[Path], object]:
    def harm(root: Path) -> None:
        save_as(kind)(root)
        image(root).write_bytes(image(root).read_bytes()[: int(share * image(root).stat().st_size)])

    return harm


def exif(turn: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = turn
    return data


def array(values: np.ndarray, suffix: str) -> Callable[[Path], object]:
    def harm(root: Path) -> None:
        made = image(root).with_suffix(suffix)
        cv2.imwrite(str(made), values)
        made.replace(image(root))

    return harm


NAMED = f"train.csv:7: id '{ONE}': the image cannot be used"
SKIP = {"data.loading.on_bad_image": "skip"}
NOISE = np.random.default_rng(0).integers(0, 65536, (40, 36, 3), dtype=np.uint16)
IMAGE_CASES = [
    Case("I1", "missing", lambda r: image(r).unlink(), 2, (f"train.csv:7: id '{ONE}'", "the image file is missing")),
    Case("I1", "missing-is-never-skipped", lambda r: image(r).unlink(), 2, ("the image file is missing",), SKIP),
    Case(
        "I1",
        "dangling",
        lambda r: (image(r).unlink(), image(r).symlink_to("nowhere")),
        2,
        ("the image file is missing",),
    ),
    Case("I1", "folder", lambda r: (image(r).unlink(), image(r).mkdir()), 2, ("the image file is missing",)),
    Case(
        "I1",
        "other-extension",
        lambda r: image(r).rename(image(r).with_suffix(".JPEG")),
        2,
        (f"The folder has '{ONE}.JPEG'",),
    ),
    Case("I2", "empty", content(lambda b: b""), 2, (NAMED, "is empty")),
    Case("I2", "web-page", content(lambda b: b"<!DOCTYPE html><html>"), 2, (NAMED, "is a web page")),
    Case("I2", "lfs", content(lambda b: b"version https://git-lfs.github.com/spec/v1\n"), 2, (NAMED, "git lfs pull")),
    Case("I2", "svg", content(lambda b: b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 2, (NAMED, "is an SVG")),
    Case(
        "I2",
        "skipped",
        content(lambda b: b"<!DOCTYPE html><html>"),
        0,
        (f"id {ONE} is skipped:", "is a web page", "bad image: 1"),
        SKIP,
    ),
    *(
        Case("I3", f"{kind.lower()}-{share}", cut(kind, share), 2, (NAMED,))
        for kind in ("JPEG", "PNG", "WEBP")
        for share in (0.2, 0.5, 0.9)
    ),
    Case("I3", "skipped", cut("JPEG", 0.5), 0, (f"id {ONE} is skipped:", "bad image: 1"), SKIP),
    Case("I4", "two-bytes-short", content(lambda b: b[:-2]), 2, (NAMED,)),
    Case("I6", "png-checksum", lambda r: image(r).write_bytes(break_crc(png(image(r)))), 2, (NAMED, "damaged")),
    Case("I7", "16-bit-grey", array(NOISE[:, :, 0], ".png"), 0, ("I;16 1",)),
    Case("I8", "16-bit-colour", array(NOISE, ".png"), 0, ("rows: 24",)),
    Case("I9", "float-tiff", array(NOISE[:, :, 0].astype(np.float32), ".tiff"), 2, (NAMED, "floating-point")),
    *(
        Case("I10", mode, convert(mode, "JPEG" if mode == "CMYK" else "PNG"), 0, (f"{mode} 1",))
        for mode in ("CMYK", "L", "LA", "P", "1")
    ),
    Case("I11", "transparent", convert("RGBA"), 0, ("RGBA 1",)),
    Case("I12", "turned", save_as("JPEG", exif=exif(6)), 0, ("rotated by EXIF: 1",)),
    Case(
        "I13",
        "animated",
        save_as("WEBP", save_all=True, append_images=[Image.new("RGB", (36, 40))]),
        0,
        ("animated, first frame used: 1",),
    ),
    Case(
        "I13",
        "animated-refused",
        save_as("WEBP", save_all=True, append_images=[Image.new("RGB", (36, 40))]),
        2,
        (NAMED, "more than one frame"),
        {"data.loading.image_rules": {"animated": "error"}},
    ),
    Case(
        "I14",
        "heic",
        content(lambda b: b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00"),
        2,
        (NAMED, "is HEIC or video; convert it to JPEG"),
    ),
    Case("I15", "webp", save_as("WEBP"), 0, ("WEBP 1",)),
    Case("I15", "avif", save_as("AVIF"), 0, ("AVIF 1",)),
    Case("I16", "png-named-jpg", save_as("PNG"), 0, ("named for another format: 1",)),
    Case("I17", "100-megapixels", content(lambda b: claims(10_000, 10_000)), 2, (NAMED, "more than 64 megapixels")),
    Case("I18", "bomb", content(lambda b: claims(40_000, 40_000)), 2, (NAMED, "more than 64 megapixels")),
    Case(
        "I19",
        "one-pixel",
        resaved(lambda p, path: p.resize((1, 1)).save(path)),
        2,
        (NAMED, "shorter than data.loading.image_rules.min_side"),
    ),
    Case(
        "I19",
        "a-line",
        resaved(lambda p, path: p.resize((2000, 5)).save(path)),
        2,
        (NAMED, "data.loading.image_rules.max_aspect"),
    ),
    Case(
        "I19",
        "allowed",
        resaved(lambda p, path: p.resize((1, 1)).save(path)),
        0,
        ("smallest: 1×1",),
        {"data.loading.image_rules": {"min_side": 1}},
    ),
    Case("I19", "skipped", resaved(lambda p, path: p.resize((1, 1)).save(path)), 0, ("bad image: 1",), SKIP),
    Case("I20", "trailing-garbage", content(lambda b: b + b"garbage" * 9), 0, ("rows: 24",)),
    Case(
        "I21",
        "same-pixels",
        lambda r: Image.open(r / "images" / "000.jpg").save(image(r), "PNG"),
        0,
        ("ids 000, 005 are the same image", "their targets differ"),
    ),
    Case("I21", "near", lambda r: make_near(r), 0, ("ids 004, 005 look alike",)),
    Case(
        "I21",
        "near-refused",
        lambda r: make_near(r),
        2,
        ("in more than one fold", "ids 004, 005 look alike"),
        {"data.folds.duplicates": "error", "data.folds.file": "folds.csv"},
    ),
    Case(
        "I21",
        "near-grouped",
        lambda r: make_near(r),
        0,
        ("ids 004, 005 look alike", "all in fold"),
        {"data.folds.duplicates": "group"},
    ),
]


def make_near(root: Path) -> None:
    """Gives two rows one image in two sizes and qualities, and a folds.csv that tears them apart."""
    waves = np.add.outer(np.sin(np.arange(80) / 7), np.cos(np.arange(80) / 11)) + np.eye(80)[::-1]
    photo = Image.fromarray(np.uint8(60 * (waves + 2))).convert("RGB")
    photo.save(root / "images" / "004.jpg", quality=95)
    photo.resize((50, 50)).save(image(root), quality=60)
    (root / "folds.csv").write_text("id,fold\n" + "".join(f"{i:03d},{(i // 3 + (i == 5)) % 2}\n" for i in range(24)))


@pytest.fixture
def root(competition, tmp_path):
    """A copy of the competition with a column of groups and one of labels that go with the colours."""
    copy = tmp_path / "data"
    shutil.copytree(competition, copy)
    return copy


def check(root: Path, **changes: object) -> int:
    config = tiny_config(root, root.parent / "runs", **changes)
    return main(["check", "--config", str(write_config(root.parent / "c.yaml", config))])


@pytest.mark.parametrize("case", [*CSV_CASES, *IMAGE_CASES], ids=str)
def test_it_behaves_as_the_catalogue_says(case, root, monkeypatch, capsys):
    monkeypatch.chdir(root)  # for data.folds.file
    if case.group == "C24":
        table = train(root).read_text().splitlines()
        grown = [grow(t, f"g{i % 8},{t.split(',')[1]}" if i else "group,label2") for i, t in enumerate(table)]
        train(root).write_text("\n".join(grown) + "\n")
    case.harm(root)
    assert check(root, **case.changes) == case.code
    out, err = capsys.readouterr()
    for words in case.says:
        assert words in (err if case.code else out)
    assert "Traceback" not in out + err


def test_c24_folds_hold_groups_together_and_every_class(root):
    table = train(root).read_text().splitlines()
    train(root).write_text("\n".join(grow(t, f"g{i % 8}" if i else "group") for i, t in enumerate(table)) + "\n")
    data = CSVDataModule(
        root=str(root),
        train="train.csv",
        image="images/{id}.jpg",
        target="color",
        target_kind="classification",
        folds={"group": "group", "num": 4},
    )
    data.setup("fit")
    folds = data.fold_of_row.tolist()
    assert {folds.index(k) >= 0 for k in range(4)} == {True}
    assert len({(f"g{(i + 1) % 8}", fold) for i, fold in enumerate(folds)}) == 8


def test_c25_uneven_classes_are_noted(root, capsys):
    rows = train(root).read_text().splitlines()
    many = [re.sub(r"^\d+,\w+", f"x{i},red", rows[1]) for i in range(1000)]
    for i in range(1000):
        os.link(root / "images" / "000.jpg", root / "images" / f"x{i}.jpg")
    train(root).write_text("\n".join([*rows, *many]) + "\n")
    assert check(root) == 0
    assert "the classes are uneven: 'red' has 1,008 rows, 'blue' 8" in capsys.readouterr().out


def test_c29_a_changed_csv_is_refused_at_resume(root, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **{"trainer.max_epochs": 1}))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    swap("000,red", "000,blue")(root)
    assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 2
    assert "was started with other data" in capsys.readouterr().err


def test_c30_a_huge_table_is_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,x\n" + "".join(f"{i},1\n" for i in range(200_000)))
    problems = []
    assert len(read_table(path, "id", {}, problems)) == 200_000
    assert problems == []


def test_c31_formulas_come_back_as_they_were():
    ids = ["=cmd()", "+1", "@x", "-2"]
    table = Predictions(ids, np.ones((4, 1), dtype=np.float32), ["y"])
    sample = Sample("s.csv", "id", ["id", "y"], ids[::-1])
    plan = plan_submission(sample, Schema("regression", ["y"]), traits_of("rmse"), SubmissionConfig())
    built, _ = build_submission(plan, table)
    assert built["id"].tolist() == ids[::-1]


@pytest.mark.parametrize("change", [{}, {"data.loading.num_workers": 1}], ids=["here", "worker"])
def test_i5_and_i22_an_image_that_changes_after_the_start_is_named(change, root, tmp_path, capsys):
    config = write_config(
        tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **{"trainer.max_epochs": 1, **change})
    )
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    resaved(lambda p, path: p.rotate(90).save(path))(root)
    capsys.readouterr()
    assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 2
    assert f"train.csv:7: id '{ONE}': the image is not that of the run's start" in capsys.readouterr().err


def test_i5_a_copy_with_other_times_is_the_same(root, tmp_path):
    config = write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **{"trainer.max_epochs": 1}))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    for path in (root / "images").iterdir():
        os.utime(path, (1, 1))
    assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 0


def test_i11_and_i12_transparency_and_turning_are_a_choice(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (12, 8), (0, 0, 0, 0)).save(path)
    assert (decode(path) == 255).all()
    assert (decode(path, ImageRules(background=(9, 9, 9))) == 9).all()
    Image.new("RGB", (12, 8)).save(path, exif=exif(6))
    assert decode(path).shape == (12, 8, 3)
    assert decode(path, ImageRules(apply_exif=False)).shape == (8, 12, 3)


def test_i22_an_image_that_vanishes_while_training_is_named(root):
    data = CSVDataModule(
        root=str(root),
        train="train.csv",
        image="images/{id}.jpg",
        target="color",
        target_kind="classification",
        folds={"num": 2},
    )
    data.setup("fit")
    image(root).unlink()
    with pytest.raises(ImageError, match=f"train.csv:7: id '{ONE}'.*cannot be read"):
        [list(loader) for loader in (data.train_dataloader(), data.val_dataloader())]


def test_i23_the_decoder_is_pillow_and_opencv_is_new_enough():
    assert tuple(map(int, version("opencv-python-headless").split(".")[:2])) >= (4, 12)
    assert not hasattr(batches, "cv2")


def test_i24_a_loader_process_that_dies_is_explained(root, tmp_path, monkeypatch, capsys):
    config = write_config(
        tmp_path / "c.yaml",
        tiny_config(root, tmp_path / "runs", **{"data.loading.num_workers": 1, "data.loading.cache": False}),
    )
    parent, real = os.getpid(), batches.load_image

    def crash(*given):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given)

    monkeypatch.setattr(batches, "load_image", crash)
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 1
    err = capsys.readouterr().err
    assert "fold 0: DataLoader worker" in err
    assert "add --data.loading.num_workers 0" in err


def test_every_group_of_both_catalogues_has_a_case():
    cases = {case.group for case in (*CSV_CASES, *IMAGE_CASES)}
    named = set(re.findall(r"[ci]\d+", " ".join(name for name in globals() if name.startswith("test_"))))
    covered = cases | {name.upper() for name in named}
    wanted = {f"C{i}" for i in range(1, 32)} | {f"I{i}" for i in range(1, 25)}
    assert wanted - covered == set()
    assert len([*CSV_CASES, *IMAGE_CASES]) >= 100
