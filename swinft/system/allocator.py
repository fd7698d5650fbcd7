"""glibc settings for freed memory: on a CPU, returning it to the system takes a sixth of a training step."""

import ctypes
import platform

import torch

# Parameters in glibc's malloc.h, and their defaults. mallopt returns 0 on error.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
TRIM_THRESHOLD, MMAP_MAX = 128 * 1024, 65536


def keep_freed_memory(device: torch.device) -> bool:
    """Makes this process keep freed memory for reuse, if the network runs on the CPU.

    By default, glibc returns a large block to the system as soon as it is freed. The next allocation then gets zeroed
    pages again, for every large activation of every step. With this setting the process stays at its peak size.

    Args:
        device: Where the network runs. Other devices have their own caching allocators.

    Returns:
        Whether freed memory is kept now; C libraries other than glibc have no such setting, or need none.
    """
    if device.type != "cpu" or not _is_glibc():
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(M_MMAP_MAX, 0) and library.mallopt(M_TRIM_THRESHOLD, -1))


def return_freed_memory(_: int = 0) -> None:
    """Returns this process's freed memory to the system, now and from now on.

    The `worker_init_fn` of loader workers: a forked worker inherits the memory that its parent keeps, and would hold a
    copy of every page that the parent's next step overwrites.
    """
    if _is_glibc():
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, MMAP_MAX)
        library.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
        library.malloc_trim(0)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
