"""Steps on hostile tables: what is wrong is named with its place, and nothing passes silently."""

import os
import zipfile
from pathlib import Path

import pandas as pd
import pytest

import swinft
from swinft.data.tables.steps.make import made_sha256, read_given
from swinft.data.tables.steps.named import steps_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a.csv").write_text("id,group,x\n007,g1,1e5\n1e5,g2,0.10\n010,g1,\n")
    (tmp_path / "b.csv").write_text("group,word\ng1,one\ng2,two\n")
    return tmp_path


def made(root: Path, *steps: object) -> list[list[str]]:
    frame = swinft.read_table(list(steps), root)
    assert all(isinstance(cell, str) for cell in frame.to_numpy().ravel())
    return [list(frame.columns), *frame.to_numpy().tolist()]


def problems(root: Path, *steps: object) -> list[str]:
    """The problems of steps, without the folder."""
    with pytest.raises(swinft.DataError) as error:
        swinft.read_table(list(steps), root)
    return [str(each).replace(f"{root}/", "") for each in error.value.problems]


def refusal(*steps: object) -> str:
    with pytest.raises(swinft.InputError) as error:
        steps_of("data.train", list(steps))
    return str(error.value)


A = {"csv": "a.csv"}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{"fils": "x"}], "step 1: 'fils' is not a step. Did you mean 'files'?"),
        ([A, {"join": {"table": "b.csv", "onn": "id"}}], "step 2: join: it has no 'onn'. Did you mean 'on'?"),
        ([A, {"join": {"table": "b.csv"}}], "step 2: join: it needs on; its arguments are table, on, columns, how."),
        ([{"keep": ["id"]}], "step 1: keep changes a table, and there is none yet: start with csv"),
        ([A, A], "step 2: csv reads a table, and there is one already"),
        ([A, {"join": {"table": [{"keep": "x"}], "on": "id"}}], "step 2, join: table: step 1: keep changes a table"),
        (["csv"], "step 1: it is 'csv'; write one word with its arguments"),
        ([{"csv": "a.csv", "keep": "id"}], "it has the words csv, keep; write one word"),
        ([A, {"where": {"column": "x", "is": [True]}}], "is is True; write a text. Put in quotes"),
        ([A, {"where": {"column": "x", "is": ["a"], "is_empty": True}}], "it needs exactly one of is, is_not"),
        ([A, {"where": {"column": "x", "is_empty": "yes"}}], "is_empty is 'yes'; write true or false."),
        ([A, {"extract": {"column": "x", "pattern": "a"}}], "pattern 'a' has no named group"),
        ([A, {"extract": {"column": "x", "pattern": "(?P<a>"}}], "is not a regular expression"),
        ([A, {"rename": {"id": "x", "group": "x"}}], "it gives the name 'x' to two columns"),
        ([A, {"map": {"column": "x", "values": {}}}], "values is {}; write a mapping"),
        ([A, {"join": {"table": "b.csv", "on": "g", "how": "outer"}}], "how is 'outer'. Allowed: error, left, inner."),
        ([{"files": "train/a.jpg"}], "names no column"),
        ([{"files": "{a:[}.jpg"}], "has a wrong regular expression"),
        ([{"files": "{a/b}.jpg"}], "has a slash inside of braces"),
        ([{"files": "{a.jpg"}], "has a brace without its other one"),
        ([{"files": "x/{a}/../{b}.jpg"}], "'..' behind its first part"),
        ([{"files": "{path}.jpg"}], "names the column 'path', which is the whole path"),
        ([A, {"format": {"y": "{a"}}], "has a brace without its other one"),
        ([A, {"number": {"column": "n", "start": "1"}}], "start is '1'; write a whole number."),
        ([A, {"pivot": {"index": "id", "columns": "id", "values": "x"}}], "must be different columns"),
        ([A, {"melt": {"id": "id", "name": "id"}}], "must be different columns"),
        ([A, {"concat": "a.csv"}], "write a list of tables"),
        ([A, {"unique": []}], "columns is []"),
        ([A, {"keep": ["x", "x"]}], "contains 'x' twice"),
        ([{"csv": {"path": "a.csv", "encoding": "utf-9"}}], "encoding 'utf-9' is unknown"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_read(steps, said):
    assert said in refusal(*steps)


def test_all_wrong_steps_are_listed_together():
    assert len(refusal(A, {"kep": "x"}, {"number": {"column": "n", "start": 0.5}}, A).splitlines()) == 3


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{"csv": "c.csv"}], ["c.csv: the table: step 1, csv: there is no such file."]),
        ([A, {"keep": ["idd", "y*"]}], ["column 'idd': there is no such column", "column 'y*': no column matches it"]),
        ([A, {"rename": {"id": "x"}}], ["column 'x': the table already has a column of this name"]),
        ([A, {"map": {"column": "group", "values": {"g1": "1", "g": "2"}}}], ["a.csv:3: column 'group', value 'g2'"]),
        ([A, {"extract": {"column": "x", "pattern": "(?P<e>e)"}}], ["a.csv:3:", "a.csv:4: column 'x', value ''"]),
        ([A, {"where": {"column": "group", "is": "g3"}}], ["it keeps no row"]),
        ([A, {"format": {"y": "{x:03d}"}}], ["a.csv:2:", "a.csv:3:", "a.csv:4:"]),
        ([A, {"number": "id"}], ["column 'id': the table already has a column"]),
        ([A, {"join": {"table": "a.csv", "on": "group"}}], ["column 'id'", "column 'x'"]),
        (
            [A, {"join": {"table": [A, {"keep": ["group"]}, {"format": {"z": "{group}"}}], "on": "group"}}],
            ["a.csv:4: the table: step 2, join: the other table has the key 'g1' twice, so that rows would be"],
        ),
        (
            [A, {"join": {"table": "b.csv", "on": {"id": "group"}}}],
            ["a.csv:2: column 'id', value '007': the table: step 2, join: the other table has no such row"] + [""] * 2,
        ),
        ([A, {"join": {"table": "b.csv", "on": {"id": "group"}, "how": "left"}}], ["no row has a partner"]),
        ([A, {"pivot": {"index": [], "columns": "group", "values": "x"}}], None),
        ([A, {"pivot": {"index": "group", "columns": "group", "values": "x"}}], None),
        (
            [A, {"format": {"one": "1"}}, {"pivot": {"index": "one", "columns": "group", "values": "x"}}],
            ["a.csv:4: column 'x', value '': the table: step 3, pivot: there are two values of 'g1' for '1'. a.csv:2"],
        ),
    ],
)
def test_problems_of_a_step_are_listed_with_their_places(root, steps, said):
    if said is None:
        assert refusal(*steps)
        return
    found = problems(root, *steps)
    assert len(found) == len(said), found
    assert all(part in each for part, each in zip(said, found, strict=True)), found


def test_a_row_of_another_length_is_named_by_its_line(root):
    (root / "a.csv").write_text('id,x\n1,"a\nb"\n2,c,d\n3\n')
    assert [each.partition(": ")[0] for each in problems(root, A)] == ["a.csv:4", "a.csv:5"]


def test_text_of_any_kind_stays_as_it_is(root):
    assert made(root, A)[1:] == [["007", "g1", "1e5"], ["1e5", "g2", "0.10"], ["010", "g1", ""]]
    joined = made(root, A, {"join": {"table": "b.csv", "on": "group"}}, {"keep": ["id", "word", "x"]})
    assert joined[1:] == [["007", "1e5", "one"], ["1e5", "0.10", "two"], ["010", "", "one"]]


def test_a_join_keeps_the_order_and_number_of_its_rows_whatever_the_order_of_the_other_table(root):
    (root / "b.csv").write_text("group,word\ng9,none\ng2,two\n g1 ,one\n")
    steps = steps_of("data.train", [A, {"join": {"table": "b.csv", "on": "group"}}])
    assert read_given(steps, root, "id", {}, []).columns["word"] == ["one", "two", "one"]
    (root / "c.csv").write_text("id,group\n1,caf\u00e9\n")
    (root / "d.csv").write_text("group,word\ncafe\u0301,same\n")
    assert made(root, {"csv": "c.csv"}, {"join": {"table": "d.csv", "on": "group"}})[1][2] == "same"
    left = made(root, A, {"join": {"table": [{"csv": "b.csv"}, {"where": {"column": "word", "is": "two"}}], "on": "group", "how": "left"}})  # fmt: skip
    assert [row[-1] for row in left[1:]] == ["", "two", ""]
    inner = made(root, A, {"join": {"table": [{"csv": "b.csv"}, {"where": {"column": "word", "is": "two"}}], "on": "group", "how": "inner"}})  # fmt: skip
    assert inner[1:] == [["1e5", "g2", "0.10", "two"]]


def test_files_come_in_natural_order_from_folders_and_archives(root):
    names = ["cat.0", "cat.10", "cat.2", "a.b.1", ".hidden.3"]
    for name in names:
        (root / "train" / "x").mkdir(parents=True, exist_ok=True)
        (root / "train" / "x" / f"{name}.jpg").write_bytes(b"")
    (root / "train" / "x" / "Thumbs.db").write_bytes(b"")
    with zipfile.ZipFile(root / "t.zip", "w") as archive:
        for name in names:
            archive.writestr(f"train/x/{name}.jpg", b"")
    wanted = [["a", "b.1"], ["cat", "0"], ["cat", "2"], ["cat", "10"]]
    for folder in ("train/x", "train/{f}", "t.zip/train/x", "t.zip/{f}/x", "{z}.zip/train/*"):
        found = swinft.read_table([{"files": f"{folder}/{{label}}.{{number}}.jpg"}], root)
        assert found[["label", "number"]].to_numpy().tolist() == wanted, folder
        assert all((root / path).exists() or "t.zip" in path for path in found["path"])
    repeated = made(root, {"files": "train/{f}/{c:c..}.{n:[0-9]{1,2}}.jpg"})
    assert [row[:3] for row in repeated[1:]] == [["x", "cat", "0"], ["x", "cat", "2"], ["x", "cat", "10"]]
    assert "two files give the same row" in problems(root, {"files": "train/x/{c}.*.jpg"})[0]
    assert "no file fits the pattern. There is 'train/x/" in problems(root, {"files": "train/x/{c}.JPG"})[0]
    assert "There is no folder 'trian'" in problems(root, {"files": "trian/{c}.jpg"})[0]


def test_links_out_of_a_listed_folder_are_refused_unless_they_are_allowed(root):
    for place in ("out", "in/a"):
        (root / place).mkdir(parents=True)
    (root / "out" / "1.jpg").write_bytes(b"")
    (root / "in" / "a" / "2.jpg").write_bytes(b"")
    os.symlink(root / "out", root / "in" / "b")
    os.symlink(root / "out" / "1.jpg", root / "in" / "a" / "3.jpg")
    os.symlink(root / "in", root / "in" / "a" / "loop")
    steps = [{"files": "in/{folder}/{id}.jpg"}]
    assert len(problems(root, *steps)) == 2
    assert swinft.read_table(steps, root, follow_links=True)["id"].tolist() == ["2", "3", "1"]


def test_a_made_table_names_file_and_line_of_a_row(root):
    steps = steps_of("data.train", [A, {"concat": [[{"csv": "c.csv"}]]}, {"where": {"column": "id", "is_not": "007"}}])
    (root / "c.csv").write_text("id\n\n5\n5\n")
    found: list = []
    table = read_given(steps, root, "id", {}, found)
    assert [(table.file(row).name, int(table.lines[row])) for row in range(4)] == [
        ("a.csv", 3), ("a.csv", 4), ("c.csv", 3), ("c.csv", 4),
    ]  # fmt: skip
    assert str(found[0]).startswith(f"{root}/c.csv:4: id '5': the id is duplicated. Line 3 has it too")
    assert any("'x' is empty in 2 rows" in note for note in table.notes)
    missing: list = []
    assert read_given(steps, root, "id", {"label": "data.target"}, missing) is None
    assert str(missing[0]) == "data.train: column 'label': there is no such column. Change data.target. Allowed: id, group, x."  # fmt: skip


def test_the_hash_is_that_of_the_table_and_not_of_its_files(root):
    steps = steps_of("data.train", [A, {"keep": ["id"]}])
    before = made_sha256(steps, root, "utf-8", False)
    (root / "a.csv").write_text("id,other\n007,1\n1e5,2\n010,3\n")
    assert made_sha256(steps, root, "utf-8", False) == before
    (root / "a.csv").write_text("id,other\n7,1\n1e5,2\n010,3\n")
    assert made_sha256(steps, root, "utf-8", False) != before


class Doubled(swinft.TableStep):
    """Repeats cells."""

    calls = 0

    def __init__(self, how: str) -> None:
        self.how = how

    def apply(self, frame: pd.DataFrame, root: Path) -> pd.DataFrame:
        if self.how == "numbers":
            return frame.assign(x=1)
        if self.how == "list":
            return []
        if self.how == "fails":
            raise KeyError("x")
        if self.how == "other":
            Doubled.calls += 1
            return frame.assign(x=str(Doubled.calls))
        if self.how == "new":
            return pd.DataFrame({"id": ["n", None]})
        frame["x"] = frame["x"] + frame["x"]
        return frame[::-1]


def test_a_custom_step_keeps_places_and_must_return_text(root):
    steps = [A, Doubled("cells")]
    assert made(root, *steps)[1:] == [["010", "g1", ""], ["1e5", "g2", "0.100.10"], ["007", "g1", "1e51e5"]]
    table = read_given(steps_of("data.train", steps), root, "id", {}, [])
    assert [int(line) for line in table.lines] == [4, 3, 2]
    assert made(root, Doubled("new")) == [["id"], ["n"], [""]]
    for how, said in {
        "numbers": "column 'x' contains int, such as 1, and must be text",
        "list": "`apply` returns a list, and must return a DataFrame",
        "fails": "it fails with KeyError: 'x'",
        "other": "`apply` returns another table when it is called again",
    }.items():
        with pytest.raises(swinft.InputError, match=f"step 2, {Doubled.__module__}.Doubled: {said}"):
            swinft.read_table([A, Doubled(how)], root)
    nested = {"class_path": f"{__name__}.Doubled", "init_args": {"how": "new"}}
    assert made(root, {"concat": [[nested], "b.csv"]})[1] == ["n", "", ""]
