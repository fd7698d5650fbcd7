"""Decides whether decoded images are cached: their size against free disk and memory."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swinft.errors import InputError
from swinft.system.limits import available_memory, format_bytes

Policy = bool | Literal["auto"]

MEMORY_SHARE = 0.6  # of the available memory; the rest is for the network and other programs
DEVICE_SHARE = 0.4  # of the training device's free memory; activations need the larger part


@dataclass(frozen=True)
class CacheBudget:
    """Disk space and memory that decoded images may use.

    Args:
        folder: Folder of the cache.
        disk: Free bytes there; None if the cache exists already.
        memory: Bytes of memory that they may use.
        is_required: `data.loading.cache` is true: it is an error if they do not fit.
    """

    folder: Path
    disk: int | None
    memory: int
    is_required: bool = False

    @classmethod
    def of(cls, folder: Path, exists: bool, is_required: bool = False) -> "CacheBudget":
        """The current budget.

        Args:
            folder: Folder of the cache; it may not exist yet.
            exists: The cache exists already and needs no more disk space.
            is_required: As above.
        """
        present = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
        disk = None if exists else shutil.disk_usage(present).free
        return cls(present, disk, int(MEMORY_SHARE * available_memory()), is_required)

    @property
    def bytes(self) -> int:
        """The largest allowed size of the cache."""
        return self.memory if self.disk is None else min(self.disk, self.memory)

    def shortage(self, needed: int) -> str:
        """Why `needed` bytes do not fit, in words; empty if they do."""
        need = f"the decoded images take about {format_bytes(needed)}"
        if self.disk is not None and needed > self.disk:
            return f"{need}, {self.folder} has {format_bytes(self.disk)} free"
        if needed > self.memory:  # each epoch would read it from disk again, and it is larger than the files
            return f"{need}, {MEMORY_SHARE:.0%} of the available memory are {format_bytes(self.memory)}"
        return ""


def does_not_fit(reason: str) -> InputError:
    """The error for a required cache that does not fit."""
    return InputError(
        f"the pixel cache does not fit: {reason}. Set data.loading.cache to auto or false (and "
        f"data.loading.augment_on to cpu), or train at a smaller size."
    )


def check_device_budget(needed: int, free: int, device: str, reserved: int = 0) -> str:
    """Checks that training images fit into a device's memory; describes their size.

    Args:
        needed: Bytes of the images.
        free: Free bytes of the device's memory.
        device: Name of the device.
        reserved: Bytes that gradients and optimiser will need.

    Raises:
        InputError: The images need more than `DEVICE_SHARE` of what is left.
    """
    limit = DEVICE_SHARE * max(0, free - reserved)
    if needed > limit:
        without = f", without {format_bytes(reserved)} for gradients and optimiser," if reserved else ""
        raise InputError(
            f"the training images take {format_bytes(needed)}, {DEVICE_SHARE:.0%} of what is free on {device}{without} "
            f"are {format_bytes(limit)}. Set data.loading.augment_on to cpu, or lower data.image_size."
        )
    return f"{format_bytes(needed)} of {format_bytes(free)} that were free."
