"""Parses a CSV into rows of cells; detects compression, delimiter and quotes by content."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import sys
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swinft.data.tables.text import normal
from swinft.errors import number_of, suggest

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MAX_BYTES = 2**31  # of a decompressed table: a file of one megabyte can decompress to all of the memory
# First bytes of other files that are renamed to .csv, and the fix.
NOT_A_CSV = {
    b"\xff\xfe": ("UTF-16", "Save it as UTF-8, or set data.columns.encoding to utf-16."),
    b"\xfe\xff": ("UTF-16", "Save it as UTF-8, or set data.columns.encoding to utf-16."),
    b"PAR1": ("a Parquet file", "Save it with pandas.read_parquet(…).to_csv(…, index=False)."),
    b"\xd0\xcf\x11\xe0": ("an old Excel file", "Save the sheet as CSV."),
    b"version https://git-lfs": ("a git-lfs pointer", "Run `git lfs pull`."),
    b"<!doctype": ("a web page", "Download the file again, signed in."),
    b"<html": ("a web page", "Download the file again, signed in."),
    b"[{": ("JSON", "Read it with a step, as data.train: [{json: FILE}], or {coco: FILE}."),
    b'{"': ("JSON", "Read it with a step, as data.train: [{json: FILE}], or {coco: FILE}."),
}
# Without one of them `bytes.decode` takes the machine's byte order, and a reader of lines raises an error.
MARKS = {"utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)}
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip"}
OPENERS: dict[str, Any] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}
BROKEN = (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


class UnreadableError(Exception):
    """A file cannot be read as CSV.

    Args:
        message: The problem.
        fix: The fix, as a sentence.
        line: Line of the file.
        is_missing: There is no such file.
    """

    def __init__(self, message: str, fix: str, line: int | None = None, is_missing: bool = False) -> None:
        super().__init__(message)
        self.message, self.fix, self.line, self.is_missing = message, fix, line, is_missing


@dataclass(frozen=True)
class Lines:
    """The content of a CSV without blank lines.

    Args:
        header: The cells of the first line, unchanged.
        cells: The cells of the other rows.
        lines: Line of the file on which each of these rows starts.
        notes: Notes on how the file was read, without a period.
    """

    header: list[str]
    cells: list[list[str]]
    lines: list[int]
    notes: list[str] = field(default_factory=list)


def read_lines(path: Path, wanted: Collection[str], encoding: str, given: bytes | None = None) -> Lines:
    """Reads a CSV.

    Args:
        path: A CSV, plain or compressed with gzip, bz2, xz or zip.
        wanted: Columns that the header should contain, to detect the delimiter.
        encoding: Encoding of the text.
        given: The content, if it is in memory; `path` then only names it.

    Raises:
        UnreadableError: There is no such file, or it is not a CSV.
    """
    return lines_of(read_bytes(path) if given is None else given, path, wanted, encoding)


def lines_of(content: bytes, path: Path, wanted: Collection[str], encoding: str, delimiter: str | None = None) -> Lines:
    """The rows of a CSV that was read; as `read_lines`.

    Args:
        content: Bytes of the file.
        path: Its name, for messages.
        wanted: Columns that the header should contain, to detect the delimiter.
        encoding: Encoding of the text.
        delimiter: Between the fields; None to detect it.
    """
    rows, notes = rows_of(content, path, wanted, encoding, delimiter)
    cells, lines = [], []
    for row, line in rows:
        cells.append(row)
        lines.append(line)
    return Lines(cells[0], cells[1:], lines[1:], notes)


def rows_of(
    content: bytes, path: Path, wanted: Collection[str], encoding: str, delimiter: str | None = None
) -> tuple[Iterator[tuple[list[str], int]], list[str]]:
    """The rows of a CSV one by one, the header first, each with its line; and the notes of `Lines`.

    Arguments and errors as of `lines_of`; what breaks a later row is raised there.

    Raises:
        UnreadableError: The file is no CSV with a header, or unpacks to too much.
    """
    content, notes = _unpack(content, path)
    text = _decode(content, encoding)
    if not text.strip():
        raise UnreadableError("the file is empty", "Give a file with a header and rows.")
    if text.startswith("sep="):
        raise UnreadableError("Excel's `sep=` line is in place of the header", "Delete the line.", 1)
    if delimiter is None:
        delimiter = _delimiter(text, wanted)
        notes += [f"the fields are separated by {DELIMITERS[delimiter]}"] if delimiter != "," else []
    # `a, "b, c"`: csv recognises a quote only at the start of a field.
    is_spaced = re.search(re.escape(delimiter) + ' +"', text) is not None
    # Not from the text, of which a buffer would have four bytes a character.
    lines = io.TextIOWrapper(io.BytesIO(content), _codec(encoding), newline="")
    if lines.read(1) != "\ufeff":
        lines.seek(0)
    return _parse(lines, delimiter, is_spaced), notes


def read_bytes(path: Path) -> bytes:
    """All bytes of a table's file.

    Raises:
        UnreadableError: There is no such file, or it cannot be read.
    """
    if path.is_dir():
        tables = sorted(str(file) for file in shown_in(path) if ".csv" in file.name)
        fix = f"Name the file in it.{suggest(str(path / path.name), tables[:10])}"
        raise UnreadableError("the path is a folder, not a file", fix)
    if path.is_file():
        try:
            return path.read_bytes()
        except OSError as error:
            raise UnreadableError(f"the file cannot be read: {error.strerror}", "Change its permissions.") from error
    if not path.parent.is_dir():
        where = "" if path.is_absolute() else f" A relative path starts at data.root, that at {Path.cwd()}."
        raise UnreadableError("there is no such file", f"{missing_folder(path.parent)}{where}", is_missing=True)
    near = [
        str(file) for file in shown_in(path.parent) if ".csv" in file.name or file.suffix in (".tsv", ".zip", ".txt")
    ]
    where = "Change the setting that names it." if path.is_absolute() else "A relative path starts at data.root."
    raise UnreadableError("there is no such file", f"{where}{suggest(str(path), near[:50])}", is_missing=True)


def shown_in(folder: Path) -> list[Path]:
    """What a message may suggest of a folder: not hidden files, such as those that a killed command has left."""
    return [each for each in folder.iterdir() if not each.name.startswith(".")]


def missing_folder(folder: Path) -> str:
    """A sentence on a missing folder: the first missing part of its path, and similar existing names."""
    present = folder
    while not present.is_dir() and present != present.parent:
        folder, present = present, present.parent
    try:
        others = sorted(entry.name for entry in shown_in(present) if entry.is_dir())
    except OSError:
        others = []
    near = suggest(folder.name, others[:10]) if others else ""
    return f"There is no folder '{folder.name}' in {present}.{near}"


def _unpack(content: bytes, path: Path) -> tuple[bytes, list[str]]:
    """The decompressed bytes of the table, and a note if they were compressed."""
    kind = next((name for start, name in COMPRESSED.items() if content.startswith(start)), None)
    if kind is None:
        return content, []
    packed = io.BytesIO(content)
    try:
        if kind == "zip":
            return _from_zip(zipfile.ZipFile(packed), path)
        with OPENERS[kind](packed) as opened:
            unpacked: bytes = opened.read(MAX_BYTES + 1)
    except BROKEN as error:
        raise UnreadableError(f"the {kind} file is damaged: {error}", "Download it again.") from error
    if len(unpacked) > MAX_BYTES:
        raise UnreadableError(f"the {kind} file unpacks to more than 2 GiB", "Unpack it, and name a smaller table.")
    if unpacked[257:262] == b"ustar":
        raise UnreadableError("the file is a tar archive", "Unpack it with tar, and name the CSV.")
    return unpacked, [f"the file is read through {kind}"]


def _from_zip(archive: zipfile.ZipFile, path: Path) -> tuple[bytes, list[str]]:
    names = [info.filename for info in archive.infolist() if not info.is_dir() and "__MACOSX" not in info.filename]
    if "[Content_Types].xml" in names:
        raise UnreadableError("the file is an Excel workbook, not a CSV", "Save the sheet as CSV.")
    if len(names) != 1:
        named = [name for name in names if Path(name).name == path.name.removesuffix(".zip")]
        if len(named) != 1:
            listed = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
            raise UnreadableError(
                f"the zip archive contains {number_of(len(names), 'file')} ({listed})", "Unzip it, and name one."
            )
        names = named
    if archive.getinfo(names[0]).file_size > MAX_BYTES:
        raise UnreadableError("the zip file unpacks to more than 2 GiB", "Unzip it, and name a smaller table.")
    return archive.read(names[0]), [f"the file is read through zip ('{names[0]}')"]


def _decode(content: bytes, encoding: str) -> str:
    name = codecs.lookup(encoding).name
    has_mark = content.startswith(MARKS.get(name, ()))  # that of UTF-32 begins as that of UTF-16
    for start, (what, fix) in NOT_A_CSV.items():
        if not has_mark and what.lower() not in name and content[: len(start)].lower() == start.lower():
            raise UnreadableError(f"the file is {what}, not a CSV", fix)
    if name in MARKS and not has_mark:
        fix = f"Set data.columns.encoding to {name}-le or {name}-be."
        raise UnreadableError(f"the file has no byte order mark, which {name.upper()} needs", fix)
    try:
        text = content.decode(_codec(encoding))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        fix = (
            "Save it as UTF-8, or set data.columns.encoding; such bytes are most often cp1252 (Windows-1252) or "
            "latin-1."
        )
        raise UnreadableError(f"byte {error.start:,} is not {encoding.upper()}", fix, line) from error
    except UnicodeError as error:
        raise UnreadableError(f"the text is not {encoding.upper()}: {error}", "Set data.columns.encoding.") from error
    if _is_utf8_after_all(content, encoding):
        fix = "Set data.columns.encoding to utf-8, or save this file in the encoding of the other tables."
        raise UnreadableError(f"the text is UTF-8, and would be garbled if it were read as {encoding}", fix)
    if "\0" in text[:1000]:
        raise UnreadableError("the text is full of NUL characters", "Save it as UTF-8; it may be UTF-16.")
    return text.removeprefix("\ufeff")


def _codec(encoding: str) -> str:
    """The codec of an encoding; that of UTF-8 also reads a byte order mark."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _is_utf8_after_all(content: bytes, encoding: str) -> bool:
    """Whether bytes are UTF-8 although a single-byte encoding was set; only ASCII is valid in both by chance."""
    if content.isascii():
        return False
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(len(few.decode(encoding, "replace")) == len(few) for few in (bytes(range(256)), b"\xc3\xa9"))


def _delimiter(text: str, wanted: Collection[str]) -> str:
    """The delimiter whose header has the wanted columns; else the first one with several columns."""
    start = text.lstrip("\r\n")[:1_000_000]
    headers: dict[str, list[str]] = {}
    for mark in DELIMITERS:
        try:
            header = next(csv.reader(io.StringIO(start, newline=""), delimiter=mark, skipinitialspace=True), [])
        except csv.Error:
            header = []
        headers[mark] = [normal(name) for name in header]
    found = [mark for mark, header in headers.items() if wanted and set(wanted) <= set(header)]
    several = [mark for mark, header in headers.items() if len(header) > 1]
    return [*found, *several, ","][0]


def _parse(lines: Iterable[str], delimiter: str, is_spaced: bool) -> Iterator[tuple[list[str], int]]:
    csv.field_size_limit(sys.maxsize)  # process-wide; masks as text exceed the default of 131,072
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=is_spaced)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield cells, start
            start = reader.line_num + 1
    except csv.Error as error:
        fix = f"A quote that opens a field must close it, before a {delimiter!r} or the line's end."
        raise UnreadableError(f"the CSV is broken: {error}", fix, start) from error
