"""Who uploads: SFTP sessions (asyncssh), OpenSSH's sftp with a batch, and boto3; each notes in the book what it was told."""

import asyncio
import contextlib
import hashlib
import io
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import asyncssh
import boto3.s3.transfer
import botocore.config
import botocore.session
from botocore.loaders import Loader

from entrepot.aws import models
from tests.crash.book import Book, content_of
from tests.crash.pipelines import (
    COPY_SOURCE,
    FUNCTION_SOURCE,
    OPENSSH_USER,
    S3_OWNER,
    SHARED,
    TEMPORARY_SUFFIX,
    remote_path,
)
from tests.running import Stack

SIZES: Final = (0, 1, 4096, 4096, 4096, 32_768, 32_769, 150_000, 700_000, 2_500_000)
"""Mostly small; around the inline limit; some of several packets and write-behind batches."""

FILES_PER_CLIENT: Final = 40
BATCH_COMMANDS: Final = 12
MULTIPART_BYTES: Final = (5 << 20) + 70_000
PAUSE_LIMIT_S: Final = 0.03


class Api:
    """Clients of the public API of one life of the server, with the operator's key; made quickly, again and again."""

    _loader = Loader(extra_search_paths=[models.FOLDER])

    def __init__(self, stack: Stack) -> None:
        key = json.loads((stack.folder / "keys" / "operator.json").read_text())
        session = botocore.session.Session()
        session.register_component("data_loader", self._loader)
        self._make: Any = session.create_client
        self._options: dict[str, Any] = {
            "region_name": "us-east-1",
            "endpoint_url": stack.api,
            "aws_access_key_id": key["access_key_id"],
            "aws_secret_access_key": key["secret_access_key"],
            "config": botocore.config.Config(
                retries={"total_max_attempts": 1},
                connect_timeout=5,
                read_timeout=30,
                max_pool_connections=20,
                s3={"addressing_style": "path"},
            ),
        }
        self._clients: dict[str, Any] = {}

    def impatient(self, service: str, read_timeout_s: float) -> Any:
        """Return a client that waits for answers no longer than that."""
        config = self._options["config"].merge(botocore.config.Config(read_timeout=read_timeout_s))
        return self._make(service, **{**self._options, "config": config})

    def __call__(self, service: str) -> Any:
        """Return the client of a service."""
        if service not in self._clients:
            self._clients[service] = self._make(service, **self._options)
        return self._clients[service]


class Uploads:
    """The uploads of one round, until `stopping` is set or the server is gone."""

    def __init__(self, stack: Stack, api: Api, book: Book, number: int, seed: int, *, with_function: bool) -> None:
        self.stack = stack
        self.book = book
        self.number = number
        self.with_function = with_function
        self._api = api
        self._seed = seed
        self._contents = 0

    def _next(self, source: random.Random, owner: str) -> tuple[str, str, bytes]:
        """Return bucket, key and content: a new file, or a newer content for a key that others have."""
        bucket = source.choice((FUNCTION_SOURCE, COPY_SOURCE)) if self.with_function else COPY_SOURCE
        kind = source.random()
        if kind < 0.12:
            key = f"{owner}/hot/{bucket}-{source.randrange(2)}"
        elif kind < 0.22:
            bucket, key = COPY_SOURCE, f"{SHARED}/{source.randrange(3)}"
        elif kind < 0.27:
            bucket, key = COPY_SOURCE, f"{owner}/{self.number}/gated/{source.getrandbits(48):012x}"
        else:
            key = f"{owner}/{self.number}/{source.getrandbits(48):012x}"
        return bucket, key, self._content(key, source.choice(SIZES))

    def _content(self, key: str, size_bytes: int) -> bytes:
        self._contents += 1
        return content_of(key, self.number * 100_000 + self._contents, size_bytes)

    # ── SFTP ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def sftp_user(self, user: str) -> None:
        """Upload over several sessions, one after another: a session ends when its client gives up an upload."""
        source = random.Random(f"{self._seed}/{user}")
        files = 0
        while files < FILES_PER_CLIENT:
            async with self._session(user) as sftp:
                if source.random() < 0.5:
                    await sftp.makedirs(f"/copy/{self.number}", exist_ok=True)
                while files < FILES_PER_CLIENT:
                    files += 1
                    kind = source.random()
                    if kind < 0.05:
                        await self._give_up(sftp, source, user)
                        break
                    if kind < 0.25:
                        await self._renamed(sftp, source, user)
                    elif kind < 0.4:
                        await self._at_once(sftp, source, user)
                    else:
                        await self._upload(sftp, *self._next(source, user))
                    await asyncio.sleep(source.uniform(0, PAUSE_LIMIT_S))

    async def resuming_user(self, user: str) -> None:
        """Begin large uploads, lose the connection, and go on where the server says that they stand: now or in another life."""
        source = random.Random(f"{self._seed}/{user}/resuming")
        for _ in range(3):
            key = f"{user}/{self.number}/resumed-{source.getrandbits(48):012x}"
            content = self._content(key, 1_500_000)
            async with self._session(user) as sftp:
                self.book.begin((COPY_SOURCE, key), content[:900_000], whole=False)
                file = await sftp.open(remote_path(COPY_SOURCE, key), "wb")
                await file.write(content[: source.randrange(40_000, 900_000)])
            self.book.interrupted.append((key, content))
            if source.random() < 0.6:
                await self._resume(*self.book.interrupted.pop(source.randrange(len(self.book.interrupted))))

    async def _resume(self, key: str, content: bytes) -> None:
        path = remote_path(COPY_SOURCE, key)
        async with self._session(key.partition("/")[0]) as sftp:
            attempt = self.book.begin((COPY_SOURCE, key), content)
            try:
                there = (await sftp.stat(path)).size or 0
            except asyncssh.SFTPNoSuchFile:
                there = 0  # The server died, or has not seen the end of the first connection yet.
            file = await sftp.open(path, "r+b" if there else "wb")
            await file.write(content[there:], there)
            await _close(file)
            attempt.acknowledge()

    @contextlib.asynccontextmanager
    async def _session(self, user: str) -> AsyncIterator[asyncssh.SFTPClient]:
        connection = await asyncssh.connect(
            "127.0.0.1",
            self.stack.sftp_port,
            username=user,
            client_keys=[str(self.stack.folder / "keys" / "demo")],
            known_hosts=None,
            config=None,
            connect_timeout=20,
        )
        try:
            yield await connection.start_sftp_client()
        finally:
            connection.abort()

    async def _upload(self, sftp: asyncssh.SFTPClient, bucket: str, key: str, content: bytes) -> None:
        attempt = self.book.begin((bucket, key), content)
        await _send(sftp, remote_path(bucket, key), content)
        attempt.acknowledge()

    async def _at_once(self, sftp: asyncssh.SFTPClient, source: random.Random, user: str) -> None:
        """Several files that are open in one session at the same time; distinct, so that each key has an order."""
        files = {file[:2]: file for file in (self._next(source, user) for _ in range(5))}
        await _all(self._upload(sftp, *file) for file in files.values())

    async def _renamed(self, sftp: asyncssh.SFTPClient, source: random.Random, user: str) -> None:
        """Upload as WinSCP and others do: under a temporary name that is then changed."""
        bucket, _, content = self._next(source, user)
        key = f"{user}/{self.number}/renamed-{source.getrandbits(48):012x}"
        attempt = self.book.begin((bucket, key), content, temporary=f"{key}{TEMPORARY_SUFFIX}")
        await _send(sftp, remote_path(bucket, attempt.temporary), content)
        attempt.acknowledge_temporary()
        await sftp.posix_rename(remote_path(bucket, attempt.temporary), remote_path(bucket, key))
        attempt.acknowledge()

    async def _give_up(self, sftp: asyncssh.SFTPClient, source: random.Random, user: str) -> None:
        """Write a part; the session ends without CLOSE, so this must never be seen."""
        key = f"{user}/{self.number}/partial-{source.getrandbits(48):012x}"
        bucket = source.choice((FUNCTION_SOURCE, COPY_SOURCE))
        content = self._content(key, source.choice((4096, 300_000)))
        self.book.begin((bucket, key), content, whole=False)
        file = await sftp.open(remote_path(bucket, key), "wb")
        await file.write(content)

    # ── OpenSSH ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def openssh_user(self, folder: Path) -> None:
        """Upload with OpenSSH's sftp: it says each command of its batch before it runs it."""
        source = random.Random(f"{self._seed}/openssh")
        commands: list[tuple[str, Callable[[], None]]] = []
        for index in range(BATCH_COMMANDS // 2):
            key = f"{OPENSSH_USER}/{self.number}/{source.getrandbits(48):012x}"
            content = self._content(key, source.choice(SIZES))
            local = folder / f"{self.number}-{index}"
            local.write_bytes(content)
            path = remote_path(COPY_SOURCE, key)
            if source.random() < 0.5:
                attempt = self.book.begin((COPY_SOURCE, key), content)
                commands.append((f"put {local} {path}", attempt.acknowledge))
            else:
                attempt = self.book.begin((COPY_SOURCE, key), content, temporary=f"{key}{TEMPORARY_SUFFIX}")
                commands.append((f"put {local} {path}{TEMPORARY_SUFFIX}", attempt.acknowledge_temporary))
                commands.append((f"rename {path}{TEMPORARY_SUFFIX} {path}", attempt.acknowledge))
        process = await asyncio.create_subprocess_exec(
            "sftp", *self.stack.ssh_options("demo"), "-b", "-", f"{OPENSSH_USER}@127.0.0.1",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, errors = await process.communicate("".join(f"{text}\n" for text, _ in commands).encode())
        said = output.count(b"sftp> ")
        for _, acknowledge in commands[: said if process.returncode == 0 else max(0, said - 1)]:
            acknowledge()
        if process.returncode != 0:
            raise ConnectionError(f"sftp ended with {process.returncode}: {errors.decode(errors='replace')[-500:]}")

    # ── S3 ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def s3_user(self) -> None:
        """Put objects, some in parts."""
        source = random.Random(f"{self._seed}/s3")
        client = self._api("s3")
        for _ in range(FILES_PER_CLIENT):
            bucket, key, content = self._next(source, S3_OWNER)
            if source.random() < 0.04:
                content = self._content(key, MULTIPART_BYTES)
            attempt = self.book.begin((bucket, key), content)
            await asyncio.to_thread(_put, client, bucket, key, content)
            attempt.acknowledge()
            await asyncio.sleep(source.uniform(0, PAUSE_LIMIT_S))


def _put(client: Any, bucket: str, key: str, content: bytes) -> None:
    if len(content) < MULTIPART_BYTES:
        client.put_object(Bucket=bucket, Key=key, Body=content)
        return
    config = boto3.s3.transfer.TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    with boto3.s3.transfer.create_transfer_manager(client, config) as manager:
        manager.upload(io.BytesIO(content), bucket, key).result()


async def _send(sftp: asyncssh.SFTPClient, path: str, content: bytes) -> None:
    file = await sftp.open(path, "wb")
    await file.write(content)
    await _close(file)


async def _close(file: asyncssh.SFTPClientFile) -> None:
    """Return when the server has answered CLOSE. asyncssh's own `close` is silent when the connection is lost already."""
    if file._handler._writer is None:  # Nothing public tells it.
        raise ConnectionError("the connection was lost before CLOSE could be sent")
    await file.close()


async def _all(uploads: Iterable[Awaitable[None]]) -> None:
    """Run them together; all of them have ended when the first error is raised."""
    results = await asyncio.gather(*uploads, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def fingerprint(client: Any, bucket: str, key: str) -> str:
    """Return the SHA-256 of an object as it is downloaded."""
    digest = hashlib.sha256()
    for piece in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20):
        digest.update(piece)
    return digest.hexdigest()
