"""Every stock client × every operation, against the real server; the result is the table in docs/interoperability.md.

`ENTREPOT_WRITE_DOCS=1 pytest tests/acceptance/test_interoperability.py` writes the table anew.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.clients import CLIENTS, Client, WinSCP
from tests.running import Stack

PAGE = Path(__file__).parents[2] / "docs" / "interoperability.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
WRITE_DOCS = bool(
    os.environ.pop("ENTREPOT_WRITE_DOCS", "")
)  # Entrepot itself refuses ENTREPOT_* that it does not know.
STRANGE_NAME = "Größe und Maß, año 2026.txt"


class Trial:
    """One client with its own folder on the server, and local files to send."""

    def __init__(self, client: Any, scratch: Path) -> None:
        self.client = client
        self.scratch = scratch
        self.folder = type(client).__name__.lower()
        self.content = random.Random(7).randbytes(300_000)
        self.local = self.file("local.bin", self.content)

    def file(self, name: str, content: bytes) -> Path:
        path = self.scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def remote(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def stored(self, name: str) -> bytes:
        """Return what the server has, read through its S3 API and not through the client under test."""
        s3 = self.client.stack.client("s3")
        found: bytes = s3.get_object(Bucket="my-source-sftp-bucket", Key=f"demo/{self.remote(name)}")["Body"].read()
        return found

    def names(self) -> set[str]:
        s3 = self.client.stack.client("s3")
        page = s3.list_objects_v2(Bucket="my-source-sftp-bucket", Prefix=f"demo/{self.folder}/")
        return {found["Key"].removeprefix(f"demo/{self.folder}/") for found in page.get("Contents", [])}


def upload(trial: Trial) -> None:
    trial.client.put(trial.local, trial.remote("up.bin"))
    assert trial.stored("up.bin") == trial.content


def overwrite(trial: Trial) -> None:
    trial.client.put(trial.local, trial.remote("over.bin"))
    shorter = trial.file("shorter.bin", b"shorter")
    trial.client.put(shorter, trial.remote("over.bin"))
    assert trial.stored("over.bin") == b"shorter"


def empty_file(trial: Trial) -> None:
    trial.client.put(trial.file("empty", b""), trial.remote("empty"))
    assert trial.stored("empty") == b""


def strange_name(trial: Trial) -> None:
    trial.client.put(trial.file(STRANGE_NAME, b"Gr\xc3\xbc\xc3\x9fe"), trial.remote(STRANGE_NAME))
    assert trial.stored(STRANGE_NAME) == b"Gr\xc3\xbc\xc3\x9fe"


def keep_time(trial: Trial) -> None:
    os.utime(trial.local, (1_600_000_000, 1_600_000_000))
    trial.client.put_keeping_time(trial.local, trial.remote("timed.bin"))
    import paramiko

    other = WinSCP(trial.client.stack, trial.scratch)
    with other.sftp() as sftp:
        assert isinstance(sftp, paramiko.SFTPClient)
        found = sftp.stat(trial.remote("timed.bin")).st_mtime
    other.open.close()
    assert found == 1_600_000_000


def download(trial: Trial) -> None:
    trial.client.put(trial.local, trial.remote("down.bin"))
    back = trial.scratch / "back.bin"
    trial.client.get(trial.remote("down.bin"), back)
    assert back.read_bytes() == trial.content


def resume_download(trial: Trial) -> None:
    trial.client.put(trial.local, trial.remote("part.bin"))
    back = trial.file("part-back.bin", trial.content[:100_000])
    trial.client.resume_get(trial.remote("part.bin"), back)
    assert back.read_bytes() == trial.content


def resume_upload(trial: Trial) -> None:
    """The connection of an upload drops in its middle; the client goes on where it stopped."""
    name = "resumed.bin"
    if not isinstance(trial.client, WinSCP):
        interrupted_upload(trial.client.stack, trial.remote(name), trial.content[:150_000])
        assert name not in trial.names(), "a dropped connection published a part"
    trial.client.resume_put(trial.local, trial.remote(name))
    assert trial.stored(name) == trial.content


def interrupted_upload(stack: Stack, remote: str, part: bytes) -> None:
    """Write a part of a file and cut the connection without closing the file."""
    import asyncio

    import asyncssh

    async def cut() -> None:
        connection = await asyncssh.connect(
            "127.0.0.1",
            stack.sftp_port,
            username="demo",
            client_keys=[str(stack.folder / "keys" / "demo")],
            known_hosts=None,
            config=None,
        )
        sftp = await connection.start_sftp_client()
        file = await sftp.open(remote, "wb")
        await file.write(part)
        connection.abort()
        await connection.wait_closed()

    asyncio.run(cut())
    # The server parks what arrived when it notices that the connection is gone.
    from tests.running import wait_for

    other = WinSCP(stack, stack.folder.parent)

    def parked() -> bool:
        with other.sftp() as sftp:
            try:
                return sftp.stat(remote).st_size == len(part)
            except FileNotFoundError:
                return False
            finally:
                other.open.close()

    wait_for(parked, deadline_s=10, what="the parking of the interrupted upload")


def listing(trial: Trial) -> None:
    trial.client.put(trial.local, trial.remote("listed.bin"))
    assert "listed.bin" in trial.client.ls(trial.folder)


def make_folder(trial: Trial) -> None:
    trial.client.mkdir(trial.remote("new"))
    assert "new/" in trial.names()


def remove_folder(trial: Trial) -> None:
    trial.client.mkdir(trial.remote("old"))
    trial.client.rmdir(trial.remote("old"))
    assert "old/" not in trial.names()


def remove(trial: Trial) -> None:
    trial.client.put(trial.local, trial.remote("gone.bin"))
    trial.client.remove(trial.remote("gone.bin"))
    assert "gone.bin" not in trial.names()


def rename(trial: Trial) -> None:
    trial.client.put(trial.local, trial.remote("before.bin"))
    trial.client.rename(trial.remote("before.bin"), trial.remote("after.bin"))
    assert "before.bin" not in trial.names()
    assert trial.stored("after.bin") == trial.content


def upload_tree(trial: Trial) -> None:
    trial.file("tree/a.txt", b"a")
    trial.file("tree/sub/b.txt", b"b")
    trial.client.put_tree(trial.scratch / "tree", trial.remote("tree"))
    assert trial.stored("tree/a.txt") == b"a"
    assert trial.stored("tree/sub/b.txt") == b"b"


OPERATIONS: tuple[tuple[str, str, Callable[[Trial], None]], ...] = (
    ("upload", "put", upload),
    ("overwrite", "put", overwrite),
    ("empty file", "put", empty_file),
    ("spaces, umlauts", "put", strange_name),
    ("keep mtime", "put_keeping_time", keep_time),
    ("resume upload", "resume_put", resume_upload),
    ("download", "get", download),
    ("resume download", "resume_get", resume_download),
    ("list", "ls", listing),
    ("mkdir", "mkdir", make_folder),
    ("rmdir", "rmdir", remove_folder),
    ("remove", "remove", remove),
    ("rename", "rename", rename),
    ("upload a tree", "put_tree", upload_tree),
)


@pytest.mark.timeout(300)
def test_every_client_can_do_every_operation(tmp_path: Path) -> None:
    absent = [client.package for client in CLIENTS if client.missing()]
    if absent and not os.environ.get("CI"):
        pytest.skip(f"not installed: {', '.join(absent)}")
    assert not absent, f"these Debian packages must be installed: {absent}"
    rows, failures = [], []
    with Stack(tmp_path / "stack") as stack:
        for kind in CLIENTS:
            row = [kind.name]
            client = _client(kind, stack, tmp_path)
            for title, method, operation in OPERATIONS:
                if not hasattr(client, method):
                    row.append("–")
                    continue
                scratch = tmp_path / f"{kind.__name__}-{method}-{operation.__name__}"
                scratch.mkdir()
                try:
                    operation(Trial(client, scratch))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is the cell "no"
                    failures.append(f"{kind.name}: {title}: {error!r}")
                    row.append("no")
                else:
                    row.append("yes")
            rows.append(row)
    _compare(rows)
    assert not failures, "\n".join(failures)


def _client(kind: type[Client], stack: Stack, tmp_path: Path) -> Client:
    scratch = tmp_path / kind.__name__
    scratch.mkdir()
    client = kind(stack, scratch)
    stack.sftp(f"mkdir {kind.__name__.lower()}")
    return client


def _compare(rows: list[list[str]]) -> None:
    """Compare the table with the docs, or write it there."""
    titles = ["client", *(title for title, _, _ in OPERATIONS)]
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, ["---"] * len(titles), *rows)]
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    old, _, tail = rest.partition(END)
    table = "\n" + "\n".join(lines) + "\n"
    if WRITE_DOCS:
        PAGE.write_text(f"{head}{BEGIN}{table}{END}{tail}")
        return
    assert old == table, f"docs/interoperability.md is not what this run found:\n{table}"
