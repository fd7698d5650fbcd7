"""The step `csv`: reads a CSV."""

from collections import Counter
from pathlib import Path
from typing import Any

from swinft.data.tables.csv_lines import DELIMITERS, Lines, UnreadableError, lines_of
from swinft.data.tables.steps.frame import Context, Frame
from swinft.data.tables.steps.located import read_file
from swinft.data.tables.steps.step import BuiltinStep, name, text, word
from swinft.data.tables.text import normal, strip
from swinft.errors import InputError, number_of


class CSVStep(BuiltinStep):
    """Reads a CSV, plain or compressed.

    Args:
        path: The file, relative to `data.root`; it may be in a zip archive: `train.zip/train.csv`.
        encoding: Encoding of the text; null for `data.columns.encoding`.
        delimiter: Between the fields: `,`, `;`, a tab or `|`; null to detect it.
    """

    word, position = "csv", "first"

    def __init__(self, path: Any, encoding: Any = None, delimiter: Any = None) -> None:
        self.path = name("path", path)
        self.encoding = None if encoding is None else text("encoding", encoding)
        self.delimiter = None if delimiter is None else word("delimiter", delimiter, list(DELIMITERS))
        try:
            "a".encode(self.encoding or "utf-8")
        except (LookupError, UnicodeError):
            raise InputError(f"encoding '{encoding}' is unknown. Try utf-8, cp1252, latin-1, utf-16.") from None

    def run(self, frame: Frame, context: Context) -> Frame:
        """The rows of the file, which keep their lines."""
        file = context.path(self.path)
        content = read_file(self.path, context)
        if content is None:
            return frame
        try:
            read = lines_of(content, Path(file), (), self.encoding or context.encoding, self.delimiter)
        except UnreadableError as error:
            context.fail(error.message, error.fix, file, error.line)
            return frame
        context.details.extend(read.notes)
        header = self._header(read, context)
        wrong = [
            (line, len(cells)) for cells, line in zip(read.cells, read.lines, strict=True) if len(cells) != len(header)
        ]
        for line, size in wrong:
            fix = "Put quotes around fields that contain a delimiter, or complete the row."
            context.fail(f"the row has {number_of(size, 'field')}, the header {len(header)}", fix, file, line)
        if wrong:
            return frame
        columns = {each: [strip(cells[k]) for cells in read.cells] for k, each in enumerate(header) if each}
        return Frame(columns, context.places(file, read.lines))

    def _header(self, read: Lines, context: Context) -> list[str]:
        """The names of the columns; empty for those that are not used."""
        header = [normal(each) for each in read.header]
        unnamed = sum(not each for each in header)
        if unnamed:
            context.details.append(f"{number_of(unnamed, 'column')} without a name (a saved index?) not used")
        doubled = [each for each, count in Counter(filter(None, header)).items() if count > 1]
        if doubled:
            context.details.append(f"the header names {', '.join(map(repr, doubled[:5]))} twice: not used")
        return ["" if each in doubled else each for each in header]
