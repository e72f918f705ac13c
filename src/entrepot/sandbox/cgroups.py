"""Control groups (v2): one for each worker, where the server may make them.

That is so for root at the hierarchy's top, and for a service whose group was delegated to it (systemd: `Delegate=yes`); then the
server moves into a group of its own beside the functions', because a group that has controlled groups may hold no process.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "pids", "cpu")

CPU_WEIGHT = 50
"""Of a worker's group; the server's has the kernel's default, 100."""


@dataclass(frozen=True, slots=True)
class CgroupEvents:
    """What the kernel counted in a group."""

    out_of_memory_kills: int = 0
    peak_memory_bytes: int = 0


class Cgroups:
    """The groups of one server's workers, below `folder`; `controllers` are those that limit there."""

    def __init__(self, folder: Path, controllers: frozenset[str]) -> None:
        self.folder = folder
        self.controllers = controllers

    @classmethod
    def open(cls, name: str, own: Path | None = None) -> "Cgroups":
        """Make the folder `name` for workers' groups below our own group. OSError with the reason when that is not permitted."""
        own = own or _own_group()
        available = frozenset((own / "cgroup.controllers").read_text().split()) & frozenset(CONTROLLERS)
        folder = own / name
        folder.mkdir(exist_ok=True)
        if available:
            available = _delegate(own, folder, available)
        return cls(folder, available)

    def make(self, name: str, *, memory_bytes: int, tasks: int) -> Path:
        """Make the group of a worker with its limits."""
        group = self.folder / name
        group.mkdir()
        if "memory" in self.controllers:
            (group / "memory.max").write_text(str(memory_bytes))
            (group / "memory.oom.group").write_text("1")
            with contextlib.suppress(OSError):  # a kernel without swap has no such file
                (group / "memory.swap.max").write_text("0")
        if "pids" in self.controllers:
            (group / "pids.max").write_text(str(tasks))
        if "cpu" in self.controllers:
            (group / "cpu.weight").write_text(str(CPU_WEIGHT))
        return group

    def close(self) -> None:
        """Remove all groups; those that still hold a process stay."""
        for group in self.folder.iterdir() if self.folder.is_dir() else ():
            if group.is_dir():
                remove(group)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def kill(group: Path) -> None:
    """Kill every process in the group at once (kernel 5.14 and later)."""
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1")


def remove(group: Path) -> None:
    """Remove a group without processes."""
    with contextlib.suppress(OSError):
        group.rmdir()


def events(group: Path) -> CgroupEvents:
    """Return what the kernel counted; zeros where it does not count memory."""
    kills = peak = 0
    with contextlib.suppress(OSError):
        for line in (group / "memory.events").read_text().splitlines():
            if line.startswith("oom_kill "):
                kills = int(line.split()[1])
    with contextlib.suppress(OSError):
        peak = int((group / "memory.peak").read_text())
    return CgroupEvents(kills, peak)


def _own_group() -> Path:
    path = next(
        (line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), None
    )
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    mounted = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    if path is None or mounted is None:
        raise FileNotFoundError("no cgroup v2 hierarchy is mounted")
    return Path(mounted + path.rstrip("/"))


def _delegate(own: Path, folder: Path, available: frozenset[str]) -> frozenset[str]:
    """Switch the controllers on for `folder` and its groups; return those that are."""
    moved = None
    if (own / "cgroup.type").exists():  # not the hierarchy's top: processes must be in leaves
        moved = own / "server"
        moved.mkdir(exist_ok=True)
        (moved / "cgroup.procs").write_text(str(os.getpid()))
    enabled = set()
    for name in sorted(available):
        try:
            (own / "cgroup.subtree_control").write_text(f"+{name}")
            (folder / "cgroup.subtree_control").write_text(f"+{name}")
        except OSError:
            continue
        enabled.add(name)
    if moved is not None and not enabled:
        (own / "cgroup.procs").write_text(str(os.getpid()))
        remove(moved)
    return frozenset(enabled)
