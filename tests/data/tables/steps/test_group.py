"""One row of several: numbers keep their digits, differences and empty groups are counted."""

from pathlib import Path

import pytest

import swinft
from swinft.data.tables.steps.make import read_given
from swinft.data.tables.steps.named import steps_of
from tests.data.tables.steps.test_make import problems


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = ["p2,2020,b,1.50", "p1,2020,a,9007199254740992", "p2,2021,,0.1", "p1,2020,c,9007199254740993", "p3,2020,,"]
    (tmp_path / "a.csv").write_text("\n".join(["patient,year,label,x", *rows]) + "\n")
    return tmp_path


def test_groups_keep_the_order_of_their_first_rows(root):
    group = {"by": "patient", "first": ["year"], "join": {"label": "|"}, "max": "x", "count": "n"}
    found = swinft.read_table([{"csv": "a.csv"}, {"group": group}], root)
    assert found.to_numpy().tolist() == [
        ["p2", "2020", "b", "1.50", "2"], ["p1", "2020", "a|c", "9007199254740993", "2"], ["p3", "2020", "", "", "1"],
    ]  # fmt: skip
    for how, wanted in {"min": ["0.1", "9007199254740992", ""], "mean": ["0.8", "9007199254740992.0", ""], "sum": ["1.6", "1.8014398509481984e+16", ""]}.items():  # fmt: skip
        found = swinft.read_table([{"csv": "a.csv"}, {"group": {"by": "patient", how: ["x"]}}], root)["x"].tolist()
        assert [float(cell or 0) for cell in found] == [float(cell or 0) for cell in wanted], how
        assert found[0] == wanted[0]


def test_notes_name_what_is_lost_and_wrong_numbers_are_problems(root):
    steps = [{"csv": "a.csv"}, {"group": {"by": ["patient"], "first": "year", "mean": "x"}}]
    notes = " ".join(read_given(steps_of("data.train", steps), root, "patient", {}, []).notes)
    assert "rows of one group differ in year; the first one counts; 'x' is empty in 1 group; without label" in notes
    assert problems(root, {"csv": "a.csv"}, {"group": {"by": "patient", "max": "label"}})[0].startswith("a.csv:2: column 'label', value 'b'")  # fmt: skip
    with pytest.raises(swinft.InputError, match="the column 'x' is named twice"):
        steps_of("t", [{"csv": "a.csv"}, {"group": {"by": "patient", "max": "x", "min": "x"}}])
