"""The step `json`: reads a JSON file that is a list of records."""

from collections.abc import Mapping
from typing import Any

from swinft.data.tables.steps.cells import cell_text
from swinft.data.tables.steps.frame import Context, Frame
from swinft.data.tables.steps.located import read_json
from swinft.data.tables.steps.step import BuiltinStep, name
from swinft.data.tables.text import strip


class JSONStep(BuiltinStep):
    """Reads a JSON file that is a list of records: a row for each, a column for each key.

    A list of single values, such as pixels, becomes a cell with a blank between them; a key that a record lacks is an
    empty cell.

    Args:
        path: The file, relative to `data.root`.
    """

    word, position = "json", "first"

    def __init__(self, path: Any) -> None:
        self.path = name("path", path)

    def run(self, frame: Frame, context: Context) -> Frame:
        """The rows in the order of the file; each is named by its number, from 1."""
        records, file = read_json(self.path, context), context.path(self.path)
        if records is None:
            return frame
        if not isinstance(records, list) or not records or not all(isinstance(each, Mapping) for each in records):
            fix = "It needs a list of records, [{…}, {…}]; `coco` reads files of the COCO format."
            context.fail("it is no list of records", fix, file)
            return frame
        names = dict.fromkeys(key for each in records for key in each)
        columns = {}
        for key in names:
            cells = [_cell(each.get(key)) for each in records]
            if None in cells:
                row = cells.index(None) + 1
                context.fail("a value is no number or text, and no list of them", "Remove it.", file, row, column=key)
            columns[strip(key)] = [cell or "" for cell in cells]
        return Frame(columns, context.places(file, range(1, len(records) + 1)))


def _cell(value: Any) -> str | None:
    """A single value or a list of them as text; None for anything else."""
    if not isinstance(value, list):
        return cell_text(value)
    parts = [cell_text(each) for each in value]
    return None if None in parts else " ".join(part or "nan" for part in parts if part is not None)
