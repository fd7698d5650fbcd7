"""How much memory and how many cores this process may use, with the limits of containers and batch jobs."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
OWN_PAGES = Path("/proc/self/statm")
OWN_GROUPS = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")
# In cgroup v1, no limit is written as a huge number of bytes.
NO_LIMIT = 1 << 60


def available_memory() -> int:
    """Bytes that can be used without swapping and without the kernel killing the process.

    This is the minimum of the machine's free memory and of what each of the process's cgroups has left: its limit less
    its use, without page cache. The kernel can drop page cache, which includes the pixel cache.
    """
    found = [_machine_memory()]
    for folder in _groups("memory"):
        limit = _memory_limit(folder)
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
        if limit is not None and limit < NO_LIMIT:
            found.append(max(0, limit - max(0, used - _droppable(folder / "memory.stat"))))
    return min(found)


def total_memory() -> int:
    """Bytes of the machine's memory, or the limit of the process's cgroups if that is lower."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else NO_LIMIT
    limits = [limit for folder in _groups("memory") if (limit := _memory_limit(folder)) is not None]
    return min([machine, *limits])


@contextmanager
def within_memory() -> Iterator[None]:
    """Inside the block, memory that is not there is an error for the code that asks for it.

    Linux gives a process memory that it does not have, and kills it once it is used. Elsewhere nothing is limited.
    """
    try:
        import resource  # Unix only

        pages = int(OWN_PAGES.read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    there = pages * os.sysconf("SC_PAGE_SIZE") + available_memory()
    most = min([there, *(limit for limit in before if limit != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def available_cores() -> int:
    """Cores that this process may use, at least 1: by its CPU affinity and the CPU quotas of its cgroups."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(share) for folder in _groups("cpu") if (share := _cpu_quota(folder)) is not None]
    return max(1, min([bound, *quotas]))


def format_bytes(number: float) -> str:
    """`0.57 MB`, `12.34 GB`."""
    return f"{number / 1e9:.2f} GB" if number >= 1e8 else f"{number / 1e6:.2f} MB"


def _machine_memory() -> int:
    try:
        lines = MEMINFO.read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: free memory is unknown, so all of it is assumed
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else NO_LIMIT


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the process's cgroup and of its parents, in cgroup v2 and v1.

    In a container the process's path may be the host's, which does not exist there; the top folder is the container's.
    """
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and controller not in controllers.split(","):
            continue
        top = CGROUPS if number == "0" else CGROUPS / controller
        # cgroup v1 mounts cpu and cpuacct together, under either name.
        tops = [top] if number == "0" else [top, CGROUPS / controllers]
        for top in dict.fromkeys(tops):
            inside = Path(path.lstrip("/"))
            yield from (top / part for part in (inside, *inside.parents) if (top / part).is_dir())


def _memory_limit(folder: Path) -> int | None:
    """Bytes that a cgroup may use, in v2 and v1; None without a limit."""
    return _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")


def _number(path: Path) -> int | None:
    """The number in a file; None if the file is missing or contains `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _droppable(path: Path) -> int:
    """Bytes of page cache, which the kernel drops before it kills a process."""
    try:
        found = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
        names = ("total_inactive_file", "total_active_file")  # v1, with child groups
        if names[0] not in found:
            names = ("inactive_file", "active_file")
        return sum(int(found.get(name, 0)) for name in names)
    except (OSError, ValueError):
        return 0


def _cpu_quota(folder: Path) -> float | None:
    """The CPU quota of a cgroup, in cores; None without a limit."""
    try:
        words = (folder / "cpu.max").read_text().split()  # v2: quota and period in microseconds
    except OSError:
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        return quota / period if quota and period and quota > 0 else None
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None
