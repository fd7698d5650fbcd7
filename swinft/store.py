"""The one way a durable file is written: whole, flushed, and recorded last.

A file counts only once its commit record exists, and the record is written after the file is safely on disk. A
crash at any point therefore leaves either the old artefact or the new one, never half of one.
"""

import hashlib
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, cast

from swinft.errors import InputError, StoreError

RECORDS = ".commits"  # one hidden folder beside the artefacts, so that a listing of a run shows only artefacts


def replace(path: Path, content: bytes) -> None:
    """Writes a file outside a run: whole or not at all, and without a record.

    Raises:
        StoreError: The disk is full or refuses to write; what was there before is untouched.
    """
    try:
        _move(_write(path, content)[0], path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}. What was there is untouched."
        ) from error


def commit(path: Path, content: bytes | Callable[[IO[bytes]], None], producer: str) -> None:
    """Writes an artefact so that it is either whole or absent.

    Args:
        path: Where it goes. Missing folders are made.
        content: The bytes, or a function that writes them to an open binary file.
        producer: What made it, kept in the record.

    Raises:
        StoreError: The disk is full or refuses to write; what was there before is untouched.
    """
    try:
        temporary, digest = _write(path, content)
        # An earlier artefact's record must not stand for the new content, not even for a moment.
        _forget(path)
        _move(temporary, path)
        _vouch(path, digest, producer)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}. What was committed before is untouched. Make room, "
            f"or mend the folder's rights, and {_go_on(producer)}."
        ) from error


def is_committed(path: Path) -> bool:
    """Whether `path` was committed and is still there with the recorded size. Cheap: the content is not read."""
    record = _read_record(path)
    return record is not None and path.is_file() and path.stat().st_size == record["size"]


def verify(path: Path) -> Path:
    """Returns `path` after comparing its content with the commit record.

    Raises:
        StoreError: The file or its record is missing or damaged; each has its own words.
    """
    record, place = _read_record(path), _record(path)
    if not path.is_file():
        raise StoreError(f"{path} is missing. Restore it from a copy{_or_again(record)}.")
    if record is None:
        what = "is damaged" if place.is_file() else "is missing: it was not copied with the file, or never written"
        raise StoreError(
            f"{path} cannot be verified: its commit record {place} {what}. Restore the record from a copy, or add "
            f"--accept to `swinft fit --resume` to take the files of a run as they are."
        )
    if path.stat().st_size != record["size"] or _sha256(path) != record["sha256"]:
        raise StoreError(
            f"{path} has changed since it was written (size or SHA-256 differ from its commit record): the disk or a "
            f"program damaged it. Restore it from a copy{_or_again(record)}."
        )
    return path


def digest(path: Path) -> str:
    """The SHA-256 that was committed; the content is not read.

    Raises:
        StoreError: The file or its record is missing, or the file has another size.
    """
    record = _read_record(path)
    if record is None or not is_committed(path):
        verify(path)  # says what is wrong
    assert record
    return str(record["sha256"])


def _or_again(record: dict[str, Any] | None) -> str:
    """How an artefact is made again, as the end of a sentence."""
    if record is None:
        return ""
    if record["producer"] == "swinft fit":
        return "; a fold is fitted again after its folder is deleted, by `swinft fit --resume`"
    return f", or run `{record['producer']}` again"


def is_unrecorded(path: Path) -> bool:
    """Whether a file is there whose commit record is missing or damaged."""
    return path.is_file() and _read_record(path) is None


def accept(path: Path, producer: str) -> None:
    """Writes the missing or damaged record of a file as it is; who calls this has looked into the file.

    Raises:
        StoreError: The disk refuses to write.
    """
    try:
        _vouch(path, _sha256(path), producer)
    except OSError as error:
        raise StoreError(f"the record of {path} cannot be written: {error.strerror or error}.") from error


def has_record(path: Path) -> bool:
    """Whether `path` was ever committed, whatever has become of it and of its record since."""
    return _record(path).is_file()


def newest_intact(paths: Iterable[Path]) -> Path | None:
    """The first artefact that is what was committed; damaged ones are moved to `quarantine/`, loudly.

    Args:
        paths: Committed artefacts, the wanted one first.

    Returns:
        None where there was none to begin with.

    Raises:
        StoreError: There were some, and all of them are damaged: going on would mean starting from scratch unasked.
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
            f"none of the artefacts in {damaged[0].parent.parent} is intact; what is left of them is in "
            f"{damaged[0].parent}. Delete {damaged[0].parent.parent} to start it anew."
        )
    return None


def quarantine(path: Path) -> Path:
    """Moves a damaged artefact and its record out of the way, and returns where to."""
    target = path.parent / "quarantine" / path.name
    target.parent.mkdir(exist_ok=True)
    if path.exists():
        path.replace(target)
    _record(path).replace(target.with_name(f"{path.name}.json"))
    return target


def probe(folder: Path, needed_bytes: int = 0, what: str = "runs", advice: str = "") -> None:
    """Finds out in the first second whether a folder can be written to: write, flush, rename, delete, free space.

    Args:
        folder: Made if missing.
        needed_bytes: How much is going to be written.
        what: What is going to be written, for the message.
        advice: What to do where it cannot be.

    Raises:
        InputError: Something of it fails; the message says what.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f".probe.{os.getpid()}"
        _move(_write(path, b"probe")[0], path)
        path.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        mend = advice or "Choose another folder with --runs."
        raise InputError(f"{what} cannot be written to {folder}: {error}. {mend}") from error
    if free < needed_bytes:
        raise InputError(
            f"{folder} has {free / 1e9:.1f} GB free, the run needs about {needed_bytes / 1e9:.1f} GB. Free some, or "
            f"choose another folder with --runs."
        )


def is_temporary(name: str) -> bool:
    """Whether a file's name is that of a commit in the making."""
    return name.startswith(".") and name.endswith(".tmp")


def sweep(folder: Path) -> None:
    """Deletes what commits of processes that are gone left half written in a folder."""
    for place in (folder, folder / RECORDS):
        for path in place.glob(".*.tmp"):
            pid = path.name.split(".")[-2]
            if pid.isdigit() and not _is_running(int(pid)):
                path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Deletes an artefact: the record first, so that no record ever stands for a missing file."""
    _forget(path)
    path.unlink(missing_ok=True)


def _forget(path: Path) -> None:
    """Deletes a record, durably: what comes next may reach the disk before it otherwise."""
    record = _record(path)
    if record.exists():
        record.unlink(missing_ok=True)
        _flush(record.parent)


def _vouch(path: Path, digest: str, producer: str) -> None:
    """Writes the record of a file that is safely on the disk."""
    record = {"size": path.stat().st_size, "sha256": digest, "producer": producer}
    text = json.dumps({**record, "check": _check(record)}, indent=1)
    _move(_write(_record(path), text.encode())[0], _record(path))


def _write(path: Path, content: bytes | Callable[[IO[bytes]], None]) -> tuple[Path, str]:
    """Writes and flushes a temporary file beside `path`; returns it with its SHA-256."""
    _make_folder(path.parent)
    # In the target's own folder: a rename across file systems is a copy, and a copy can be cut in half.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            hashing = _Hashing(file)
            try:
                if isinstance(content, bytes):
                    hashing.write(content)
                else:
                    content(cast(IO[bytes], hashing))
            except Exception as error:
                raise hashing.error or error from None  # torch turns a full disk into an error of its own
            file.flush()
            os.fsync(file.fileno())
        return temporary, hashing.digest.hexdigest()
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class _Hashing(io.RawIOBase):
    """Passes on what is written, hashes it on the way, and keeps the first error of the disk."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise


def _move(temporary: Path, path: Path) -> None:
    """Renames, and flushes the folder, so that the name is as durable as the content."""
    temporary.replace(path)
    _flush(path.parent)


def _make_folder(folder: Path) -> None:
    """Makes a folder with its parents, as durably as what is going to lie in it."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        _flush(each.parent)


def _flush(folder: Path) -> None:
    """Flushes the names in a folder."""
    if hasattr(os, "O_DIRECTORY"):  # Windows can neither open nor flush a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


def _go_on(producer: str) -> str:
    return "go on with `swinft fit --resume`" if producer == "swinft fit" else f"run `{producer}` again"


def json_bytes(value: Any, indent: int | None = 1) -> bytes:
    """JSON that every parser reads: numbers that are NaN or infinite become null."""

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
    """The commit record; None where there is none or it is damaged."""
    try:
        record = json.loads(_record(path).read_bytes())
        check = record.pop("check")
    except (OSError, ValueError, AttributeError, KeyError):
        return None
    return record if check == _check(record) else None


def _check(record: dict[str, Any]) -> str:
    """A record vouches for a file; this vouches for the record."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
