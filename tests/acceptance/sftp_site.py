"""An SFTP server with real rooms (SQLite, local content) in this process, and OpenSSH's clients against it.

For tests of the SFTP room alone; `tests/running.py` has the whole product as a process.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncssh

from entrepot.arns import Account
from entrepot.blobs.local import LocalBlobStore
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.loglines import LogLine
from entrepot.operations import Authorize, Decision, Permission, Principal
from entrepot.services import s3, transfer
from entrepot.services.s3 import buckets
from entrepot.services.s3.objects import ObjectCreated, ObjectDeleted, ObjectVersion
from entrepot.services.s3.service import S3
from entrepot.services.transfer import HomeDirectoryMapping, SshPublicKey, Transfer, User
from entrepot.sftp import SFTPServer, SFTPSettings

BUCKET = "source-bucket"
ROLE = "arn:aws:iam::000000000000:role/sftp"

KEYS = {name: asyncssh.generate_private_key("ssh-ed25519", comment=name) for name in ("host", "demo", "other")}

SETTINGS = SFTPSettings(port=0, penalty_exempt=("127.0.0.0/8",), drain_timeout_s=2)


def allow_all(principal: Principal, permission: Permission) -> Decision:
    return Decision(True, "test#AllowAll", "")


@dataclass
class Site:
    """The running server and what is behind it."""

    folder: Path
    server: SFTPServer
    transfer: Transfer
    s3: S3
    blobs: LocalBlobStore
    database: SQLiteDatabase
    created: list[ObjectCreated] = field(default_factory=list)
    deleted: list[ObjectDeleted] = field(default_factory=list)
    lines: list[tuple[str, str, LogLine]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.server.port

    async def head(self, key: str, bucket: str = BUCKET) -> ObjectVersion | None:
        return await self.database.read(lambda reader: self.s3.head(reader, bucket, key, content=True))

    async def content(self, key: str, bucket: str = BUCKET) -> bytes | None:
        version = await self.head(key, bucket)
        return None if version is None else await self.s3.read(version, 0, version.size_bytes)

    async def keys(self, bucket: str = BUCKET) -> list[str]:
        page = await self.database.read(lambda reader: self.s3.list_objects(reader, bucket))
        return [entry.key for entry in page.objects]

    async def put_user(self, user: User) -> None:
        await self.database.write(lambda tx: self.transfer.put_user(tx, user))

    def log(self, activity_type: str) -> list[dict[str, object]]:
        """The structured lines of one kind so far."""
        lines = [json.loads(line.message) for _, _, line in self.lines]
        return [line for line in lines if line["activity-type"] == activity_type]

    def key_file(self, name: str = "demo") -> Path:
        path = self.folder / f"{name}.key"
        if not path.exists():
            path.write_bytes(KEYS[name].export_private_key())
            path.chmod(0o600)
        return path

    async def sftp(self, *commands: str, user: str = "demo", options: tuple[str, ...] = (), check: bool = True) -> str:
        """Run OpenSSH's sftp in batch mode; return what it printed."""
        return await run(
            "sftp", "-q", "-b", "-", *ssh_options(self.key_file()), "-P", str(self.port), *options,
            f"{user}@127.0.0.1", stdin="\n".join(commands) + "\n", cwd=self.folder, check=check,
        )  # fmt: skip

    async def scp(self, *arguments: str, check: bool = True) -> str:
        """Run OpenSSH's scp."""
        return await run(
            "scp", "-q", *ssh_options(self.key_file()), "-P", str(self.port), *arguments, cwd=self.folder, check=check
        )

    @asynccontextmanager
    async def connect(self, user: str = "demo") -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Connect with asyncssh's client."""
        async with asyncssh.connect(
            "127.0.0.1", self.port, username=user, client_keys=[KEYS["demo"]], known_hosts=None, config=None
        ) as connection:
            yield connection


def ssh_options(key_file: Path) -> tuple[str, ...]:
    """Options that make OpenSSH's clients use this key, no configuration, and ask nothing."""
    return (
        "-F", "none", "-i", str(key_file), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
    )  # fmt: skip


class ClientError(AssertionError):
    """A client ended with an error; the text has its output."""


async def run(*arguments: str, stdin: str = "", cwd: Path, check: bool = True, timeout_s: float = 60) -> str:
    """Run a client; return its output, both streams."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(stdin.encode()), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    text = output.decode(errors="replace")
    if check and process.returncode != 0:
        raise ClientError(f"{arguments[0]} exited {process.returncode}:\n{text}")
    return text


async def until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Wait for a condition with a deadline."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def demo_user(**changes: object) -> User:
    """A user with the home directory /source-bucket/home and the key `demo`."""
    key = SshPublicKey(KEYS["demo"].export_public_key().decode().strip())
    user = User("demo", ROLE, f"/{BUCKET}/home", tags={"customer_id": "c1"}, ssh_public_keys=(key,))
    return replace(user, **changes)  # type: ignore[arg-type]


def logical(*mappings: tuple[str, str]) -> dict[str, object]:
    """What makes `demo_user` a LOGICAL one."""
    return {
        "home_directory": "",
        "home_directory_type": "LOGICAL",
        "home_directory_mappings": tuple(HomeDirectoryMapping(*mapping) for mapping in mappings),
    }


@asynccontextmanager
async def running(
    folder: Path, *, authorize: Authorize = allow_all, settings: SFTPSettings = SETTINGS, user: User | None = None
) -> AsyncIterator[Site]:
    """Run a server in this event loop."""
    database = SQLiteDatabase(folder / "ledger.db")
    database.migrate([*s3.MIGRATIONS, *transfer.MIGRATIONS])
    blobs = LocalBlobStore(folder / "content")
    account = Account()
    created: list[ObjectCreated] = []
    deleted: list[ObjectDeleted] = []
    store = S3(
        database,
        blobs,
        account,
        on_object_created=lambda tx, event, call: created.append(event),
        on_object_deleted=lambda tx, event, call: deleted.append(event),
    )
    service = Transfer(database, account)
    await service.start()
    for name in (BUCKET, "second-bucket"):
        await database.write(lambda tx, name=name: buckets.create(tx, name))  # type: ignore[misc]
    host_key = folder / "host.key"
    host_key.write_bytes(KEYS["host"].export_private_key())
    lines: list[tuple[str, str, LogLine]] = []
    server = SFTPServer(
        replace(settings, host_keys=(str(host_key),)),
        service,
        store,
        blobs,
        database,
        authorize,
        lambda group, stream, line: lines.append((group, stream, line)),
        storage_folder=folder,
    )
    await server.start()
    site = Site(folder, server, service, store, blobs, database, created, deleted, lines)
    await site.put_user(user or demo_user())
    try:
        yield site
    finally:
        await server.stop()
        await database.close()
        await blobs.close()
