"""Files that steps read: on the disk, or inside a zip or tar archive."""

import json
import os
from pathlib import Path
from typing import Any

from swinft.data.sources.files import containing_file
from swinft.data.sources.zip import ZipSource
from swinft.data.tables.csv_lines import UnreadableError, read_bytes
from swinft.data.tables.steps.frame import Context
from swinft.errors import InputError, suggest


def read_file(path: str, context: Context) -> bytes | None:
    """All bytes of a file; None if there is none, which is a problem.

    Args:
        path: Its path, relative to the folder of the data; a part of it may be an archive: `train.zip/labels.csv`.
        context: Where the folder is, and where to report.
    """
    full = context.path(path)
    try:
        archive = containing_file(os.path.dirname(full))
        return read_bytes(Path(full)) if archive is None else _member(full, archive)
    except UnreadableError as error:
        context.fail(error.message, error.fix, full, error.line, is_missing=error.is_missing)
    except (InputError, OSError, ValueError) as error:
        context.fail(f"it cannot be read: {error}", "Restore the file.", full)
    return None


def read_json(path: str, context: Context) -> Any:
    """What a JSON file contains; None if it cannot be read or is no JSON, which is a problem; arguments as `read_file`.

    A file that contains nothing but `null` is an empty list.
    """
    content = read_file(path, context)
    if content is None:
        return None
    try:
        found = json.loads(content)
    except ValueError as error:
        context.fail(f"it is no JSON: {error}", "Download it again.", context.path(path))
        return None
    return [] if found is None else found


def _member(path: str, archive: str) -> bytes:
    """A member of an archive.

    Raises:
        UnreadableError: There is no such member.
    """
    source, (folder, name) = ZipSource(), os.path.split(path)
    names = source.names(folder) or ()
    if name not in names:
        inside = folder[len(archive) :].strip("/")
        where = f"'{inside}' of {archive}" if inside else archive
        raise UnreadableError(
            f"there is no '{name}' in {where}", f"Correct the path.{suggest(name, names)}", None, True
        )
    return source.read(path)
