"""The folder of pixel caches: lists, locks and deletes its files.

A process that has mapped a cache holds a shared lock on the file, which the system releases when the process ends for
any reason. A locked file is not deleted.
"""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from swinft.system.limits import format_bytes
from swinft.whole_files import is_abandoned, own_suffix

try:
    import fcntl
except ImportError:  # Windows, where a mapped file cannot be deleted
    fcntl = None  # type: ignore[assignment]

HEADER = 4096  # bytes of JSON at a file's start: one page, so that the pixels start on one
FORMAT = "swinft-pixels-3"
PIXELS, INDEX = ".pixels", ".index"  # suffixes of a file with pixels, and of one without
KEEP_DAYS = 30  # a cache unused for longer is deleted when another is built
KEEP_SHARE = 0.5  # of the disk (free space plus caches) that caches may use when another is built
DAY = 86_400


@dataclass(frozen=True)
class CacheFile:
    """One file of a cache folder.

    Args:
        path: The file.
        bytes: Its size.
        used: Time of the last use, in seconds since 1970.
        purpose: Its content, in words.
    """

    path: Path
    bytes: int
    used: float
    purpose: str


def default_cache_folder() -> Path:
    """The folder of caches unless `data.loading.cache_dir` names another."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "swinft"


def cache_files(folder: Path) -> list[CacheFile]:
    """All caches in a folder, least recently used first."""
    found = []
    for path in (*folder.glob(f"*{PIXELS}"), *folder.glob(f"*{INDEX}")):
        try:
            stat = path.stat()
            found.append(CacheFile(path, stat.st_size, stat.st_mtime, _purpose(path)))
        except OSError:  # deleted in the meantime
            continue
    return sorted(found, key=lambda file: (file.used, file.path))


def prune(folder: Path, max_days: float | None = None, max_bytes: int | None = None) -> list[CacheFile]:
    """Deletes unused caches, least recently used first, and the remains of killed builds.

    Caches in use by a running process are not deleted.

    Args:
        folder: The caches' folder.
        max_days: Deletes caches unused for more days; None for no limit.
        max_bytes: Deletes caches until the rest has at most this size; None for no limit.

    Returns:
        The deleted caches.
    """
    files, deleted = cache_files(folder), []
    total, now = sum(file.bytes for file in files), time.time()
    for file in files:
        is_old = max_days is not None and now - file.used > max_days * DAY
        is_too_much = max_bytes is not None and total > max_bytes
        if (is_old or is_too_much) and _delete(file.path):
            deleted.append(file)
            total -= file.bytes
    _delete_leftovers(folder, {file.path.stem for file in files} - {file.path.stem for file in deleted})
    return deleted


def prune_before_build(folder: Path) -> None:
    """Prunes a folder to its limits before another cache is built; prints what was deleted."""
    used = sum(file.bytes for file in cache_files(folder))
    limit = int(KEEP_SHARE * (used + shutil.disk_usage(folder).free))
    deleted = prune(folder, KEEP_DAYS, limit)
    if deleted:
        size = format_bytes(sum(file.bytes for file in deleted))
        print(
            f"deleted {len(deleted)} old pixel caches in {folder}, {size}: not used for {KEEP_DAYS} days, or the "
            f"oldest of more than {KEEP_SHARE:.0%} of the disk. They are built again when needed.",
            file=sys.stderr,
        )


def lock_for_reading(file: IO[bytes]) -> None:
    """Locks a cache against deletion while it is mapped or open.

    Raises:
        OSError: It is being deleted.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError("it is being deleted") from None
        except OSError:  # a file system without locks: users must not delete caches in use there
            return


def is_in_use(path: Path) -> bool:
    """Whether a process has mapped a cache."""
    return not _while_unused(path, lambda: None)


def _delete(path: Path) -> bool:
    """Deletes a cache unless it is in use; returns whether it was deleted."""
    return _while_unused(path, path.unlink)


def _while_unused(path: Path, action: Callable[[], None]) -> bool:
    try:
        with path.open("rb") as file:
            if fcntl is not None:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            action()
    except OSError:  # in use, deleted already, or without permission
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
        kept = f" in {header['dtype']}" if path.suffix == PIXELS and "dtype" in header else ""
        return f"{header['rows']:,} {what} of {header['root']}, {shrunk}{kept}"
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"


def temporary_file(folder: Path, key: str) -> Path:
    """The file of a build by this process, in a folder that other machines may share, where process ids recur."""
    return folder / f".{key}.{own_suffix()}"


def leftovers(folder: Path, key: str) -> list[Path]:
    """Files of killed builds, while their lock is held: another machine may not see it, so its files must be old."""
    own = f"@{socket.gethostname()}.tmp"
    return [
        path
        for path in folder.glob(f".{key}.*.tmp")
        if "@" not in path.name or path.name.endswith(own) or is_abandoned(path)
    ]


def _delete_leftovers(folder: Path, kept: Collection[str]) -> None:
    """Deletes files of killed builds, and unused locks of deleted caches."""
    for lock in folder.glob(".*.lock"):
        key = lock.name[1:].removesuffix(".lock")
        left = leftovers(folder, key)
        if key in kept and not left:
            continue
        try:
            with FileLock(lock, timeout=0):
                for path in left:
                    path.unlink(missing_ok=True)
        except (Timeout, OSError):  # it is being built
            continue
