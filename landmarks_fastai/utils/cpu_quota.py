"""The CPU time that Linux control groups (cgroups) allow: how containers and schedulers limit processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc/self")


@dataclass(frozen=True)
class _Hierarchy:
    """A mounted hierarchy of control groups that limits CPU time.

    Parameters
    ----------
    version
        1 or 2.
    root
        The group that is mounted; in a container often not "/".
    mount_point
        Where it is mounted.
    """

    version: int
    root: str
    mount_point: Path


def cpu_quota(proc: Path = PROC) -> float | None:
    """Return the number of processors whose time this process may use, such as 1.5; None without limit.

    Groups are nested, and each may have a limit: the lowest applies.

    Parameters
    ----------
    proc
        Folder of the process in the file system proc: see cgroups(7) and proc_pid_mountinfo(5) of Linux.
    """
    try:
        groups = dict(_groups(proc))
        hierarchies = list(_hierarchies(proc))
    except OSError:  # another system, or hidden
        return None
    quotas = [
        quota
        for hierarchy in hierarchies
        for folder in _folders(hierarchy, groups.get(hierarchy.version, "/"))
        if (quota := _read_quota(folder, hierarchy.version)) is not None
    ]
    return min(quotas, default=None)


def _groups(proc: Path) -> Iterator[tuple[int, str]]:
    """Yield the group of the process in the hierarchy of version 2, and in that of version 1 for CPU time."""
    for line in (proc / "cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield 2, group
        elif "cpu" in controllers.split(","):
            yield 1, group


def _hierarchies(proc: Path) -> Iterator[_Hierarchy]:
    """Yield the hierarchies that may limit CPU time."""
    for line in (proc / "mountinfo").read_text().splitlines():
        mount, separator, file_system = line.partition(" - ")
        if not separator:
            continue
        kind, _, options = file_system.split(" ", 2)
        fields = mount.split()
        root, mount_point = (_unescape(field) for field in fields[3:5])
        if kind == "cgroup2":
            yield _Hierarchy(2, root, Path(mount_point))
        elif kind == "cgroup" and "cpu" in options.split(","):
            yield _Hierarchy(1, root, Path(mount_point))


def _unescape(field: str) -> str:
    r"""Replace the escapes of a path in mountinfo, such as \040 for a space."""
    return re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), field)


def _folders(hierarchy: _Hierarchy, group: str) -> list[Path]:
    """Return the folders of a group and of the groups around it that are visible."""
    inside = Path(group.lstrip("/"))
    if hierarchy.root != "/":
        root = Path(hierarchy.root.lstrip("/"))
        inside = inside.relative_to(root) if inside.is_relative_to(root) else Path()
    return [hierarchy.mount_point / part for part in (inside, *inside.parents)]


def _read_quota(folder: Path, version: int) -> float | None:
    """Return the limit of one group; None if it has none."""
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
        limit = float("inf") if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such group here, or not a limit
        return None
    return limit if 0 < limit < float("inf") else None
