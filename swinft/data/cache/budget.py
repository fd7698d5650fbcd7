"""Whether decoded images are kept: what they would take against what the machine has."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swinft.errors import InputError
from swinft.system.limits import available_memory, format_bytes

Policy = bool | Literal["auto"]

MEMORY_SHARE = 0.6  # of what is available; the rest is for the network and what else runs
DEVICE_SHARE = 0.4  # of what is free on the device that trains; activations need more there


@dataclass(frozen=True)
class CacheBudget:
    """What decoded images may take.

    Args:
        folder: Where they go.
        disk: Bytes that are free there; None where they are there already.
        memory: Bytes of the available memory that they may take.
        is_required: The user has set `data.loading.cache` to true: it is an error if they do not fit.
    """

    folder: Path
    disk: int | None
    memory: int
    is_required: bool = False

    @classmethod
    def of(cls, folder: Path, is_there: bool, is_required: bool = False) -> "CacheBudget":
        """What there is now.

        Args:
            folder: Where they go; it need not be there yet.
            is_there: They are there already, and the disk is not asked.
            is_required: As above.
        """
        there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
        disk = None if is_there else shutil.disk_usage(there).free
        return cls(there, disk, int(MEMORY_SHARE * available_memory()), is_required)

    @property
    def bytes(self) -> int:
        """The most that they may take."""
        return self.memory if self.disk is None else min(self.disk, self.memory)

    def shortage(self, needed: int) -> str:
        """Why so many bytes do not fit, in words; empty where they do."""
        need = f"the decoded images take about {format_bytes(needed)}"
        if self.disk is not None and needed > self.disk:
            return f"{need}, {self.folder} has {format_bytes(self.disk)} free"
        if needed > self.memory:  # the disk would be read anew each epoch, more bytes than the image files have
            return f"{need}, {MEMORY_SHARE:.0%} of the available memory are {format_bytes(self.memory)}"
        return ""


def does_not_fit(reason: str) -> InputError:
    """The error of a cache that is wanted and does not fit."""
    return InputError(
        f"the pixel cache does not fit: {reason}. Set data.loading.cache to auto or false (and "
        f"data.loading.augment_on to cpu), or train at a smaller size."
    )


def check_device_budget(needed: int, free: int, device: str, reserved: int = 0) -> str:
    """What training images take of a device's memory, in words.

    Args:
        needed: Bytes.
        free: Bytes of the device's memory that nothing uses.
        device: Its name.
        reserved: Bytes of it that gradients and optimiser are going to take.

    Raises:
        InputError: It is more than `DEVICE_SHARE` of what is left for images and activations.
    """
    most = DEVICE_SHARE * max(0, free - reserved)
    if needed > most:
        besides = f", without {format_bytes(reserved)} for gradients and optimiser," if reserved else ""
        raise InputError(
            f"the training images take {format_bytes(needed)}, {DEVICE_SHARE:.0%} of what is free on {device}{besides} "
            f"are {format_bytes(most)}. Set data.loading.augment_on to cpu, or lower data.image_size."
        )
    return f"{format_bytes(needed)} of {format_bytes(free)} that were free."
