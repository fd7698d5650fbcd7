"""How much memory a device has, and how much of it this process has used."""

import os
import sys
from dataclasses import dataclass

import torch

from swinft.system.limits import format_bytes, total_memory

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of `ru_maxrss`


@dataclass(frozen=True)
class MemoryUse:
    """Memory of a device, in bytes.

    Args:
        peak: This process's peak, with memory that is cached for reuse.
        tensors: The peak of this process's tensors; None if unknown.
        others: Current use by other processes and the driver; None if unknown.
        total: Size of the device's memory.
    """

    peak: int
    tensors: int | None
    others: int | None
    total: int

    def describe(self) -> str:
        """`14.20 GB of 15.84 GB, 12.10 GB of them tensors`."""
        tensors = "" if self.tensors is None else f", {format_bytes(self.tensors)} of them tensors"
        return f"{format_bytes(self.peak)} of {format_bytes(self.total)}{tensors}"


def memory_use(device: torch.device) -> MemoryUse:
    """A device's memory and this process's peak use of it; on the CPU, its resident memory."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        others = max(0, total - free - torch.cuda.memory_reserved(device))
        tensors = torch.cuda.max_memory_allocated(device)
        return MemoryUse(torch.cuda.max_memory_reserved(device), tensors, others, total)
    if device.type == "mps":  # no peak is recorded, but MPS keeps the memory that it has allocated
        return MemoryUse(torch.mps.driver_allocated_memory(), None, None, torch.mps.recommended_max_memory())
    return MemoryUse(peak_resident(), None, None, total_memory())


def peak_resident() -> int:
    """Peak resident memory of this process in bytes, without its children; 0 on Windows."""
    if os.name == "nt":
        return 0
    import resource  # Unix only

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
