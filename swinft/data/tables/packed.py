"""Columns of text cells, read block by block; those of wide tables are packed, at a byte a character.

A list of cells takes about 60 bytes a cell, which for a table of 50,000 rows and 2,000 columns are 6 GB.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from swinft.data.tables.text import strip

BLOCK_CELLS = 2**18  # cells whose rows are in memory while a table is read
PACKED_CELLS = 2**22  # of a table, from which on it is packed
PACKED_COLUMNS = 24  # with fewer, most columns are read again and again
KEPT = 8  # lists of packed columns that were read last: checks ask for one column cell by cell
MARK = "\0"  # between cells; a column with it in a cell is not packed


class PackedColumns(Mapping[str, list[str]]):
    """Columns by name, of which lists are made where they are read; those that were read last are kept.

    Args:
        columns: Cells by column, as lists or packed; one after another is read.
        whole: Names of columns that are kept as lists: they are read again and again.
    """

    def __init__(self, columns: Iterable[tuple[str, str | list[str]]], whole: Sequence[str] = ()) -> None:
        self._packed = {name: _listed(cells) if name in whole else _packed(cells) for name, cells in columns}
        self._kept: OrderedDict[str, list[str]] = OrderedDict()

    def __getitem__(self, name: str) -> list[str]:
        packed = self._packed[name]
        if isinstance(packed, list):
            return packed
        if (found := self._kept.pop(name, None)) is None:
            found = packed.split(MARK)
        self._kept[name] = found
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def compact(
    columns: Iterable[tuple[str, list[str]]], shape: tuple[int, int], whole: Sequence[str]
) -> Mapping[str, list[str]]:
    """Columns by name, packed where there are many; `shape` is their number, and that of their rows."""
    return PackedColumns(columns, whole) if is_wide(*shape) else dict(columns)


def is_wide(num_columns: int, num_rows: int) -> bool:
    """Whether a table of that size is packed."""
    return num_columns >= PACKED_COLUMNS and num_columns * num_rows >= PACKED_CELLS


def _packed(cells: str | list[str]) -> str | list[str]:
    """Cells as one text; those that cannot be told apart in it stay a list."""
    if isinstance(cells, str) or not cells:
        return cells
    text = MARK.join(cells)
    return text if text.count(MARK) == len(cells) - 1 else cells


def _listed(cells: str | list[str]) -> list[str]:
    return cells.split(MARK) if isinstance(cells, str) else cells


def _has_no_blank(cells: Sequence[str]) -> bool:
    """Whether no cell has a blank, by one look at all of them; other characters than ASCII may be blanks."""
    text = MARK.join(cells)
    return text.isascii() and (not text or text.split(None, 1) == [text])


class ColumnReader:
    """Collects the rows of a table as stripped columns, a block at a time.

    Args:
        num_columns: Fields of a row.

    Attributes:
        stripped: How many cells of each column had blanks around them.
    """

    def __init__(self, num_columns: int) -> None:
        self.stripped = [0] * num_columns
        self._rows: list[list[str]] = []
        self._columns: list[list[str]] = [[] for _ in range(num_columns)]
        self._parts: list[list[str | list[str]]] = [[] for _ in range(num_columns)]  # of a wide table
        self._num_rows, self._size = 0, max(1, BLOCK_CELLS // max(1, num_columns))

    def add(self, row: list[str]) -> None:
        """Adds a row with a cell for each column."""
        self._rows.append(row)
        self._num_rows += 1
        if len(self._rows) == self._size:
            self._end_block()

    def columns(self, names: Sequence[str], whole: Sequence[str]) -> Mapping[str, list[str]]:
        """The columns with a name; of two with the same name, the last. Nothing can be added afterwards.

        Args:
            names: A name, which may be empty, for each column.
            whole: Names of columns that are kept as lists.
        """
        self._end_block()
        place = {name: k for k, name in enumerate(names) if name}
        if not any(self._parts):
            return {name: self._columns[k] for name, k in place.items()}
        return PackedColumns(((name, self._taken(k)) for name, k in place.items()), whole)

    def _taken(self, k: int) -> str | list[str]:
        """The cells of a column, which are forgotten here."""
        parts, self._parts[k] = self._parts[k], []
        texts = [part for part in parts if isinstance(part, str)]
        return MARK.join(texts) if len(texts) == len(parts) else [cell for part in parts for cell in _listed(part)]

    def _end_block(self) -> None:
        """Strips the block's cells, and packs what is there of a wide table."""
        blocks: Iterable[tuple[str, ...]] = zip(*self._rows, strict=True)
        for k, raw in enumerate(blocks):
            cells: Sequence[str] = raw if _has_no_blank(raw) else list(map(strip, raw))
            self.stripped[k] += 0 if cells is raw else sum(map(str.__ne__, raw, cells))
            self._columns[k] += cells
        self._rows = []
        if is_wide(len(self._columns), self._num_rows):
            for cells, parts in zip(self._columns, self._parts, strict=True):
                if cells:
                    parts.append(_packed(list(cells)))
                    cells.clear()
