"""Sandboxes as the server sees them: the launcher that makes them, what this machine permits, and their life from start to end.

`best-effort` uses what there is and says loudly what is missing; `enforce` refuses to start a server that lacks a part.
"""

import array
import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from entrepot.errors import EntrepotError
from entrepot.sandbox import cgroups, guard, kernel, landlock, python
from entrepot.sandbox.cgroups import CgroupEvents, Cgroups
from entrepot.services.lambda_ import processes

Mode: TypeAlias = Literal["enforce", "best-effort"]

PROBE_LIMIT_S = 20.0
"""How long the launcher may take to find out what the machine permits."""

KILL_LIMIT_S = 3.0
"""A guard that has not answered after this time is killed itself."""

FILES_LIMIT = 1_024
TASKS_LIMIT = 1_024
"""Open files of a process, and processes with threads of a worker: AWS's limits."""

UIDS = range(1_879_100_000, 1_879_160_000)
"""Users of workers when the server is root: a range that distributions leave to nobody."""

_CONSEQUENCES = {
    guard.NAMESPACES: "functions see the machine's paths, and their scratch folder is not /tmp but in TMPDIR",
    guard.PROCESSES: "functions see other processes' names; what leaves their session is hunted down, not ended by the kernel",
    guard.USER: "functions run as root: only Landlock and dropped capabilities confine them",
    guard.LANDLOCK: "functions can open whatever the permissions of files allow the server's user",
    "landlock network": "functions can listen on TCP ports",
    "landlock signals": "functions can send signals to other processes of the same user",
    "control group": "what leaves a function's session is found by its parents, not by its group",
    "memory": "a function's memory is measured every 50 ms, not limited by the kernel",
    "pids": "the number of processes is limited for each user or by counting, not for each function",
    "cpu": "functions give way to the server by their nice value only",
}

_log = logging.getLogger("entrepot.lambda")
_LAUNCHER = Path(guard.__file__).with_name("launcher.py")


class IsolationError(EntrepotError):
    """The machine lacks a part of the isolation that the settings insist on, or the launcher cannot run."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A part of the isolation that this machine does not give: `what`, `why`, and what follows."""

    what: str
    why: str
    consequence: str

    def __str__(self) -> str:
        return f"no {self.what} ({self.why}): {self.consequence}"


@dataclass(frozen=True, slots=True)
class Process:
    """What is to run. `environment` is made from the paths as the process will see them."""

    name: str
    command: Sequence[str]
    handler: str
    task: Path
    layers: Path | None
    folder: Path
    read_only: Sequence[str]
    memory_bytes: int
    data_bytes: int
    file_bytes: int
    nice: int


class Isolation:
    """Starts sandboxes. For the event loop's thread; `open()` before the first."""

    def __init__(self, mode: Mode = "best-effort") -> None:
        self.mode = mode
        self.gaps: tuple[Gap, ...] = ()
        self.features: frozenset[str] = frozenset()
        self._cgroups: Cgroups | None = None
        self._launcher: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._number = 0
        self._readable: set[Path] = set()

    async def open(self) -> None:
        """Start the launcher and find out what there is. IsolationError when parts are missing and `enforce` is set."""
        loop = asyncio.get_running_loop()
        self._start_launcher()
        assert self._requests is not None
        try:
            async with asyncio.timeout(PROBE_LIMIT_S):
                answer = await loop.sock_recv(self._requests, guard.SPECIFICATION_LIMIT_BYTES)
            missing: dict[str, str] = json.loads(answer)
        except (OSError, ValueError, TimeoutError) as error:
            raise IsolationError(f"The launcher of functions ({_LAUNCHER}) does not answer: {error!r}") from error
        self.features = frozenset(guard.FEATURES) - missing.keys()
        self.gaps = tuple(_gaps(missing, self._open_cgroups()))
        if self.gaps and self.mode == "enforce":
            lines = "\n".join(f"  {gap}" for gap in self.gaps)
            raise IsolationError(
                f'This machine does not isolate functions fully, and isolation = "enforce" insists on it:\n{lines}\n'
                'Give the server what is missing, or set isolation = "best-effort" in [workers] of stack.toml.'
            )
        for gap in self.gaps:
            _log.warning("Functions are isolated less than they could be: %s", gap)

    async def check(self) -> tuple[Gap, ...]:
        """Return what is missing, without keeping anything open. IsolationError as `open()`."""
        try:
            await self.open()
        finally:
            self.close()
        return self.gaps

    def close(self) -> None:
        """End the launcher and remove the control groups."""
        self._end_launcher()
        if self._cgroups is not None:
            self._cgroups.close()

    def has(self, feature: str) -> bool:
        """Say whether sandboxes have a feature of `guard.FEATURES`."""
        return feature in self.features

    def task_path(self, process_task: Path) -> str:
        """Return where a process sees its code."""
        return "/var/task" if self.has(guard.NAMESPACES) else str(process_task)

    def layers_path(self, layers: Path) -> str:
        """Return where a process sees its layers."""
        return "/opt" if self.has(guard.NAMESPACES) else str(layers)

    def scratch_path(self, folder: Path) -> str:
        """Return where a process sees its scratch folder."""
        return "/tmp" if self.has(guard.NAMESPACES) else str(folder) + guard.SCRATCH_NAME  # noqa: S108

    def start(self, process: Process, environment: Mapping[str, str], output: int) -> "Sandbox":
        """Start a process; OSError or IsolationError when the system does not let us. `output` stays the caller's."""
        for name in (guard.ROOT_NAME, guard.SCRATCH_NAME):
            Path(str(process.folder) + name).mkdir(parents=True, mode=0o755)
        uid = UIDS[self._number % len(UIDS)]
        self._number += 1
        scratch = str(process.folder) + guard.SCRATCH_NAME
        os.chmod(scratch, 0o700)  # noqa: PTH101
        if self.has(guard.USER):
            os.chown(scratch, uid, uid)
            for code in filter(None, (process.task, process.layers)):
                self._let_read(code)
        group = None
        if self._cgroups is not None:
            group = self._cgroups.make(process.folder.name, memory_bytes=process.memory_bytes, tasks=TASKS_LIMIT)
        specification = {
            "features": sorted(self.features),
            "name": process.name,
            "command": list(process.command),
            "handler": process.handler,
            "environment": dict(environment),
            "task": str(process.task),
            "layers": str(process.layers) if process.layers else None,
            "folder": str(process.folder),
            "read_only": list(process.read_only),
            "uid": uid,
            "nice": process.nice,
            "limits": self._limits(process),
            "cgroup": str(group) if group else None,
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            ours.send(json.dumps(specification).encode())
            self._request(b"start", theirs.fileno(), output)
        return Sandbox(ours, group)

    def _let_read(self, code: Path) -> None:
        """Let other users read a folder of code; it lies in the stack's private folder, so nobody else gets this far."""
        if code in self._readable:
            return
        for folder, _, names in os.walk(code):
            os.chmod(folder, 0o755)  # noqa: PTH101, S103
            for name in names:
                path = os.path.join(folder, name)  # noqa: PTH118
                os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)  # noqa: PTH101, PTH116
        self._readable.add(code)

    def _limits(self, process: Process) -> dict[str, int]:
        own_count = self.has(guard.USER) or (self.has(guard.NAMESPACES) and os.geteuid() != 0)
        tasks = TASKS_LIMIT if own_count else processes.user_task_count() + processes.PROCESS_LIMIT
        return {
            "RLIMIT_CORE": 0,
            "RLIMIT_DATA": process.data_bytes,
            "RLIMIT_FSIZE": process.file_bytes,
            "RLIMIT_NOFILE": FILES_LIMIT,
            "RLIMIT_NPROC": tasks,
        }

    # ── the launcher ─────────────────────────────────────────────────────────────────────────────────────────────

    def _start_launcher(self) -> None:
        """Start it; it answers with its probe first, then makes its imports."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._launcher = subprocess.Popen(  # noqa: S603 - our own launcher
                [sys.executable, "-s", str(_LAUNCHER), str(os.getpid()), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": ":UTC"},
                start_new_session=True,
            )
        ours.setblocking(False)
        ours.send(b"probe")
        ours.send(b"import")
        self._requests = ours

    def _end_launcher(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._launcher is not None:
            self._launcher.kill()
            self._launcher.wait()
            self._launcher = None

    def _request(self, request: bytes, *descriptors: int) -> None:
        """Send a request; a launcher that is gone is started again."""
        for attempt in (1, 2):
            if self._requests is None or self._launcher is None or self._launcher.poll() is not None:
                self._end_launcher()
                self._start_launcher()
            assert self._requests is not None
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            try:
                self._requests.sendmsg([request], rights)
                return
            except (BrokenPipeError, ConnectionResetError):
                if attempt == 2:
                    raise
                self._end_launcher()

    # ── what there is ────────────────────────────────────────────────────────────────────────────────────────────

    def _open_cgroups(self) -> dict[str, str]:
        """Make our control groups; return {what is missing: why}."""
        try:
            self._cgroups = Cgroups.open(f"entrepot-{os.getpid()}")
        except OSError as error:
            reason = error.strerror or str(error)
            return dict.fromkeys(("control group", *cgroups.CONTROLLERS), reason)
        absent = "its controller is not delegated to the server, or bound to cgroup v1"
        return {name: absent for name in cgroups.CONTROLLERS if name not in self._cgroups.controllers}


def _gaps(missing: Mapping[str, str], groups: Mapping[str, str]) -> list[Gap]:
    found = dict(missing)
    if os.geteuid() != 0:
        found.pop(guard.USER, None)  # nothing to give up
    abi = kernel.landlock_abi()
    if guard.LANDLOCK not in found:
        if abi < landlock.NETWORK_ABI:
            found["landlock network"] = (
                f"the kernel's Landlock has version {abi}, which is below {landlock.NETWORK_ABI}"
            )
        if abi < landlock.SIGNAL_SCOPE_ABI:
            found["landlock signals"] = (
                f"the kernel's Landlock has version {abi}, which is below {landlock.SIGNAL_SCOPE_ABI}"
            )
    names = {"memory": "memory control group", "pids": "process control group", "cpu": "processor control group"}
    found |= groups
    return [Gap(names.get(what, what), why, _CONSEQUENCES[what]) for what, why in found.items()]


class Sandbox:
    """One sandboxed process, from its start to the end of everything that it started."""

    def __init__(self, control: socket.socket, group: Path | None) -> None:
        self.pid = self.guard_pid = 0
        self.error: str | None = None
        self._control = control
        self._group = group
        self._status: int | None = None
        self._on_end: Callable[[], None] | None = None
        self._killer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def watch(self, on_end: Callable[[], None]) -> None:
        """Call `on_end` when the process and all its descendants are gone."""
        self._on_end = on_end
        self._loop.add_reader(self._control, self.read)

    @property
    def returncode(self) -> int:
        """How the process ended: its exit status, or minus the number of the signal (-9 when nobody can say)."""
        return -9 if self._status is None else os.waitstatus_to_exitcode(self._status)

    @property
    def events(self) -> CgroupEvents:
        """What the kernel counted for it, where it has a control group for memory."""
        return CgroupEvents() if self._group is None else cgroups.events(self._group)

    def read(self) -> None:
        """Take what the guard and the process have said; before others rely on `pid`."""
        while True:
            try:
                data, ancillary, _, _ = self._control.recvmsg(4_096, socket.CMSG_SPACE(12))
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            if not data:
                self._end()
                return
            message: dict[str, Any] = json.loads(data)
            sender = struct.unpack("iII", ancillary[0][2])[0] if ancillary else 0
            if "hello" in message:
                self.pid = sender
            elif "status" in message:
                self._status = message["status"]
            elif "guard" in message:
                self.guard_pid = sender
            else:
                self.error = str(message.get("error"))

    def kill(self) -> None:
        """Kill the process and all that it started; `on_end` follows."""
        if self._group is not None:
            cgroups.kill(self._group)
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        if self._killer is None:
            self._killer = self._loop.call_later(KILL_LIMIT_S, self._kill_guard)

    def _kill_guard(self) -> None:
        _log.error("The guard of process %d does not answer; it is killed.", self.pid)
        for pid in (self.guard_pid, self.pid):
            if pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, 9)

    def _end(self) -> None:
        self._loop.remove_reader(self._control)
        self._control.close()
        if self._killer is not None:
            self._killer.cancel()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    def remove_group(self) -> None:
        """Remove the control group of an ended process; may take a moment."""
        if self._group is not None:
            cgroups.kill(self._group)
            cgroups.remove(self._group)


def needs_fresh_interpreter(folders: Sequence[Path], variables: Mapping[str, str]) -> bool:
    """Say whether a Python function brings packages or variables that the launcher's imports would belie."""
    if any(name.startswith(python.FRESH_VARIABLES) and name != "PYTHONPATH" for name in variables):
        return True
    for folder in folders:
        with contextlib.suppress(OSError):
            if any(name.partition(".")[0] in python.PREIMPORTED for name in os.listdir(folder)):  # noqa: PTH208
                return True
    return False
