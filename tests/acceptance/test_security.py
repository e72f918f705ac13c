"""What a running server leaves open to others on its machine, and to the functions that it runs."""

import os
from pathlib import Path

from tests.running import Stack


def _open_to_others(folder: Path) -> list[str]:
    """Return what somebody else could read: a folder that is closed hides what is below it."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.lstat().st_mode & 0o077:
            found.append(str(path.relative_to(folder)))
            if path.is_dir():
                found += _open_to_others(path)
    return found


def _children(pid: int) -> list[Path]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [Path("/proc", child) for task in tasks for child in (task / "children").read_text().split()]


def test_data_and_keys_are_the_owners_alone_even_in_an_open_folder(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    (stack.folder / "data").chmod(0o755)
    (tmp_path / "big").write_bytes(os.urandom(100_000))
    with stack:
        stack.sftp(f"put {tmp_path}/big")
        stack.delivered("demo/big")
        assert _open_to_others(stack.folder / "data") == []
        keys = _open_to_others(stack.folder / "keys")
        assert all(name.endswith(".pub") for name in keys), keys
        stack.entrepot("backup", str(tmp_path / "copy.db"))
        assert (tmp_path / "copy.db").stat().st_mode & 0o077 == 0


def test_a_function_inherits_nothing_of_the_server(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    stack.sftp(f"put {tmp_path}/a")
    stack.delivered("demo/a")
    assert stack.process is not None
    secret = (stack.folder / "keys" / "secret").read_text().strip()
    (launcher,) = _children(stack.process.pid)
    assert "launcher" in (launcher / "cmdline").read_text()
    guards = _children(int(launcher.name))
    workers = [worker for guard in guards for worker in _children(int(guard.name))]
    assert workers
    for process in [launcher, *guards, *workers]:
        opened = {str(descriptor.readlink()) for descriptor in (process / "fd").iterdir()}
        # What goes wrong in the launcher and its guards is told where the server tells it; a function has no such way.
        told = set() if process in workers else {stack.log.name}
        strange = {target for target in opened - told if not target.startswith(("/dev/null", "pipe:[", "socket:["))}
        assert not strange, (process.name, strange)
        environment, arguments = (process / "environ").read_text(), (process / "cmdline").read_text()
        assert "ENTREPOT_" not in environment
        assert "AWS_SECRET_ACCESS_KEY" not in environment + arguments
        assert secret not in environment + arguments
