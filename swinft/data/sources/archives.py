"""Lists the members of zip and tar archives and their flaws, without unpacking anything."""

import posixpath
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from swinft.data.sources.container import MAX_BYTES
from swinft.errors import InputError

COMPRESSED_TARS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz and zstd


class Member(NamedTuple):
    """Position of an image in its archive."""

    start: int  # offset of a zip member's header, or of a tar member's bytes
    compressed_size: int
    size: int
    crc: int | None  # None in a tar
    is_deflated: bool
    flaw: str


def members(path: str) -> dict[str, dict[str, Member]]:
    """The members of an archive, by folder and name; parts of a name that lead out of the archive are removed.

    Raises:
        InputError: The archive is damaged, or its members cannot be read separately.
    """
    found: dict[str, dict[str, Member]] = defaultdict(dict)
    with open(path, "rb") as file:
        start = file.read(6)
    if start.startswith(COMPRESSED_TARS):
        raise InputError(f"{path} is compressed as a whole: unpack it to a .tar, whose members can be read separately.")
    try:
        for name, member in _zip(path) if start.startswith(b"PK") else _tar(path):
            slashed, flaw = name.replace("\\", "/"), member.flaw and f"'{name}' {member.flaw}"
            folder, last = posixpath.split(posixpath.normpath("/" + slashed).lstrip("/"))
            if slashed.startswith("/") or slashed[1:2] == ":" or ".." in slashed.split("/"):
                flaw = f"'{name}' is a path that leads out of the archive"
            elif last in found[folder]:
                flaw = f"'{name}' exists twice"
            found[folder][last] = member._replace(flaw=flaw)
    except (MemoryError, InputError):
        raise
    except Exception as error:  # damaged archives raise many types of errors
        raise InputError(
            f"{path} is damaged, incomplete, or not a zip or tar archive ({error}). Download it again."
        ) from error
    return dict(found)


def _zip(path: str) -> Iterator[tuple[str, Member]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                flaws = {
                    "is encrypted": info.flag_bits & 1,
                    "is a link": info.external_attr >> 28 == 0o12,
                    "uses an unsupported compression; only deflate is supported": info.compress_type not in (0, 8),
                    f"is {info.file_size:,} bytes, more than any image": info.file_size > MAX_BYTES,
                }
                sizes = info.compress_size, info.file_size, info.CRC
                yield info.filename, Member(info.header_offset, *sizes, info.compress_type == 8, _first(flaws))


def _tar(path: str) -> Iterator[tuple[str, Member]]:
    with tarfile.open(path, "r:") as archive:
        for info in archive:
            if not info.isdir():
                flaws = {
                    f"is a link to '{info.linkname}'": info.issym() or info.islnk(),
                    "is not a regular file": not info.isreg() or info.issparse(),
                    f"is {info.size:,} bytes, more than any image": info.size > MAX_BYTES,
                }
                yield info.name, Member(info.offset_data, info.size, info.size, None, False, _first(flaws))


def _first(flaws: Mapping[str, object]) -> str:
    return next((text for text, is_so in flaws.items() if is_so), "")
