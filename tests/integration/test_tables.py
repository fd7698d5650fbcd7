"""What a table may hold: the forms of text, numbers and paths that exports, spreadsheets and people produce."""

import bz2
import csv
import gzip
import io
import lzma
import os
import re
import time
import zipfile
from pathlib import Path

import pytest

from swinft.data.sources.files import FileSource
from swinft.data.tables import csv_lines as csvfile
from swinft.data.tables.table import DataError, read_table
from swinft.data.tables.text import Spellings, TextRules, normal, strip, twin_key, twins


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "Cat "),
        ("café", "cafe\u0301"),
        ("Ａ１", "a1"),
        ("New York", "New\u00a0\u00a0york"),
        ("ab", "a\u200bb"),
        ("red", "'red'"),
        ("T-shirt", "t–shirt"),
        ("Straße", "STRASSE"),
        ("1", "01"),
        ("1", "1.0"),
        ("-1", "−1."),
        ("0.5", "0.50"),
        ("0", "-0.00"),
    ],
)
def test_f057_two_spellings_of_one_name_have_one_key(one, other):
    assert twin_key(one) == twin_key(other)
    assert twins([one, "x", other]) == [[one, other]]
    assert Spellings([one]).find(other) == one


@pytest.mark.parametrize(
    ("one", "other"), [("1", "10"), ("1e5", "100000"), ("a b", "ab"), ("1.05", "1.5"), ("-1", "1"), ("'", "''")]
)
def test_different_names_have_different_keys(one, other):
    assert twin_key(one) != twin_key(other)
    assert twins([one, other]) == []


def test_numbers_of_any_length_are_compared_digit_by_digit():
    assert twin_key("12345678901234567890123456789") != twin_key("12345678901234567890123456788")


def test_a_spelling_finds_a_name_only_where_one_name_can_be_meant():
    known = Spellings(["a", "A", "b"])
    assert [known.find(word) for word in ("a", "A", "B", " a", "c")] == ["a", "A", "b", None, None]


def test_blanks_of_every_kind_are_stripped_and_names_composed():
    assert strip("\u200b \u00a0x y\u3000\ufeff") == "x y"
    assert strip("cafe\u0301 ") == "cafe\u0301"
    assert normal("cafe\u0301 ") == "café"


def test_f055_missing_words_are_the_same_in_any_case_and_can_be_set():
    rules = TextRules()
    assert rules.missing(["NaN", "None", "", "x", "NaN"]) == {"NaN": 2, "None": 1, "": 1}
    assert TextRules(["?"]).missing(["?", "None", ""]) == {"?": 1, "": 1}


TRAIN = "id,label\n000,red\n001,blue\n"


def read(tmp_path, content, name="train.csv", id="id", required=("label",)):
    """The table and the problems of a CSV with this content, text or bytes."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    problems = []
    return read_table(path, id, dict.fromkeys(required, "data.target"), problems), problems


def zipped(**files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/") + ".csv", text)
    return content.getvalue()


def test_f054_blanks_around_cells_are_left_out_and_counted(tmp_path):
    table, problems = read(tmp_path, 'id, label\n000, red\n001,"blue\u00a0"\n002, "a, b"\n')
    assert problems == []
    assert (table.ids, table.column("label")) == (["000", "001", "002"], ["red", "blue", "a, b"])
    assert any("blanks around cells are stripped: 'label'" in note for note in table.notes)
    assert not any("blanks around cells" in note for note in read(tmp_path, TRAIN)[0].notes)


def test_f054_an_id_that_becomes_another_without_its_blanks_is_there_twice(tmp_path):
    _, problems = read(tmp_path, "id,label\n7,x\n 7\u200b,y\n")
    assert [(problem.line, problem.message) for problem in problems] == [(3, "the id is duplicated")]


@pytest.mark.parametrize("size", [131_073, 2_000_000])
def test_f059_a_long_cell_is_read(tmp_path, size):
    table, problems = read(tmp_path, f"id,label,mask\n000,red,{'1 ' * (size // 2)}\n")
    assert problems == []
    assert len(table.column("mask")[0]) > 131_000


def test_f059_a_long_cell_does_not_flood_the_message(tmp_path):
    _, problems = read(tmp_path, f"id,label\n{'x' * 200_000},red\n{'x' * 200_000},red\n")
    assert "(200,000 characters)" in str(problems[0])
    assert len(str(problems[0])) < 800


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (TRAIN.replace(",", ";"), "separated by semicolons"),
        (TRAIN.replace(",", "\t"), "separated by tabs"),
        (TRAIN.replace(",", "|"), "separated by bars"),
        (gzip.compress(TRAIN.encode(), mtime=0), "through gzip"),
        (bz2.compress(TRAIN.encode()), "through bz2"),
        (lzma.compress(TRAIN.encode()), "through xz"),
        (zipped(any=TRAIN), "through zip ('any.csv')"),
        (zipped(a=TRAIN, data__train=TRAIN), "through zip ('data/train.csv')"),
        (gzip.compress(TRAIN.replace(",", ";").encode("utf-8-sig"), mtime=0), "semicolons"),
    ],
)
def test_tables_are_known_by_their_content(tmp_path, content, note):
    table, problems = read(tmp_path, content)
    assert problems == []
    assert (table.ids, table.column("label")) == (["000", "001"], ["red", "blue"])
    assert any(note in line for line in table.notes)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (zipped(a=TRAIN, b=TRAIN), "the zip archive contains 2 files (a.csv, b.csv)"),
        (gzip.compress(b"\0" * 257 + b"ustar" + b"\0" * 500, mtime=0), "a tar archive"),
        (bz2.compress(TRAIN.encode())[:-8], "the bz2 file is damaged"),
        (b"\xd0\xcf\x11\xe0....", "an old Excel file"),
        (gzip.compress(b"<!DOCTYPE html>", mtime=0), "a web page"),
        (zipped(**{"[Content_Types]": ""}).replace(b"].csv", b"].xml"), "an Excel workbook"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, expected):
    table, problems = read(tmp_path, content)
    assert table is None
    assert expected in str(problems[0])


def test_an_archive_does_not_unpack_to_more_than_fits_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(csvfile, "MAX_BYTES", 1000)
    for content in (gzip.compress(b"x" * 5000, mtime=0), zipped(a="x" * 5000)):
        assert "unpacks to more than" in str(read(tmp_path, content)[1][0])


def test_a_column_that_is_not_used_may_be_there_twice(tmp_path):
    table, problems = read(tmp_path, ",id,label,x,x,\n0,000,red,1,2,\n")
    assert problems == []
    assert table.column("label") == ["red"]
    assert any("columns 1, 6 have no name" in note for note in table.notes)


def test_f108_a_folder_in_the_place_of_a_table_is_named_as_such(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "train.csv").write_text(TRAIN)
    problems = []
    assert read_table(tmp_path / "train", "id", {}, problems) is None
    assert "is a folder, not a file" in str(problems[0])
    assert "train/train.csv" in problems[0].fix


def test_f123_a_wrong_root_names_the_nearest_folder_that_is_there(tmp_path):
    (tmp_path / "petfinder").mkdir()
    problems = []
    assert read_table(tmp_path / "petfindr" / "data" / "train.csv", "id", {}, problems) is None
    assert f"There is no folder 'petfindr' in {tmp_path}. Did you mean 'petfinder'?" in problems[0].fix
    assert "relative" not in problems[0].fix


def paths(tmp_path, template, cells, files, name="file"):
    """What a template becomes with these cells and files: paths below the root, problems and notes."""
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    table, _ = read(tmp_path, f"id,{name}\n" + "".join(f"r{k},{cell}\n" for k, cell in enumerate(cells)), required=())
    problems, notes = [], []
    found = FileSource().references(table, template, tmp_path, problems, notes)
    return [os.path.relpath(path, tmp_path) for path in found], problems, notes


def test_f108_back_slashes_are_read_as_windows_writes_them(tmp_path):
    found, problems, notes = paths(
        tmp_path, "{file}", ["images\\a.jpg", "images/b.jpg"], ["images/a.jpg", "images/b.jpg"]
    )
    assert (found, problems) == (["images/a.jpg", "images/b.jpg"], [])
    assert any("1 paths contain back-slashes" in note for note in notes)


def test_f108_back_slashes_do_not_lead_out_of_the_folder(tmp_path):
    _, problems, _ = paths(tmp_path, "images/{file}", ["..\\secret.jpg"], ["secret.jpg", "images/a.jpg"])
    assert [problem.message for problem in problems] == ["the path leaves the images' folder"]


def test_f108_lost_zeros_are_hinted_at_and_written_by_the_template(tmp_path):
    files = ["images/001.jpg", "images/012.jpg"]
    _, problems, _ = paths(tmp_path, "images/{file}.jpg", ["1", "12"], files)
    assert len(problems) == 2
    assert "The folder has '001.jpg'" in problems[0].fix
    assert "{file:03d}" in problems[0].fix
    found, problems, _ = paths(tmp_path, "images/{file:03d}.jpg", ["1", "12"], files)
    assert (found, problems) == (files, [])
    _, problems, _ = paths(tmp_path, "images/{file:03d}.jpg", ["1", "x"], files)
    assert "pads whole numbers to 3 digits" in str(problems[0])


def test_file_names_in_another_unicode_form_are_found(tmp_path):
    found, problems, notes = paths(tmp_path, "images/{file}.jpg", ["caf\u00e9"], ["images/cafe\u0301.jpg"])
    assert (found, problems) == (["images/cafe\u0301.jpg"], [])
    assert any("another form of Unicode" in note for note in notes)


def test_f123_one_wrong_folder_is_one_problem_with_the_nearest(tmp_path):
    cells = [str(k) for k in range(40)]
    _, problems, _ = paths(tmp_path, "image/{file}.jpg", cells, ["images/0.jpg"])
    assert [problem.message for problem in problems] == ["the folder of 40 images is missing"]
    assert f"There is no folder 'image' in {tmp_path}. Did you mean 'images'?" in problems[0].fix
    assert problems[0].is_missing


def test_f123_missing_label_folders_are_one_problem_each(tmp_path):
    _, problems, _ = paths(tmp_path, "images/{file}/x.jpg", ["cat", "dog", "emu", "emu"], ["images/cat/x.jpg"])
    assert [problem.message for problem in problems] == [
        "the folder of 1 image is missing",
        "the folder of 2 images is missing",
    ]


def test_f108_absolute_windows_paths_are_named(tmp_path):
    _, problems, _ = paths(tmp_path, "images/{file}", ["C:\\data\\a.jpg", "C:\\data\\b.jpg"], ["images/a.jpg"])
    assert len(problems) == 1
    assert "is an absolute path" in problems[0].fix


def test_f108_cells_that_are_paths_or_hold_the_extension_are_named(tmp_path):
    _, problems, _ = paths(tmp_path, "images/{file}", ["images/a.jpg"], ["images/a.jpg"])
    assert "should the template be '{file}'?" in problems[0].fix
    _, problems, _ = paths(tmp_path, "images/{file}.jpg", ["a.jpg"], ["images/a.jpg"])
    assert "leave the extension out of the template" in problems[0].fix
    _, problems, _ = paths(tmp_path, "{file}", ["/kaggle/input/images/a.jpg"], ["images/a.jpg"])
    assert "is an absolute path" in problems[0].fix


def test_f108_all_missing_files_are_listed_in_a_file(tmp_path):
    _, problems, _ = paths(tmp_path, "images/{file}.jpg", range(40), ["images/x.jpg"])
    message = str(DataError(problems))
    assert "40 problems" in message
    listed = Path(re.search(r"All of them are listed in (\S+)", message)[1])
    rows = list(csv.DictReader(listed.open()))
    listed.unlink()
    assert [row["value"] for row in rows] == [str(tmp_path / "images" / f"{k}.jpg") for k in range(40)]
    assert "listed in" not in str(DataError(problems[:3]))


def test_200_000_rows_are_read_in_seconds(tmp_path):
    for k in range(1000):
        (tmp_path / f"{k:06d}.jpg").touch()
    content = "id,label,file\n" + "".join(f"{k}, c{k % 50},{k % 1001}\n" for k in range(200_000))
    started = time.process_time()
    table, problems = read(tmp_path, content)
    FileSource().references(table, "{file:06d}.jpg", tmp_path, problems)
    assert len(problems) == 199  # number 1000 has no file
    assert time.process_time() - started < 8


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1251", "utf-8"])
def test_utf_8_is_not_read_as_another_encoding(tmp_path, encoding):
    """Every class would be garbled, and the submission, which is written as UTF-8, with it."""
    (tmp_path / "a.csv").write_bytes("id,y\n1,rötlich\n2,grün\n".encode())
    problems = []
    table = read_table(tmp_path / "a.csv", "id", {"y": "data.target"}, problems, encoding)
    if encoding == "utf-8":
        assert table.names("y") == ["rötlich", "grün"]
        return
    assert table is None
    assert f"the text is UTF-8, and would be garbled if it were read as {encoding}" in str(problems[0])


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1251", "gb18030", "utf-16"])
def test_text_in_its_own_encoding_is_read(tmp_path, encoding):
    word = {"cp1251": "Зелёный", "gb18030": "红色"}.get(encoding, "grün")
    (tmp_path / "a.csv").write_bytes(f"id,y\n1,{word}\n".encode(encoding))
    problems = []
    assert read_table(tmp_path / "a.csv", "id", {"y": "data.target"}, problems, encoding).names("y") == [word]
    assert not problems
