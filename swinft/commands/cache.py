"""`swinft cache`: list the caches of decoded images with their sizes, or delete some."""

import re
import time
from pathlib import Path

from swinft.data.cache.folder import DAY, CacheFile, cache_files, default_cache_folder, is_in_use
from swinft.data.cache.folder import prune as prune_folder
from swinft.errors import InputError
from swinft.json_output import Output
from swinft.run.config.parser import call
from swinft.system.limits import format_bytes

UNITS = {"": DAY, "d": DAY, "day": DAY, "days": DAY, "h": 3600, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
TIMES = ("", "d", "day", "days", "h")


def cache(dir: str | None = None, prune: str | None = None) -> Output:
    """List the caches of decoded images, the least recently used first, or delete some of them.

    A cache that a running process uses is never deleted. A deleted cache is built again when it is needed.

    Args:
        dir: Folder of the caches, as data.loading.cache_dir; by default ~/.cache/swinft.
        prune: Delete caches not used for some time (`30d`, or `0` for all), or the least recently used ones beyond a
            total size (`20GB`).

    Raises:
        InputError: `dir` is not a folder, or `prune` is neither days nor a size.
    """
    folder = Path(dir).expanduser() if dir else default_cache_folder()
    if dir and not folder.is_dir():
        raise InputError(f"--dir {dir} is not a folder. Give that of data.loading.cache_dir, or leave it out.")
    if prune is not None:
        return _prune(folder, prune)
    files = cache_files(folder)
    print(f"{folder}: {_count(files)}")
    for file in files:
        used = _ago(time.time() - file.used)
        print(f"  {format_bytes(file.bytes):>10}  used {used}  {file.purpose}\n              {file.path}")
    return {"folder": folder, "caches": files}


def _prune(folder: Path, limit: str) -> Output:
    """Deletes the caches that `--prune` selects, and prints how many; returns those that are left, too."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", limit.strip())
    unit = next((name for name in UNITS if found and name.casefold() == found[2].casefold()), None)
    if found is None or unit is None:
        raise InputError(
            f"--prune {limit}: give days since the last use, such as 30d, or a size to keep, such as 20GB."
        )
    amount = float(found[1]) * UNITS[unit]
    kind = {"max_days": amount / DAY} if unit in TIMES else {"max_bytes": int(amount)}
    deleted = prune_folder(folder, **kind)
    left = cache_files(folder)
    used = sum(is_in_use(file.path) for file in left)
    in_use = f"; a running process uses {used:,} of them" if used else ""
    print(f"{folder}: deleted {_count(deleted)}; {_count(left)} left{in_use}")
    return {"folder": folder, "caches": left, "deleted": deleted}


def _count(files: list[CacheFile]) -> str:
    size = format_bytes(sum(file.bytes for file in files))
    return f"{len(files):,} cache{'s' if len(files) != 1 else ''}, {size}"


def _ago(seconds: float) -> str:
    """`5 min ago`, `3 h ago`, `12 days ago`."""
    if seconds < 7200:
        return f"{max(0, seconds) / 60:.0f} min ago"
    return f"{seconds / 3600:.0f} h ago" if seconds < 2 * DAY else f"{seconds / DAY:.0f} days ago"


def main(argv: list[str]) -> Output:
    """`swinft cache`."""
    return call(cache, "cache", argv)
