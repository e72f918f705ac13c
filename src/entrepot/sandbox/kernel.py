"""System calls that Python's library does not have, by ctypes. Every function raises OSError with the kernel's reason."""

import ctypes
import os
import struct

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

CLONE_NEWNS = 0x0002_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x4_0000

_CAPSET = {"x86_64": 126, "aarch64": 91, "riscv64": 91}
_LANDLOCK_FIRST = 444
"""landlock_create_ruleset; the two others follow. The same on every architecture."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _number(table: dict[str, int], name: str) -> int:
    number = table.get(os.uname().machine)
    if number is None:
        raise OSError(38, f"{name}: its number on {os.uname().machine} is not known here")
    return number


def prctl(option: int, value: int = 0) -> None:
    """prctl(2) with one numeric argument."""
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def name_process(name: str) -> None:
    """Set what `ps` and `top` show as the command's name (15 bytes)."""
    _libc.prctl(PR_SET_NAME, ctypes.create_string_buffer(name.encode()[:15]), 0, 0, 0)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, f"mount {source} on {target}")


def drop_capabilities() -> None:
    """Give up every capability, also for what is executed later."""
    for number in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) < 0:
            break  # beyond the last one, or not ours to drop: then there is none
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x2008_0522, 0))
    _check(_libc.syscall(_number(_CAPSET, "capset"), header, ctypes.create_string_buffer(24)), "capset")


def landlock_abi() -> int:
    """Return the version of Landlock's interface, 0 when the kernel has none or it is switched off."""
    result: int = _libc.syscall(_LANDLOCK_FIRST, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, result)


def landlock_create_ruleset(handled_fs: int, handled_net: int, scoped: int, size_bytes: int) -> int:
    """Return the descriptor of a new ruleset; `size_bytes` says how many members this kernel knows."""
    attributes = ctypes.create_string_buffer(struct.pack("=QQQ", handled_fs, handled_net, scoped))
    result = _libc.syscall(_LANDLOCK_FIRST, attributes, ctypes.c_size_t(size_bytes), ctypes.c_uint32(0))
    return _check(result, "landlock_create_ruleset")


def landlock_add_path(ruleset: int, access: int, descriptor: int) -> None:
    """Allow `access` beneath an open path."""
    rule = ctypes.create_string_buffer(struct.pack("=Qi", access, descriptor))
    _check(_libc.syscall(_LANDLOCK_FIRST + 1, ruleset, 1, rule, ctypes.c_uint32(0)), "landlock_add_rule")


def landlock_restrict_self(ruleset: int) -> None:
    """Enforce a ruleset on this thread and all that it starts, for good."""
    _check(_libc.syscall(_LANDLOCK_FIRST + 2, ruleset, ctypes.c_uint32(0)), "landlock_restrict_self")
