"""The folder of pixel caches: what is in it, what uses it, and what goes.

A process that has mapped a cache holds a lock on the file that all readers share; the system frees it when the last of
them ends, however it ends. What is held is not deleted.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from swinft.system.limits import format_bytes

try:
    import fcntl
except ImportError:  # Windows, which lets nobody delete a file that is mapped
    fcntl = None  # type: ignore[assignment]

HEADER = 4096  # bytes of JSON at a file's start: one page, so that the pixels start on one
FORMAT = "swinft-pixels-2"
PIXELS, INDEX = ".pixels", ".index"  # suffixes of a file with pixels, and of one without
KEEP_DAYS = 30  # a cache that nothing has used for so long is deleted when another is built
KEEP_SHARE = 0.5  # of the disk that caches may take when another is built: the free part and theirs
DAY = 86_400


@dataclass(frozen=True)
class CacheFile:
    """One file of a cache folder.

    Args:
        path: The file.
        bytes: Its size.
        used: When it was used last, in seconds since 1970.
        purpose: What is in it, in words.
    """

    path: Path
    bytes: int
    used: float
    purpose: str


def default_cache_folder() -> Path:
    """Where caches are kept if `data.loading.cache_dir` names no other folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "swinft"


def cache_files(folder: Path) -> list[CacheFile]:
    """All caches in a folder, the one that was used longest ago first."""
    found = []
    for path in (*folder.glob(f"*{PIXELS}"), *folder.glob(f"*{INDEX}")):
        try:
            stat = path.stat()
            found.append(CacheFile(path, stat.st_size, stat.st_mtime, _purpose(path)))
        except OSError:  # deleted this very moment
            continue
    return sorted(found, key=lambda file: (file.used, file.path))


def prune(folder: Path, max_days: float | None = None, max_bytes: int | None = None) -> list[CacheFile]:
    """Deletes caches that were not used for some days, and more, oldest first, until the rest takes some bytes.

    What a running process uses stays. What killed builders left goes.

    Args:
        folder: The caches' folder.
        max_days: Days since the last use that are kept; None for any number.
        max_bytes: What all caches may take; None for any size.

    Returns:
        What was deleted.
    """
    files, deleted = cache_files(folder), []
    total, now = sum(file.bytes for file in files), time.time()
    for file in files:
        is_old = max_days is not None and now - file.used > max_days * DAY
        is_too_much = max_bytes is not None and total > max_bytes
        if (is_old or is_too_much) and _delete(file.path):
            deleted.append(file)
            total -= file.bytes
    _delete_remains(folder, {file.path.stem for file in files} - {file.path.stem for file in deleted})
    return deleted


def prune_before_build(folder: Path) -> None:
    """Prunes a folder as its limits say, before another cache is built; says what has gone."""
    taken = sum(file.bytes for file in cache_files(folder))
    limit = int(KEEP_SHARE * (taken + shutil.disk_usage(folder).free))
    deleted = prune(folder, KEEP_DAYS, limit)
    if deleted:
        size = format_bytes(sum(file.bytes for file in deleted))
        print(
            f"deleted {len(deleted)} old pixel caches in {folder}, {size}: not used for {KEEP_DAYS} days, or the "
            f"oldest of more than {KEEP_SHARE:.0%} of the disk. They are built again where they are needed.",
            file=sys.stderr,
        )


def lock_for_reading(file: IO[bytes]) -> None:
    """Keeps a cache from being deleted for as long as it is mapped, or open.

    Raises:
        OSError: It is being deleted.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError("it is being deleted") from None
        except OSError:  # a file system without locks: whoever deletes there sees to it that nobody reads
            return


def is_in_use(path: Path) -> bool:
    """Whether a process has mapped a cache."""
    return not _while_unused(path, lambda: None)


def _delete(path: Path) -> bool:
    """Deletes a cache that nobody uses; returns whether it is gone."""
    return _while_unused(path, path.unlink)


def _while_unused(path: Path, action: Callable[[], None]) -> bool:
    try:
        with path.open("rb") as file:
            if fcntl is not None:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            action()
    except OSError:  # in use, gone already, or not ours to delete
        return False
    return True


def _purpose(path: Path) -> str:
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(HEADER))
        if header["format"] != FORMAT:
            return "made by another version of swinft"
        size = header["image_size"]
        shrunk = f"for {size[0]} × {size[1]} pixels" if size else "at full size"
        what = "images" if path.suffix == PIXELS else "hashes and sizes of images"
        return f"{header['rows']:,} {what} of {header['root']}, {shrunk}"
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"


def _delete_remains(folder: Path, kept: Collection[str]) -> None:
    """Deletes what killed builders left, and locks of caches that are gone; not while somebody holds them."""
    for lock in folder.glob(".*.lock"):
        key = lock.name[1:].removesuffix(".lock")
        remains = list(folder.glob(f".{key}.*.tmp"))
        if key in kept and not remains:
            continue
        try:
            with FileLock(lock, timeout=0):
                for path in remains:
                    path.unlink(missing_ok=True)
        except (Timeout, OSError):  # it is being built
            continue
