"""What the C library does with memory that a network has freed: on a CPU, a sixth of a training step."""

import ctypes
import platform

import torch

# Of glibc's malloc.h, with its defaults. mallopt returns 0 for what it refuses.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
TRIM_THRESHOLD, MMAP_MAX = 128 * 1024, 65536


def keep_freed_memory(device: torch.device) -> bool:
    """Makes this process keep the memory that it frees, where tensors live in the C library's.

    glibc hands large blocks back to the system as soon as they are freed and gets them anew a moment later, page by
    page and cleared: once for every large activation of every step. The process stays as large as its largest step.

    Args:
        device: Where the network runs. Other devices have allocators of their own, which keep memory already.

    Returns:
        Whether it is kept now; other C libraries than glibc have no such setting, or need none.
    """
    if device.type != "cpu" or not _is_glibc():
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(M_MMAP_MAX, 0) and library.mallopt(M_TRIM_THRESHOLD, -1))


def return_freed_memory(_: int = 0) -> None:
    """Gives what this process has freed back to the system, and goes on doing so.

    For loader processes, as their `worker_init_fn`: a fork inherits what its parent keeps, and would hold the old
    content of every page that the parent's next step writes.
    """
    if _is_glibc():
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, MMAP_MAX)
        library.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
        library.malloc_trim(0)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
