"""Control groups of workers, on a folder that looks like one; the kernel's part is the acceptance tests' where it permits."""

import os
from pathlib import Path

import pytest

from entrepot.sandbox import cgroups
from entrepot.sandbox.cgroups import CgroupEvents, Cgroups


def own_group(folder: Path, controllers: str, *, delegated: bool) -> Path:
    own = folder / "own"
    own.mkdir()
    (own / "cgroup.controllers").write_text(controllers)
    (own / "cgroup.procs").touch()
    if delegated:
        (own / "cgroup.type").write_text("domain")
    return own


def test_a_worker_has_its_limits(tmp_path: Path) -> None:
    groups = Cgroups.open("functions", own_group(tmp_path, "cpu io memory pids", delegated=True))
    assert groups.controllers == {"memory", "pids", "cpu"}
    assert (tmp_path / "own" / "server" / "cgroup.procs").read_text() == str(os.getpid()), "processes live in leaves"
    group = groups.make("worker", memory_bytes=128 << 20, tasks=64)
    limits = {name: (group / name).read_text() for name in ("memory.max", "memory.oom.group", "pids.max", "cpu.weight")}
    assert limits == {"memory.max": str(128 << 20), "memory.oom.group": "1", "pids.max": "64", "cpu.weight": "50"}


def test_without_controllers_a_group_is_there_to_be_killed(tmp_path: Path) -> None:
    groups = Cgroups.open("functions", own_group(tmp_path, "hugetlb", delegated=False))
    assert not groups.controllers
    group = groups.make("worker", memory_bytes=1, tasks=1)
    assert not list(group.iterdir()), "no limit is written that nobody enforces"
    cgroups.kill(group)
    assert (group / "cgroup.kill").read_text() == "1"


def test_no_permission_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cgroup\.controllers"):
        Cgroups.open("functions", tmp_path / "absent")


def test_what_the_kernel_counted_is_read(tmp_path: Path) -> None:
    assert cgroups.events(tmp_path) == CgroupEvents(0, 0)
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n")
    (tmp_path / "memory.peak").write_text("1048576\n")
    assert cgroups.events(tmp_path) == CgroupEvents(3, 1_048_576)
