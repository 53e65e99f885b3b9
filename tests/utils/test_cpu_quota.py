"""The CPU quota of control groups, read from files as Linux, Docker and Kubernetes show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from landmarks_fastai.utils import processors
from landmarks_fastai.utils.cpu_quota import cpu_quota
from landmarks_fastai.utils.processors import available_processors


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def mount(folder: Path, root: str, kind: str, options: str) -> str:
    escaped = str(folder).replace(" ", "\\040")
    return f"30 24 0:26 {root} {escaped} rw,nosuid shared:4 - {kind} {kind} {options}"


def describe(proc: Path, groups: str, *mounts: str) -> Path:
    """Write the files of a process."""
    write(proc / "cgroup", groups)
    write(proc / "mountinfo", "\n".join(["22 1 8:1 / / rw - ext4 /dev/sda1 rw", *mounts]))
    return proc


def test_quota_of_version_2_is_the_lowest_of_the_nested_groups(tmp_path: Path) -> None:
    unified = tmp_path / "with space"
    proc = describe(tmp_path / "proc", "0::/pod/container", mount(unified, "/", "cgroup2", "rw,nsdelegate"))
    write(unified / "cpu.max", "max 100000")
    write(unified / "pod" / "cpu.max", "150000 100000")
    write(unified / "pod" / "container" / "cpu.max", "400000 100000")
    assert cpu_quota(proc) == 1.5
    write(unified / "pod" / "container" / "cpu.max", "50000 100000")
    assert cpu_quota(proc) == 0.5
    write(unified / "pod" / "container" / "cpu.max", "max 100000")
    write(unified / "pod" / "cpu.max", "max 100000")
    assert cpu_quota(proc) is None


def test_quota_of_version_2_in_a_container_with_a_namespace(tmp_path: Path) -> None:
    proc = describe(tmp_path / "proc", "0::/", mount(tmp_path / "cgroup", "/", "cgroup2", "rw"))
    assert cpu_quota(proc) is None
    write(tmp_path / "cgroup" / "cpu.max", "200000 100000")
    assert cpu_quota(proc) == 2


def test_quota_of_version_1_in_a_container_whose_group_is_mounted(tmp_path: Path) -> None:
    folder = tmp_path / "cpu,cpuacct"
    groups = "5:memory:/docker/a1\n4:cpu,cpuacct:/docker/a1\n0::/docker/a1"
    memory = mount(tmp_path / "memory", "/docker/a1", "cgroup", "rw,memory")
    proc = describe(
        tmp_path / "proc", groups, memory, mount(folder, "/docker/a1", "cgroup", "rw,cpu,cpuacct")
    )
    write(folder / "cpu.cfs_quota_us", "-1")
    write(folder / "cpu.cfs_period_us", "100000")
    assert cpu_quota(proc) is None
    write(folder / "cpu.cfs_quota_us", "250000")
    assert cpu_quota(proc) == 2.5


@pytest.mark.parametrize("text", ["", "max", "zero 100000", "100000 0", "-5 100000"])
def test_unreadable_quota_counts_as_none(tmp_path: Path, text: str) -> None:
    proc = describe(tmp_path / "proc", "0::/", mount(tmp_path / "cgroup", "/", "cgroup2", "rw"))
    write(tmp_path / "cgroup" / "cpu.max", text)
    assert cpu_quota(proc) is None


def test_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (0.5, 1), (1.5, 2), (2.0, 2), (64.0, 8)])
def test_available_processors_follow_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(processors, "cpu_quota", lambda: quota)
    monkeypatch.delenv(processors.PROCESSORS_VARIABLE, raising=False)
    assert available_processors() == expected
