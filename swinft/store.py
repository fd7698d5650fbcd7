"""Durable files: written atomically, flushed to disk, then recorded with size and SHA-256.

A file is valid only if it has a commit record, which is written after the file is safely on disk. While an artefact is
replaced, its record names both contents. A crash at any point therefore leaves either the old artefact or the new one,
never a partial one.
"""

import hashlib
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from swinft.errors import InputError, StoreError
from swinft.whole_files import Content, clear_left, flush, own_suffix, put, write_beside
from swinft.whole_files import is_temporary as is_temporary
from swinft.whole_files import sha256_of as sha256_of

RECORDS = ".commits"  # one hidden folder beside the artefacts, so that a listing of a run shows only artefacts
NEXT = "next"  # in a record: that of the content which is about to take the place of the present one


def replace(path: Path, content: Content) -> None:
    """Writes a file outside a run: atomically, and without a record.

    Raises:
        StoreError: The disk is full or not writable; an earlier file is unchanged.
    """
    try:
        put(path, *write_beside(path, content)[:1])
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}. What was there stays. Free some space, or fix the "
            f"folder's permissions."
        ) from error


def commit(path: Path, content: Content, producer: str, announce: Callable[[str], None] = lambda _: None) -> None:
    """Writes an artefact atomically, with its commit record.

    Args:
        path: The artefact. Missing folders are created.
        content: The bytes, or a function that writes them to an open binary file.
        producer: The command that made it, stored in the record.
        announce: Called with the SHA-256 of the content when it is on disk, before it takes its place.

    Raises:
        StoreError: The disk is full or not writable; the artefact that was committed before is unchanged.
    """
    try:
        temporary, digest = write_beside(path, content)
        record = {"size": temporary.stat().st_size, "sha256": digest, "producer": producer}
        try:
            announce(digest)
            # At no time is the artefact beside a record of other content alone, or without one.
            if before := _current(path):
                _write_record(path, {**before, NEXT: record})
            else:
                _delete_record(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        put(path, temporary)
        _write_record(path, record)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}. What was committed before is unchanged. Free some "
            f"space, or fix the folder's permissions, and {_how_to_retry(producer)}."
        ) from error


def is_committed(path: Path) -> bool:
    """Whether `path` was committed and still has the recorded size. Fast: the content is not read."""
    return _current(path) is not None


def verify(path: Path) -> Path:
    """Returns `path` after comparing its content with the commit record.

    Raises:
        StoreError: The file or its record is missing or damaged; the message says which.
    """
    record, record_path = _read_record(path), _record(path)
    if not path.is_file():
        raise StoreError(f"{path} is missing. Restore it from a copy{_how_to_remake(record)}.")
    if record is None:
        what = "is missing: it was not copied with the file, or the command that writes the file was killed"
        what = "is damaged" if record_path.is_file() else what
        raise StoreError(
            f"{path} cannot be verified: its commit record {record_path} {what}. Run the command that writes the file "
            f"again, restore the record from a copy, or add --accept to `swinft fit --resume` to accept the files of a "
            f"run as they are."
        )
    current = _current(path)
    if current is None or sha256_of(path) != current["sha256"]:
        raise StoreError(
            f"{path} has changed since it was written (size or SHA-256 differ from its commit record): the disk or a "
            f"program damaged it. Restore it from a copy{_how_to_remake(record)}."
        )
    return path


def digest(path: Path) -> str:
    """The SHA-256 that was committed; the content is not read.

    Raises:
        StoreError: The file or its record is missing, or the file has another size.
    """
    current = _current(path)
    if current is None:
        verify(path)  # raises the error
    assert current
    return str(current["sha256"])


def _how_to_remake(record: dict[str, Any] | None) -> str:
    """How to make an artefact again, as the end of a sentence."""
    if record is None:
        return ""
    if record["producer"] == "swinft fit":
        return "; a fold is fitted again after its folder is deleted, by `swinft fit --resume`"
    return f", or run `{record['producer']}` again"


def is_unrecorded(path: Path) -> bool:
    """Whether a file exists and its commit record is missing or damaged."""
    return path.is_file() and _read_record(path) is None


def record_existing(path: Path, producer: str) -> None:
    """Writes the missing or damaged record of an existing file; the caller has checked the file.

    Raises:
        StoreError: The record cannot be written.
    """
    try:
        _write_record(path, {"size": path.stat().st_size, "sha256": sha256_of(path), "producer": producer})
    except OSError as error:
        raise StoreError(f"the record of {path} cannot be written: {error.strerror or error}.") from error


def has_record(path: Path) -> bool:
    """Whether `path` has a record; neither the file nor the record is checked."""
    return _record(path).is_file()


def newest_intact(paths: Iterable[Path]) -> Path | None:
    """The first artefact that is intact; damaged ones are moved to `quarantine/` with a warning.

    Args:
        paths: Committed artefacts, newest first.

    Returns:
        None if `paths` is empty.

    Raises:
        StoreError: All of them are damaged: continuing would silently start from scratch.
    """
    damaged = []
    for path in paths:
        try:
            return verify(path)
        except StoreError:
            damaged.append(quarantine(path))
            print(f"WARNING: {path} is damaged; moved to {damaged[-1]}. Trying the one before.", file=sys.stderr)
    if damaged:
        raise StoreError(
            f"none of the artefacts in {damaged[0].parent.parent} is intact; the damaged files are in "
            f"{damaged[0].parent}. Delete {damaged[0].parent.parent} to start from scratch."
        )
    return None


def quarantine(path: Path) -> Path:
    """Moves a damaged artefact and its record to `quarantine/`, and returns the new path."""
    target = path.parent / "quarantine" / path.name
    target.parent.mkdir(exist_ok=True)
    if path.exists():
        path.replace(target)
    _record(path).replace(target.with_name(f"{path.name}.json"))
    return target


def probe(folder: Path, needed_bytes: int = 0, what: str = "runs", advice: str = "") -> None:
    """Checks that a folder is writable (write, flush, rename, delete) and has enough free space.

    Args:
        folder: If it is missing, it is created and deleted again, as are its parents: a command that refuses its
            options afterwards leaves no empty folder.
        needed_bytes: How much will be written.
        what: What will be written, for the message.
        advice: What to do if the folder is not writable.

    Raises:
        InputError: The folder is not writable or has too little free space.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        moved = folder / f".probe.moved.{own_suffix()}"  # the next probe deletes it if this process is killed
        put(moved, write_beside(folder / "probe", b"probe")[0])
        moved.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        fix = advice or "Choose another folder with --runs."
        raise InputError(f"{what} cannot be written to {folder}: {error}. {fix}") from error
    finally:
        with suppress(OSError):  # of another process that writes there
            for each in missing:
                each.rmdir()
    if free < needed_bytes:
        raise InputError(
            f"{folder} has {free / 1e9:.1f} GB free, the run needs about {needed_bytes / 1e9:.1f} GB. Free some, or "
            f"choose another folder with --runs."
        )


def sweep(folder: Path) -> None:
    """Deletes temporary files that commits of dead processes left in a folder."""
    clear_left(folder, folder / RECORDS)


def discard(path: Path) -> None:
    """Deletes an artefact: the record first, so that there is never a record without a file."""
    _delete_record(path)
    path.unlink(missing_ok=True)


def _delete_record(path: Path) -> None:
    """Deletes a record and flushes the folder: otherwise a later write may reach the disk first."""
    record = _record(path)
    if record.exists():
        record.unlink(missing_ok=True)
        flush(record.parent)


def _write_record(path: Path, record: dict[str, Any]) -> None:
    text = json.dumps({**record, "check": _check(record)}, indent=1)
    put(_record(path), write_beside(_record(path), text.encode())[0])


def _how_to_retry(producer: str) -> str:
    return "continue with `swinft fit --resume`" if producer == "swinft fit" else f"run `{producer}` again"


def json_bytes(value: Any, indent: int | None = 1) -> bytes:
    """Standard JSON: NaN and infinity become null."""

    def plain(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: plain(each) for key, each in part.items()}
        if isinstance(part, list | tuple):
            return [plain(each) for each in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(plain(value), indent=indent, allow_nan=False).encode()


def _record(path: Path) -> Path:
    return path.parent / RECORDS / f"{path.name}.json"


def _read_record(path: Path) -> dict[str, Any] | None:
    """The commit record; None if it is missing or damaged."""
    try:
        record = json.loads(_record(path).read_bytes())
        check = record.pop("check")
    except (OSError, ValueError, AttributeError, KeyError):
        return None
    return record if check == _check(record) else None


def _current(path: Path) -> dict[str, Any] | None:
    """The record of the content that a file has, by its size; None if there is none.

    After a crash between the two contents of an artefact, the record has both.
    """
    record = _read_record(path)
    if record is None or not path.is_file():
        return None
    following, size = record.pop(NEXT, None), path.stat().st_size
    fitting = [each for each in (record, following) if each and each["size"] == size]
    if len(fitting) > 1 and sha256_of(path) == fitting[1]["sha256"]:
        return dict(fitting[1])
    return fitting[0] if fitting else None


def _check(record: dict[str, Any]) -> str:
    """The SHA-256 that protects the record itself."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
