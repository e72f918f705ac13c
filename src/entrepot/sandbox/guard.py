"""The guard of one function's process: makes its surroundings, starts it, reaps after it, and kills everything at the end.

It speaks to the server by a control socket (packets of JSON): it gets the *specification* first; the process says `{"hello": …}`
when it is tied down; the guard says `{"status": waitstatus}` when the process and all its descendants are gone. The end of the
socket means death: nothing outlives its server.

The specification (all paths are the machine's):

    features      names of FEATURES to use; one that fails then is an error, never a silent gap
    name          for `ps`
    command       [] runs the handler in this very process (Python, imports made already); else what to execute
    handler, environment
    task, layers, folder     code, layers or None, and a folder of this worker's own with `root` and `tmp` in it
    read_only     further paths that it may read
    nice          its nice value
    uid           the user to become (when the launcher is root)
    limits        {name of RLIMIT: value}
    cgroup        the folder of its control group, or None
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import time
from typing import Any, NoReturn

from entrepot.sandbox import filesystem, kernel, landlock

NAMESPACES, PROCESSES, USER, LANDLOCK = "mount namespace", "process namespace", "user", "landlock"
FEATURES = (NAMESPACES, PROCESSES, USER, LANDLOCK)
"""What may be missing on a machine. PROCESSES needs NAMESPACES, for its own /proc."""

SPECIFICATION_LIMIT_BYTES = 128 * 1024
ROOT_NAME, SCRATCH_NAME = "/root", "/tmp"  # noqa: S108 - names in a worker's folder
FAILED = 120
"""The exit status of a process that could not be tied down."""

KILL_LIMIT_S = 5.0
"""How long the guard hunts what forks faster than it is killed, where the kernel does not do it at once."""

TELEMETRY = 3
"""The descriptor of awslambdaric's log frames in the process; 0, 1 and 2 are the usual ones, and there are no others."""


def run(control: socket.socket, output: int) -> NoReturn:
    """Become the guard; for a fresh fork of the launcher."""
    specification = json.loads(control.recv(SPECIFICATION_LIMIT_BYTES))
    try:
        status = _run(specification, control, output)
    except OSError as error:
        _say(control, {"error": str(error)})
        os._exit(FAILED)
    _say(control, {"status": status})
    os._exit(0)


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the server is gone
        control.send(json.dumps(message).encode())


def _run(specification: dict[str, Any], control: socket.socket, output: int) -> int:
    """Start the process and wait for its end or for the server's word; return its wait status."""
    os.umask(0o022)
    if specification["cgroup"]:
        with open(specification["cgroup"] + "/cgroup.procs", "w") as file:  # noqa: PTH123
            file.write("0")
    features = frozenset(specification["features"])
    enter_namespaces(features)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    kernel.name_process("entrepot-guard")
    _say(control, {"guard": True})  # the kernel adds whose words these are
    if NAMESPACES in features:
        filesystem.enter_root(
            specification["folder"] + ROOT_NAME,
            read_only=[*filesystem.python_folders(), *specification["read_only"]],
            task=specification["task"],
            layers=specification["layers"],
            scratch=specification["folder"] + SCRATCH_NAME,
            own_proc=PROCESSES in features,
        )
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    guard_pid, child = os.getpid(), os.fork()
    if child == 0:
        become_process(specification, features, control, output, guard_pid)
    os.close(output)
    status = _wait(child, control, wake_reader)
    _kill_all(PROCESSES in features)
    return status


def enter_namespaces(features: frozenset[str]) -> None:
    """Enter new namespaces; with PROCESSES, go on as the first process of one (the caller's process ends)."""
    if NAMESPACES not in features:
        return
    if os.geteuid() != 0:
        uid, gid = os.geteuid(), os.getegid()
        kernel.unshare(kernel.CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
                file.write(text)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | (kernel.CLONE_NEWPID if PROCESSES in features else 0))
    if PROCESSES in features and os.fork():
        os._exit(0)


def _wait(child: int, control: socket.socket, wake: int) -> int:
    """Reap until the child ends; kill it when the server says so or is gone."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == wake:
                os.read(wake, 512)
            else:  # the socket's end, or a word that we do not know: both mean the end
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                poll.unregister(control)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 0
            if pid == 0:
                break
            if pid == child:
                return status


def _kill_all(first_of_namespace: bool) -> None:
    """Kill every descendant, whatever session or group it made for itself, and wait until all are gone."""
    end = time.monotonic() + KILL_LIMIT_S  # the guard is a process of its own, far from the server's clock
    while time.monotonic() < end:
        if first_of_namespace:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        else:
            for pid in _descendants():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def _descendants() -> list[int]:
    found = _children(os.getpid())
    for member in found:  # grows meanwhile
        found += _children(member)
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with open(f"/proc/{pid}/task/{task}/children") as file:  # noqa: PTH123
                children += map(int, file.read().split())
    return children


# ── the process itself ───────────────────────────────────────────────────────────────────────────────────────────────


def become_process(
    specification: dict[str, Any], features: frozenset[str], control: socket.socket, output: int, guard_pid: int
) -> NoReturn:
    """Tie this process down and run the handler; never returns."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard_pid:
            os._exit(FAILED)  # the guard is gone already
        os.setsid()
        version = tie_down(specification, features)
        control.send(json.dumps({"hello": {"landlock": version}}).encode())
        for target in (1, 2, TELEMETRY):
            os.dup2(output, target, inheritable=True)
        os.closerange(TELEMETRY + 1, 1 << 20)
    except OSError as error:
        _say(control, {"error": str(error)})
        os._exit(FAILED)
    environment = specification["environment"]
    if specification["command"]:
        os.execve(specification["command"][0], specification["command"], environment)  # noqa: S606
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    from entrepot.sandbox import python

    python.serve(specification["handler"], environment)


def tie_down(specification: dict[str, Any], features: frozenset[str]) -> int:
    """Take from this process all that it does not need; return Landlock's version (0: not used)."""
    kernel.name_process(specification["name"])
    _give_way(specification["nice"])
    for name, value in specification["limits"].items():
        _limit(getattr(resource, name), value)
    in_root = NAMESPACES in features
    task = filesystem.TASK if in_root else specification["task"]
    scratch = filesystem.SCRATCH if in_root else specification["folder"] + SCRATCH_NAME
    layers = filesystem.LAYERS if in_root else specification["layers"]
    os.chdir(task)
    if USER in features:
        uid = specification["uid"]
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # so that it may read its own /proc/self
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # another user: the kernel has forgotten it
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if LANDLOCK not in features:
        return 0
    if in_root:
        return landlock.restrict(["/"], [scratch], filesystem.DEVICES)  # nothing else exists there
    read_only = [
        *filesystem.SYSTEM,
        *filesystem.ETC,
        *filesystem.python_folders(),
        *specification["read_only"],
        "/proc",
    ]
    return landlock.restrict([*read_only, task, *([layers] if layers else [])], [scratch], filesystem.DEVICES)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)  # a stricter limit is in force already
    resource.setrlimit(kind, (value, value))


def _give_way(nice: int) -> None:
    """Let the server have the processor first: by the nice value, and that of the session's group of the scheduler."""
    with contextlib.suppress(OSError):
        os.nice(nice)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:  # noqa: PTH123
        file.write(str(nice))
