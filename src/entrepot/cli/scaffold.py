"""`entrepot init`: writes a new stack folder from the template that the package carries."""

import os
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from entrepot.errors import EntrepotError
from entrepot.settings import STACK_FILE, StackFolder

PRIVATE_FOLDERS = ("keys", "data")
"""Folders that only their owner may enter (mode 0700)."""


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The new folder. It must be empty or not exist.")],
) -> None:
    """Write a new stack: the reference architecture, ready to run, with a user `demo`."""
    scaffold(folder)
    typer.echo(
        f"Wrote a new stack to {folder}.\n"
        f"  run it      entrepot up {folder}\n"
        f"  send a file sftp -P 2222 -i {folder}/keys/demo demo@127.0.0.1\n"
        f"  change it   {folder}/{STACK_FILE}"
    )


def scaffold(folder: Path) -> None:
    """Write the stack's files and keys; raise EntrepotError when the folder is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EntrepotError(f"{folder} is not an empty folder. Name a new one; init never overwrites.")
    folder.mkdir(parents=True, exist_ok=True)
    for name in PRIVATE_FOLDERS:
        (folder / name).mkdir(mode=0o700)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.absolute().name).strip("-")[:64] or "entrepot"
    _write_template(files("entrepot.cli") / "template", folder, name)
    _write_keys(StackFolder(folder))
    for path in (*folder.rglob("*"), folder, folder.absolute().parent):
        _force_out(path)


def _force_out(path: Path) -> None:
    """Make a file or folder durable: what a server acknowledges later is of no use without the stack's secret and keys."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_template(source: Traversable, target: Path, name: str) -> None:
    for entry in source.iterdir():
        if entry.name == "__pycache__":
            continue
        if entry.is_dir():
            (target / entry.name).mkdir()
            _write_template(entry, target / entry.name, name)
        else:
            text = entry.read_text(encoding="utf-8")
            (target / entry.name).write_text(text.format(name=name) if entry.name == STACK_FILE else text, "utf-8")


def _write_keys(stack: StackFolder) -> None:
    import asyncssh  # slow to import; only this command needs it here

    keys = stack.folder / "keys"
    for name, comment in (("ssh_host_ed25519_key", "entrepot host key"), ("demo", "demo")):
        key = asyncssh.generate_private_key("ssh-ed25519", comment=comment)
        write_secret(keys / name, key.export_private_key())
        (keys / f"{name}.pub").write_bytes(key.export_public_key())
    write_secret(stack.secret_file, os.urandom(32).hex().encode() + b"\n")


def write_secret(path: Path, content: bytes) -> None:
    """Create a file that only its owner can read; never follow or overwrite what is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
