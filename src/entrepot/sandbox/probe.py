"""What of the isolation this machine permits: each feature is tried, in a process that ends at once."""

import os
from collections.abc import Callable

from entrepot.sandbox import kernel, landlock
from entrepot.sandbox.guard import LANDLOCK, NAMESPACES, PROCESSES, USER, enter_namespaces


def probe() -> dict[str, str]:
    """Return {feature: why it is missing}; empty when all are there."""
    missing: dict[str, str] = {}
    for name, attempt in _ATTEMPTS.items():
        reason = _in_a_fork(attempt)
        if reason:
            missing[name] = reason
    if NAMESPACES in missing:
        missing[PROCESSES] = "it needs a mount namespace for its own /proc"
        missing[USER] = "it needs a mount namespace to reach its code, which lies in the server's private folder"
    return missing


def _in_a_fork(attempt: Callable[[], str]) -> str:
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.write(writer, attempt().encode())
        except OSError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        return answer.read()


def _landlock() -> str:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    return (
        "" if landlock.restrict(["/usr"], [], []) else "the kernel has none (it came with 5.13), or it is switched off"
    )


def _mount_namespace() -> str:
    enter_namespaces(frozenset({NAMESPACES}))
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("none", "/tmp", "tmpfs", 0)  # noqa: S108 - in a namespace that ends with this process
    return ""


def _process_namespace() -> str:
    enter_namespaces(frozenset({NAMESPACES, PROCESSES}))
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("proc", "/proc", "proc", 0)
    return ""


def _user() -> str:
    if os.geteuid() != 0:
        return "the server is not root, so it cannot become another"
    os.setgroups([])
    os.setresuid(65_534, 65_534, 65_534)
    return ""


_ATTEMPTS = {LANDLOCK: _landlock, NAMESPACES: _mount_namespace, PROCESSES: _process_namespace, USER: _user}
