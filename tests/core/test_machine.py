"""What affinity and control groups leave of a machine."""

from pathlib import Path

import pytest

from geocfl.core import machine

TOTAL = 64_000_000_000


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the mounted control groups, on a machine with 16 cores."""
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "mounted")
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "allowed_cores", lambda: 16)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: type("Memory", (), {"available": TOTAL}))
    return tmp_path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_without_control_groups_the_whole_machine_is_used(groups: Path) -> None:
    assert (machine.cores(), machine.core_quota(), machine.free_memory()) == (16, None, TOTAL)
    assert machine.threads_within_quota() is None


@pytest.mark.parametrize(("quota", "cores"), [("400000 100000", 4), ("150000 100000", 2), ("1000 100000", 1)])
def test_quota_of_version_2(groups: Path, quota: str, cores: int) -> None:
    write(groups, own="0::/job/step")
    write(groups / "mounted", cgroup__controllers="cpu memory")
    write(groups / "mounted/job", cpu__max=quota, memory__max="8000000000", memory__current="5000000000")
    write(groups / "mounted/job", memory__stat="anon 3000000000\ninactive_file 1500000000")
    write(groups / "mounted/job/step", cpu__max="max 100000", memory__max="max", memory__current="4000000000")
    assert machine.cores() == machine.threads_within_quota() == cores
    assert machine.free_memory() == 8_000_000_000 - 5_000_000_000 + 1_500_000_000


def test_quota_of_version_1_in_a_container_that_does_not_see_its_own_path(groups: Path) -> None:
    write(groups, own="5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n0::/")
    write(groups / "mounted/cpu,cpuacct", cpu__cfs_quota_us="300000", cpu__cfs_period_us="100000")
    write(groups / "mounted/memory", memory__limit_in_bytes="2000000000", memory__usage_in_bytes="2100000000")
    assert machine.cores() == 3
    assert machine.free_memory() == 0


def test_version_1_without_limits(groups: Path) -> None:
    write(groups, own="5:memory:/\n4:cpu:/")
    write(groups / "mounted/cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    write(groups / "mounted/memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="1")
    assert (machine.cores(), machine.free_memory()) == (16, TOTAL)


def test_quota_above_the_cores_of_the_affinity_changes_nothing(groups: Path) -> None:
    write(groups, own="0::/")
    write(groups / "mounted", cpu__max="6400000 100000")
    assert machine.cores() == 16
    assert machine.threads_within_quota() is None
