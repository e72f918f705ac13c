"""Processes of workers as the kernel sees them: their memory, their children, and their end."""

import contextlib
import os
import signal
from pathlib import Path

NICE, HOG_NICE = 5, 19
"""Of workers, so that the server comes first, and of those that compute for long or died before."""

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

READ_BYTES = 64 * 1024
"""Most that is read of a file of /proc. The kernel gives a page at a time: 580 children, more than PROCESS_LIMIT."""

PROCESS_LIMIT = 256
"""Processes that a worker may have, itself included; one that has more is ended."""


def _read(path: str) -> bytes:
    """Return a small file of /proc: with three system calls, at a fifth of what Path costs, for it is read often."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, READ_BYTES)
    finally:
        os.close(descriptor)


def peak_memory_mb(pid: int) -> int:
    """Return the most memory that the process has had resident, in MB (0 when it is gone)."""
    try:
        status = _read(f"/proc/{pid}/status")
    except OSError:
        return 0
    at = status.find(b"VmHWM:")
    return 0 if at < 0 else -(-int(status[at + 6 : at + 40].split()[0]) // 1024)


def family(pid: int) -> list[int]:
    """Return the process and its descendants, at most a few more than PROCESS_LIMIT."""
    found = [pid]
    for member in found:
        if len(found) > PROCESS_LIMIT:
            break
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{member}/task"):  # noqa: PTH208 - names are all we want
                found += map(int, _read(f"/proc/{member}/task/{task}/children").split())
    return found


def resident_bytes(pids: list[int]) -> int:
    """Return the resident memory of a family: all of the first, and what the others do not share."""
    total = 0
    for index, pid in enumerate(pids):
        with contextlib.suppress(OSError):
            _, resident, shared = _read(f"/proc/{pid}/statm").split()[:3]
            total += int(resident) - (int(shared) if index else 0)
    return total * PAGE_BYTES


def processor_s(pids: list[int]) -> float:
    """Return the processor time that these processes and the children that they have waited for have taken."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS_PER_S


def lower_priority(pids: list[int]) -> None:
    """Let these processes have the processor after others."""
    _set_nice(pids, HOG_NICE)


def raise_priority(pids: list[int]) -> bool:
    """Undo `lower_priority`; False when this server may not."""
    return _set_nice(pids, NICE)


def _set_nice(pids: list[int], nice: int) -> bool:
    """Set the nice value of all threads, and of the sessions' groups of the scheduler."""
    try:
        for pid in pids:
            for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names are all we want
                os.setpriority(os.PRIO_PROCESS, int(task), nice)
        with contextlib.suppress(FileNotFoundError):  # a kernel without such groups
            Path(f"/proc/{pids[0]}/autogroup").write_text(str(nice))
    except (PermissionError, IndexError):
        return False
    except OSError:  # gone meanwhile, or too often in a short time
        return nice != NICE
    return True


def available_memory_bytes() -> int:
    """Return what the machine can still give, a large number when it does not say."""
    try:
        text = _read("/proc/meminfo")
    except OSError:
        return 1 << 62
    at = text.find(b"MemAvailable:")
    return 1 << 62 if at < 0 else int(text[at + 13 : at + 40].split()[0]) * 1024


def user_task_count() -> int:
    """Return how many tasks this user has: what RLIMIT_NPROC counts."""
    uid, count = os.getuid(), 0
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all we want
        with contextlib.suppress(OSError):
            if name.isdigit() and Path("/proc", name).stat().st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208 - names are all we want
    return count


def kill_marked(mark: bytes) -> int:
    """Kill every process of this user whose environment contains `mark`; return how many were found.

    Finds what left its process group, or outlived a server that was killed. `mark` must be a path of this stack.
    """
    own, total = os.getpid(), 0
    for _ in range(20):  # until none is left: a fork bomb makes new ones meanwhile
        found = 0
        for name in os.listdir("/proc"):  # noqa: PTH208 - names are all we want
            if name.isdigit() and int(name) != own:
                with contextlib.suppress(OSError):
                    if mark in Path("/proc", name, "environ").read_bytes():
                        os.kill(int(name), signal.SIGKILL)
                        found += 1
        total += found
        if not found:
            break
    return total
