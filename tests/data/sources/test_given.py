"""Images that a program has in memory: one a row or several, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from swinft.data.row_images import RowImages
from swinft.data.sources.given import GivenImages, image_bytes
from swinft.data.tables.table import Problem, read_table
from swinft.errors import InputError

A, B, C = (np.full((2, 2, 3), level, np.uint8) for level in (1, 2, 3))


def found(cells: list[object], images: RowImages) -> tuple[list[list[bytes]], list[Problem]]:
    """The images of each row, by what names them; empty where there is none."""
    problems: list[Problem] = []
    content = "id\n" + "".join(f"r{k}\n" for k in range(len(cells)))
    table = read_table(Path("rows"), "id", {}, problems, given=content.encode())
    assert table
    source = GivenImages("x", cells)
    names = source.of_rows(table, images, problems)
    return [[source.read(name)[-1:] if name else b"" for name in row] for row in names], problems


def test_several_images_of_a_row_by_place_and_by_name():
    both = RowImages(["left/{id}.png", "right/{id}.png"])
    assert found([[A, B], (C, A)], both) == ([[b"\1", b"\2"], [b"\3", b"\1"]], [])
    named = RowImages({"left": "left/{id}.png", "right": "right/{id}.png"})
    assert found([{"right": B, "left": A}], named) == ([[b"\1", b"\2"]], [])


def test_what_is_not_there_is_masked_or_a_problem():
    masks = RowImages(["a/{id}.png", "b/{id}.png"], missing="mask")
    assert found([[None, B], [A, float("nan")]], masks) == ([[b"", b"\2"], [b"\1", b""]], [])
    _, problems = found([[A, None]], RowImages(["a/{id}.png", "b/{id}.png"]))
    assert "image 2 in 'x' is not there" in str(problems[0])
    _, problems = found([[A], [A, B]], RowImages(["a/{id}.png", "b/{id}.png"]))
    assert "id 'r0': the row has 1 image in 'x', and data.image names 2" in str(problems[0])


def test_any_number_of_images_up_to_the_most():
    stack = RowImages("{id}/*.png", max=2)
    assert found([[A], [A, B, C, C], None], stack) == ([[b"\1"], [b"\2", b"\3"], []], [])


def test_only_images_are_images():
    with pytest.raises(InputError, match="x of r is of type int; give bytes"):
        image_bytes(3, "x of r")
