"""Landlock: which files a process may read, which it may write, and that it may not listen on a TCP port.

Each version of the kernel's interface knows more rights; those that it does not know are left out (`landlock(7)`).

Source: https://docs.kernel.org/userspace-api/landlock.html
"""

import os
import stat
from collections.abc import Iterable

from entrepot.sandbox import kernel

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
_ABI_1 = (1 << 13) - 1
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""What makes sense for a file; the kernel refuses the others there."""

READ = EXECUTE | READ_FILE | READ_DIR

BIND_TCP = 1
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1, 2

SIGNAL_SCOPE_ABI = 6
"""From this version on, signals and abstract sockets are confined too; from 4 on, listening on TCP ports."""

NETWORK_ABI = 4


def restrict(read_only: Iterable[str], read_write: Iterable[str], devices: Iterable[str]) -> int:
    """Confine this process for good to these paths (those that exist); return the interface's version, 0 for none.

    `devices` may be read and written, but nothing made there. OSError when the kernel refuses.
    """
    abi = kernel.landlock_abi()
    if abi == 0:
        return 0
    handled = _ABI_1 | (REFER if abi >= 2 else 0) | (TRUNCATE if abi >= 3 else 0) | (IOCTL_DEV if abi >= 5 else 0)
    network = BIND_TCP if abi >= NETWORK_ABI else 0
    scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL if abi >= SIGNAL_SCOPE_ABI else 0
    size_bytes = 24 if abi >= SIGNAL_SCOPE_ABI else 16 if abi >= NETWORK_ABI else 8
    ruleset = kernel.landlock_create_ruleset(handled, network, scoped, size_bytes)
    try:
        for path in read_only:
            _allow(ruleset, path, READ & handled)
        for path in read_write:
            _allow(ruleset, path, handled & ~IOCTL_DEV)
        for path in devices:
            _allow(ruleset, path, (READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV) & handled)
        kernel.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there cannot be read
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _ON_FILES
        kernel.landlock_add_path(ruleset, access, descriptor)
    finally:
        os.close(descriptor)
