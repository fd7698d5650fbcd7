"""Unpacks a zip into a folder: members that lead elsewhere are refused, and no file is ever there by half."""

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from swinft.errors import InputError, StoreError, listed, number_of
from swinft.kaggle.transfer import check_space
from swinft.system.limits import format_bytes
from swinft.system.live import LiveLine
from swinft.system.status import Status
from swinft.whole_files import clear_left, own_suffix

CHUNK = 1 << 20
DIGITS = 16  # of a member's name in that of its temporary file: the name may be as long as a file's can be


@dataclass(frozen=True)
class FileRecord:
    """A file in its place: its path in the folder, its bytes and SHA-256."""

    name: str
    size: int
    sha256: str


def unpack(archive: Path, folder: Path, shown: str, overwrite: bool = False) -> list[FileRecord]:
    """Unpacks every member of a zip; files that are there already must be equal.

    Args:
        archive: The zip.
        folder: Where its members go.
        shown: The zip's name in messages.
        overwrite: Replace files that are there and differ.

    Raises:
        InputError: The zip is damaged, has a member that leads out of the folder, or would replace other files.
        StoreError: The disk is full or not writable.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = checked(opened, shown)
            _check_conflicts(infos, folder, shown, overwrite)
            check_space(folder, sum(info.file_size for info in infos if not (folder / info.filename).is_file()))
            clear_left(*{(folder / info.filename).parent for info in infos}, name=f"[0-9a-f]{{{DIGITS}}}")
            live, found = LiveLine(), []
            for number, info in enumerate(infos, 1):
                found.append(_extract(opened, info, folder))
                live.show(Status(f"unpacking {shown}  {number:,} of {number_of(len(infos), 'file')}"))
            live.clear()
            return found
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, StoreError):
            raise
        raise InputError(f"{shown} is damaged or not a zip ({error}). Delete {archive} and download again.") from error


def checked(archive: zipfile.ZipFile, shown: str) -> list[zipfile.ZipInfo]:
    """The files in a zip, after a check of every member's name.

    Raises:
        InputError: A member leads out of the folder, is a link, is encrypted, or is there twice.
    """
    infos = [info for info in archive.infolist() if not info.is_dir()]
    wrong, seen = [], set[str]()
    for info in infos:
        name = info.filename
        key = name.casefold() if os.name == "nt" else name
        flaw = (
            "is a path that leads out of the folder"
            if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name)
            else "is not a file's name"
            if not name.strip() or "\\" in name or not name.isprintable()
            else "is a link"
            if info.external_attr >> 28 == 0o12
            else "is encrypted"
            if info.flag_bits & 1
            else "exists twice"
            if key in seen
            else ""
        )
        seen.add(key)
        wrong += [f"'{name}' {flaw}"] if flaw else []
    if wrong:
        raise InputError(f"{shown} cannot be unpacked, and nothing was: {listed(wrong)}.")
    return infos


def inner_zips(folder: Path, files: list[FileRecord]) -> Iterator[tuple[Path, FileRecord]]:
    """The zips among unpacked files."""
    for file in files:
        path = folder / file.name
        if file.name.lower().endswith(".zip") and zipfile.is_zipfile(path):
            yield path, file


def _check_conflicts(infos: list[zipfile.ZipInfo], folder: Path, shown: str, overwrite: bool) -> None:
    """Checks that no other file is replaced, and that no member's folder is a file or a link that leads elsewhere."""
    root, other, outside = folder.resolve(), [], []
    for parent in sorted({str(PurePosixPath(info.filename).parent) for info in infos}):
        place = (folder / parent).resolve()
        if not place.is_relative_to(root) or (place.exists() and not place.is_dir()):
            outside.append(parent)
    if outside:
        raise InputError(
            f"in {folder}, {listed(outside)} is a file, or a link to another place. Choose another --output."
        )
    for info in infos:
        path = folder / info.filename
        if path.is_dir() or (os.path.lexists(path) and not overwrite and not _is_same(path, info)):
            other.append(info.filename)
    if other:
        raise InputError(
            f"{number_of(len(other), 'file')} of {shown} would replace other ones in {folder}: {listed(other)}. Choose "
            f"another folder with --output, or add --overwrite."
        )


def _is_same(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a file has a member's size and checksum."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != info.file_size:
        return False
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == info.CRC


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> FileRecord:
    """Writes one member beside its place and moves it there; its checksum is compared while it is read."""
    path, digest = folder / info.filename, hashlib.sha256()
    temporary = path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()[:DIGITS]}.{own_suffix()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, temporary.open("wb") as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)
                digest.update(chunk)
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}. Free some space, {format_bytes(info.file_size)} for "
            f"this file, or fix the folder's permissions; the same command continues."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return FileRecord(info.filename, info.file_size, digest.hexdigest())
