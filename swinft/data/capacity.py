"""Whether decoded pictures are kept: what they would take against what the machine has."""

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from swinft.data.images import ImageInfo
from swinft.data.shrink import shrunk_shape
from swinft.errors import InputError

Policy = bool | Literal["auto"]

MEMINFO = Path("/proc/meminfo")
MEMORY_SHARE = 0.6  # of what is available; the rest is for the network and what else runs
DEVICE_SHARE = 0.4  # of what is free on the device that trains; activations need more there
# A container may use less than the machine has, and its pictures in memory count as its own.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def needed_bytes(infos: Sequence[ImageInfo | None], image_size: tuple[int, int]) -> int:
    """What a cache takes on disk and in memory, from the headers of its files.

    Args:
        infos: From `scan`; None for files that cannot be decoded, which take nothing.
        image_size: Height and width of training, in pixels.
    """
    shapes = (shrunk_shape(info.height, info.width, image_size) for info in infos if info is not None)
    return sum(3 * math.prod(shape) for shape in shapes)


def available_memory() -> int:
    """Bytes that can be used without swapping."""
    try:
        lines = MEMINFO.read_text().splitlines()
        found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        found = []
    if not found:  # no Linux: all memory is the best that can be asked for everywhere
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [0]
    for limit in LIMITS:
        try:
            found.append(int(limit.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(found)


def fits(needed: int, path: Path) -> tuple[bool, str]:
    """Whether a cache file fits on the disk and stays in memory, and the numbers in words.

    Args:
        needed: Bytes.
        path: Where it goes; if it is there already, the disk is not asked.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    memory = int(MEMORY_SHARE * available_memory())
    need = f"the decoded pictures take {_size(needed)}"
    if not path.exists() and needed > free:
        return False, f"{need}, {folder} has {_size(free)} free"
    if needed > memory:  # the disk would be read anew each epoch, more bytes than the image files have
        return False, f"{need}, {MEMORY_SHARE:.0%} of the available memory are {_size(memory)}"
    return True, f"{need}, of {_size(free)} free on the disk and {_size(memory)} in memory"


def decide(policy: Policy, needed: int, path: Path) -> tuple[bool, str]:
    """Whether to use the cache, and a sentence that says which was chosen and why, for the caller to print.

    Args:
        policy: True and False leave no choice; `auto` uses it where it fits.
        needed: Bytes, from `needed_bytes`.
        path: Of the cache file, from `cache_path`.

    Raises:
        InputError: The policy is True and it does not fit.
    """
    if policy is False:
        return False, "Images are decoded each time they are read: the pixel cache is switched off."
    is_fitting, reason = fits(needed, path)
    if policy is True and not is_fitting:
        raise InputError(
            f"the pixel cache does not fit: {reason}. Set data.cache to auto or false (and data.augment_on to cpu), or "
            f"train at a smaller size."
        )
    chosen = "Images are decoded once" if is_fitting else "Images are decoded each time they are read"
    return is_fitting, f"{chosen}: {reason}."


def room_on_device(needed: int, free: int, device: str) -> str:
    """What training pictures take of a device's memory, in words.

    Args:
        needed: Bytes.
        free: Bytes of the device's memory that nothing uses.
        device: Its name.

    Raises:
        InputError: It is more than `DEVICE_SHARE` of what is free.
    """
    if needed > DEVICE_SHARE * free:
        raise InputError(
            f"the training pictures take {_size(needed)}, {DEVICE_SHARE:.0%} of what is free on {device} are "
            f"{_size(DEVICE_SHARE * free)}. Set data.augment_on to cpu, or lower data.image_size."
        )
    return f"{_size(needed)} of {_size(free)} that were free."


def _size(number: float) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e8 else f"{number / 1e6:.2f} MB"
