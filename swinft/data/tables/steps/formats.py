"""Steps that read parquet files and the names of datasets in HDF5 files."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swinft.data.image_paths import natural
from swinft.data.sources.hdf5_objects import find, import_h5py
from swinft.data.tables.csv_lines import shown_in
from swinft.data.tables.steps.cells import cell_text
from swinft.data.tables.steps.files import PATH
from swinft.data.tables.steps.frame import Context, Frame, lost_patterns, matched_columns
from swinft.data.tables.steps.located import read_file
from swinft.data.tables.steps.step import BuiltinStep, name, texts
from swinft.data.tables.text import strip
from swinft.errors import suggest
from swinft.extras import import_parquet


class ParquetStep(BuiltinStep):
    """Reads a parquet file, or the parquet files of a folder one after the other.

    Args:
        path: The file or folder, relative to `data.root`.
        columns: The columns that are read, as names or patterns; null for all.
    """

    word, position = "parquet", "first"

    def __init__(self, path: Any, columns: Any = None) -> None:
        self.path, self.columns = name("path", path), None if columns is None else texts("columns", columns)

    def run(self, frame: Frame, context: Context) -> Frame:
        """The rows; each is named by its number in its file, from 1."""
        full, paths = context.path(self.path), [self.path]
        if os.path.isdir(full):
            parts = sorted((each for each in os.listdir(full) if each.endswith(".parquet")), key=natural)
            paths = [f"{self.path}/{each}" for each in parts]
            if not paths:
                context.fail("the folder has no parquet file", "Correct the path.", full)
        found = [read for path in paths if (read := self._read(path, context)) is not None]
        if len(found) < len(paths) or not found:
            return frame
        names = list(found[0].columns)
        for path, each in zip(paths, found, strict=True):
            if list(each.columns) != names:
                context.fail(f"it has other columns than {paths[0]}", "Read them by `concat`.", context.path(path))
        columns = {column: [cell for each in found for cell in each.columns.get(column, ())] for column in names}
        return Frame(columns, [place for each in found for place in each.places])

    def _read(self, path: str, context: Context) -> Frame | None:
        """One file; None if it cannot be read, which is a problem."""
        content, file = read_file(path, context), context.path(path)
        if content is None:
            return None
        parquet = import_parquet()
        try:
            opened = parquet.ParquetFile(io.BytesIO(content))
            names = opened.schema_arrow.names
            wanted = names if self.columns is None else matched_columns(self.columns, names)
            for lost in lost_patterns(self.columns or [], names):
                context.fail("there is no such column", f"Correct it.{suggest(lost, names)}", file, column=lost)
            table = opened.read(columns=wanted)
        except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors derive from these
            context.fail(f"it is no readable parquet file: {error}", "Download it again.", file)
            return None
        columns: dict[str, list[str]] = {}
        for column in table.column_names:
            values = [cell_text(value) for value in _values(table.column(column))]
            if None in values:
                fix = "Name the other columns in `columns`."
                row = values.index(None) + 1
                context.fail("a value is no number, text or time", fix, file, row, column)
            columns[strip(column)] = [value or "" for value in values]
        return Frame(columns, context.places(file, range(1, table.num_rows + 1)))


def _values(column: Any) -> Iterator[Any]:
    """The values of a column; numbers of 16 or 32 bits with a fraction in their own precision."""
    if str(column.type) not in ("halffloat", "float"):
        yield from column.to_pylist()
        return
    for chunk in column.chunks:
        numbers = chunk.to_numpy(zero_copy_only=False)
        yield from (numbers[row] if chunk[row].is_valid else None for row in range(len(chunk)))


class HDF5Step(BuiltinStep):
    """Lists the datasets of an HDF5 file: a row for each, with its name and its path for `data.image`.

    Args:
        path: The file, relative to `data.root`.
        group: The group whose datasets are listed, at any depth; null for the whole file.
    """

    word, position = "hdf5", "first"

    def __init__(self, path: Any, group: Any = None) -> None:
        self.path, self.group = name("path", path), None if group is None else name("group", group).strip("/")

    def run(self, frame: Frame, context: Context) -> Frame:
        """The names below the group in natural order, and `path`, as the source `hdf5` reads it."""
        file, h5py = context.path(self.path), import_h5py()
        if not os.path.isfile(file):
            near = [each.name for each in shown_in(Path(file).parent)] if Path(file).parent.is_dir() else []
            context.fail(
                "there is no such file", f"Correct the path.{suggest(Path(file).name, near)}", file, is_missing=True
            )
            return frame
        found: list[str] = []
        try:
            with h5py.File(file, "r") as opened:
                group = find(opened, self.group or "")
                group.visititems(lambda path, each: found.append(path) if isinstance(each, h5py.Dataset) else None)
        except (OSError, ValueError, LookupError, RuntimeError, AttributeError) as error:
            context.fail(f"it cannot be read: {error}", "Correct `path` and `group`, or download it again.", file)
            return frame
        if not found:
            context.fail("it has no dataset", "Correct the path.", file)
        names = sorted(found, key=natural)
        before = f"{self.path}/{self.group}/" if self.group else f"{self.path}/"
        columns = {"name": names, PATH: [before + each for each in names]}
        return Frame(columns, context.places(file, range(1, len(names) + 1)))
