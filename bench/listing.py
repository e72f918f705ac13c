"""Servers with one very full folder: written through the ledger's own write path, not over SFTP, to save time."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import uvloop

from bench import servers
from bench.servers import Server
from entrepot import settings
from entrepot.blobs import Blob
from entrepot.composition import Composition
from entrepot.database import Transaction
from entrepot.settings import StackFolder

BUCKET = "bench-bucket"


def servers_with_full_folder(folder: Path, count: int, stack: ExitStack) -> Iterator[tuple[Server, str]]:
    """Yield each server with the path of a folder that holds `count` empty files."""
    ours = stack.enter_context(servers.entrepot(folder, function=False, home=BUCKET))
    assert ours.stack is not None
    ours.stack.stop()
    uvloop.run(_fill(ours.stack.folder, count))
    ours.stack.start()
    yield Server(ours.name, ours.stack.sftp_port, ours.user, ours.key, ours.folder, ours.stack), "full"
    for context in (servers.openssh, servers.rclone):
        peer = stack.enter_context(context(folder))
        if peer is None:
            continue
        full = folder / peer.name / "files" / "full"
        full.mkdir()
        for number in range(count):
            (full / f"{number:06d}").touch()
        yield peer, f"{peer.folder.rstrip('/')}/full"


async def _fill(folder: Path, count: int) -> None:
    place = StackFolder(folder)
    loaded = settings.load(place, {})
    rooms = Composition(place, loaded, folder / "data")
    empty = Blob(None, b"", 0, bytes(32))

    def publish(first: int, tx: Transaction) -> None:
        for number in range(first, min(first + 500, count)):
            rooms.s3.publish(tx, BUCKET, f"demo/full/{number:06d}", empty, rooms.root)

    for first in range(0, count, 500):
        await rooms.database.write(partial(publish, first))
        await asyncio.sleep(0)
    await rooms.close()
