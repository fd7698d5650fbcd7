"""Reads and writes the CSV of predictions, some rows at a time: of many classes its text is several times its numbers.

Shapes: N rows, K outputs.
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.model.metrics.base import row_blocks

CELLS = 2**20  # numbers whose text is in memory


def write_rows(
    write: Callable[[bytes], object],
    header: Sequence[str],
    ids: Sequence[str],
    values: NDArray[np.float32],
    more: Sequence[Sequence[object]] = (),
) -> None:
    """Writes a table: UTF-8, Unix line endings; an empty cell for NaN.

    Args:
        write: Gets bytes, several times.
        header: Names of all columns.
        ids: The first column, N texts.
        values: The next ones, (N, K).
        more: The columns after them.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    # 9 significant digits are the fewest from which every float32 is read back exactly.
    numbers = ",".join(["%.9g"] * values.shape[1])
    for rows in row_blocks(len(ids), values.shape[1], CELLS):
        block = values[rows]
        has_nan = np.asarray(np.isnan(block).any(1))
        others = zip(*(column[rows] for column in more), strict=True) if more else None
        for id, row, is_gap in zip(ids[rows], block.tolist(), has_nan.tolist(), strict=True):
            cells = (numbers % tuple(row)).split(",") if row else []
            cells = ["" if cell == "nan" else cell for cell in cells] if is_gap else cells
            writer.writerow((id, *cells, *(next(others) if others else ())))
        write(text.getvalue().encode())
        text.seek(0)
        text.truncate()
    write(text.getvalue().encode())  # the header, where there are no rows


def read_rows(path: Path, num_outputs: int) -> tuple[list[str], list[str], NDArray[np.float32], dict[str, list[str]]]:
    """Reads a table that `write_rows` wrote.

    Args:
        path: The CSV.
        num_outputs: K, the number of columns after the ids.

    Returns:
        The header; the ids; the values, float32 (N, K), read-only; and the columns after them as text, by name.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file), [])  # here: pandas would rename a duplicate name
    lines = _num_lines(path)
    places = [k for k in range(len(header)) if not 1 <= k <= num_outputs]
    numbers: list[Any] = list(range(1, num_outputs + 1))
    values, ids, more = np.empty((lines, num_outputs), np.float32), list[str](), [list[str]() for _ in places[1:]]
    blocks = pd.read_csv(
        path,
        header=None,
        skiprows=1,
        names=range(len(header)),
        dtype={k: np.float32 if k in range(1, num_outputs + 1) else str for k in range(len(header))},
        keep_default_na=False,
        na_values={k: ["", "nan"] for k in numbers},
        chunksize=max(1, CELLS // len(header)),
        low_memory=False,
    )
    for block in blocks if lines > 1 else ():
        values[len(ids) : len(ids) + len(block)] = block[numbers].to_numpy()
        ids += block[0].tolist()
        for column, k in zip(more, places[1:], strict=True):
            column += block[k].tolist()
    values = values[: len(ids)].copy() if len(ids) < lines - 1 else values[: len(ids)]
    values.setflags(write=False)
    return header, ids, values, {header[k]: column for k, column in zip(places[1:], more, strict=True)}


def _num_lines(path: Path) -> int:
    """Line ends of a file: at least as many as its rows and the header."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
