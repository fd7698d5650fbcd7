"""The structure of a CSV: what pandas would bend into shape is an error that names the line."""

import gzip

import pytest

from swinft.data.tables.csv_lines import UnreadableError, read_lines
from swinft.data.tables.table import DataError, Problem, read_table

NEEDED = {"label": "data.target"}


def read(tmp_path, content, required=NEEDED):
    """The table and the problems of a CSV with this content, text or bytes."""
    path = tmp_path / "train.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    problems = []
    return read_table(path, "id", required, problems), problems


def test_cells_stay_text(tmp_path):
    ids = ["007", "7", "NA", "null", "1e5", "100000", "0709652336e2", "12345678901234567890123", "-", "é"]
    table, problems = read(tmp_path, "id,label\n" + "".join(f"{id},0{k}\n" for k, id in enumerate(ids)))
    assert problems == []
    assert table.ids == ids
    assert table.column("label")[:2] == ["00", "01"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_blank_lines_quotes_and_byte_order_mark(tmp_path, end):
    lines = ["id,label", "a,x", "", '"b,1","two', 'lines"', "c,z"]
    table, problems = read(tmp_path, b"\xef\xbb\xbf" + end.join(lines).encode())
    assert problems == []
    assert table.ids == ["a", "b,1", "c"]
    assert table.lines.tolist() == [2, 4, 6]
    assert table.column("label")[1] == f"two{end}lines"


@pytest.mark.parametrize(
    ("content", "line", "expected"),
    [
        (b"", None, "the file is empty"),
        (b"id,label\n", None, "no row"),
        (b"sep=,\nid,label\n", 1, "`sep=`"),
        (b"id,label\na,x\nb,x,y\n", 3, "the row has 3 fields, the header 2"),
        (b"id,label\na\n", 2, "the row has 1 field, the header 2"),
        (b"id,label\na,x\n,\n", 3, "the id is empty"),
        (b"id,label,label\na,x,y\n", 1, "names the column twice"),
        (b"id,Label\na,x\n", 1, "Change data.target. Did you mean 'Label'?"),
        (b'id,label\na,x\nb,"x\nc,x\n', 3, "the CSV is broken"),
        (b"id,label\na\x00b,x\n", None, "NUL"),
        (b'id,label\n"a\nb",x\n', 2, "control character"),
        (b"id,label\na,x\nb,x\na,y\n", 4, "Line 2 has it too"),
        (b"id,label\na,x\nb,caf\xe9\n", 3, "Windows-1252"),
        ("id,label\na,x\n".encode("utf-16"), None, "UTF-16"),
        ("id,label\na,x\n".encode("utf-16-le"), None, "UTF-16"),
        (gzip.compress(b"id,label\na,x\n", mtime=0)[:-9], None, "the gzip file is damaged"),
        (b"PK\x03\x04....", None, "the zip file is damaged"),
        (b"PAR1....", None, "Parquet"),
        (b'[{"id": 1}]', None, "JSON"),
        (b"<!DOCTYPE html><html>", None, "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", None, "git lfs pull"),
    ],
)
def test_bad_structure_is_named(tmp_path, content, line, expected):
    _, problems = read(tmp_path, content)
    assert len(problems) == 1, problems
    assert expected in str(problems[0])
    assert problems[0].line == line
    assert problems[0].file == str(tmp_path / "train.csv")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "U16"])
def test_an_encoding_with_a_byte_order_mark_needs_one(tmp_path, encoding):
    path = tmp_path / "train.csv"
    path.write_bytes("id,label\na,x\n".encode("utf-32-le" if "32" in encoding else "utf-16-le"))
    with pytest.raises(UnreadableError, match="no byte order mark"):
        read_lines(path, ["id"], encoding)
    path.write_bytes("id,label\na,x\n".encode(encoding))
    assert read_lines(path, ["id"], encoding).cells == [["a", "x"]]


def test_a_missing_file_suggests_the_nearest(tmp_path):
    (tmp_path / "trian.csv").touch()
    problems = []
    assert read_table(tmp_path / "train.csv", "id", {}, problems) is None
    assert "trian.csv" in problems[0].fix
    assert problems[0].is_missing


def test_problems_of_all_rows_are_listed(tmp_path):
    _, problems = read(tmp_path, "id,label\na,x\na,x\n,x\nb\nc,x,y\n")
    assert sorted(problem.line for problem in problems) == [3, 4, 5, 6]


def test_a_problem_says_where_what_and_how_to_mend_it():
    problem = Problem("train.csv", "the cell is empty", "Write a number.", 12, "007", "age", "")
    assert str(problem) == "train.csv:12: id '007', column 'age', value '': the cell is empty. Write a number."


def test_many_problems_of_one_kind_do_not_hide_another():
    many = [Problem("t.csv", "the image file is missing", "Get it.", line, is_missing=True) for line in range(9912)]
    error = DataError([*many, Problem("t.csv", "there is no such column", "Name one.")], download="kaggle download x")
    message = str(error)
    assert message.startswith("9,913 problems with the data:")
    assert "there is no such column" in message
    assert "and 9,907 more: t.csv: the image file is missing" in message
    assert len(message.splitlines()) < 12
    assert message.endswith("To get the data:\nkaggle download x")
    assert len(error.problems) == 9913


def test_twenty_problems_are_shown_at_most_and_all_are_counted():
    message = str(DataError([Problem("t.csv", f"kind {kind}", "Mend.") for kind in range(30)], download="kaggle"))
    assert message.count("Mend.") == 20
    assert message.count("and 1 more: ") == 10
    assert "kaggle" not in message  # no file is missing
