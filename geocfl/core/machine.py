"""Cores and memory that this process may use: what affinity and the quotas of a container or a job leave."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux mounts control groups, and the file that names those of this process."""


def cores() -> int:
    """Number of CPU cores that this process may use, >= 1: a quota of 1.5 cores counts as 2."""
    quota = core_quota()
    return allowed_cores() if quota is None else max(1, min(allowed_cores(), math.ceil(quota)))


def threads_within_quota() -> int | None:
    """Threads for libraries, which heed affinity but no quota; None if there is no quota to heed."""
    return cores() if cores() < allowed_cores() else None


def allowed_cores() -> int:
    """Number of CPU cores that the system may run this process on, whatever its quota."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not available on every system
        return os.cpu_count() or 1


def core_quota() -> float | None:
    """CPU cores' worth of time that the control groups of this process grant; None if they set no limit.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (``cpu.max``) and
    https://docs.kernel.org/scheduler/sched-bwc.html (version 1).
    """
    found = []
    for group in _groups("cpu"):
        text = _read(group / "cpu.max") or f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def free_memory() -> int:
    """Bytes of memory that this process can still take: those free on the machine and in its control groups."""
    return min([int(psutil.virtual_memory().available), *_free_in_groups()])


def _free_in_groups() -> Iterator[int]:
    """Bytes below each limit; the system drops inactive cached files if a limit is reached.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (``memory.max``) and
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
    """
    for group in _groups("memory"):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        used = _read(group / "memory.current") or _read(group / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit():
            stated = dict(line.split() for line in _read(group / "memory.stat").splitlines())
            cached = int(stated.get("total_inactive_file", stated.get("inactive_file", 0)))
            yield max(0, int(limit) - max(0, int(used) - cached))


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups that limit this process, from its own to the outermost, of either version.

    In a container, the path of the process may lie outside what is mounted; what is mounted then is its own group.
    """
    for line in _read(OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):  # version 1
            mounts = [GROUPS / controllers, GROUPS / controller]
        elif not controllers:  # version 2, on its own or beside version 1
            mounts = [GROUPS, GROUPS / "unified"]
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for mount in dict.fromkeys(mounts):
            yield from (folder for folder in (mount / inside, *(mount / each for each in inside.parents)))


def _read(path: Path) -> str:
    """The text of a system file; empty if there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
