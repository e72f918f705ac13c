"""What a function sees of the file system: lists of paths, and a root of its own where mount namespaces are permitted.

The root is AWS's: code in `/var/task`, layers in `/opt`, one writable folder `/tmp`. Beside them are the system's programs and
libraries, Python's installation and a few files of `/etc`, all from the machine and read-only; nothing else exists there.
"""

import os
import sys
from collections.abc import Iterable

from entrepot.sandbox import kernel

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
"""Programs and libraries."""

_ETC_NAMES = """
    alternatives ca-certificates crypto-policies gai.conf group host.conf hosts ld.so.cache ld.so.conf ld.so.conf.d
    localtime mime.types nsswitch.conf os-release passwd pki protocols resolv.conf services ssl timezone
"""
ETC = tuple(f"/etc/{name}" for name in _ETC_NAMES.split())
"""What libraries read of /etc; no shadow, no keys, no other program's configuration."""

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

TASK, LAYERS, SCRATCH = "/var/task", "/opt", "/tmp"  # noqa: S108 - AWS's names, in a root of its own


def python_folders() -> list[str]:
    """Return where Python and its packages are, without what is below another."""
    wanted = {sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))}  # noqa: PTH120
    wanted |= {os.path.realpath(path) for path in wanted}
    return [path for path in sorted(wanted) if path != "/" and not _is_below(path, (*SYSTEM, *(wanted - {path})))]


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def enter_root(
    root: str, *, read_only: Iterable[str], task: str, layers: str | None, scratch: str, own_proc: bool
) -> None:
    """Build a root on the empty folder `root` and enter it. For a process in a mount namespace of its own.

    `read_only` are paths that appear where they are on the machine. OSError when the kernel refuses a mount.
    """
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("entrepot", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=0755")
    _bind(scratch, root + SCRATCH, writable=True)  # first: Python itself may be installed below /tmp
    for path in (*SYSTEM, *ETC, *read_only):
        if os.path.islink(path) and path in SYSTEM:  # noqa: PTH114
            os.symlink(os.readlink(path), root + path)  # noqa: PTH115, PTH211
        elif os.path.exists(path):  # noqa: PTH110
            _bind(os.path.realpath(path), root + path, writable=False)
    _bind(task, root + TASK, writable=False)
    for name in os.listdir(layers) if layers else ():  # noqa: PTH208 - one by one: Python itself may be installed below /opt
        _bind(f"{layers}/{name}", f"{root}{LAYERS}/{name}", writable=False)
    for path in DEVICES:
        _bind(path, root + path, writable=True)
    os.symlink("/proc/self/fd", root + "/dev/fd")  # noqa: PTH211
    os.mkdir(root + "/proc")  # noqa: PTH102
    if own_proc:
        kernel.mount("proc", root + "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    else:
        kernel.mount("/proc", root + "/proc", "", kernel.MS_BIND | kernel.MS_REC)
    kernel.mount("none", root, "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)
    # Not pivot_root: to unmount the old root takes the kernel 15 ms. Who has no capabilities cannot leave, nor (in a chroot) make
    # a user namespace to get any; no descriptor leads outside, and Landlock's rules begin at this root.
    os.chroot(root)
    os.chdir("/")


def _bind(source: str, target: str, *, writable: bool) -> None:
    """Show `source`, a file or folder, at `target`, which is made."""
    if os.path.isdir(source):  # noqa: PTH112
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    kernel.mount(source, target, "", kernel.MS_BIND | kernel.MS_REC)
    if not writable:
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | _locked(target)
        kernel.mount("none", target, "", flags)


def _locked(path: str) -> int:
    """Return the mount's flags that a user namespace may not take away: they must be repeated."""
    flags = os.statvfs(path).f_flag
    return flags & (kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
