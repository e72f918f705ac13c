"""PORT: the content store. Content is write-once and named by an opaque id; keys live in the database.

One implementation today: local files (`local.py`); S3 is to follow.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Blob:
    """Content that is complete and durable, or that will ride in the commit (`inline`).

    `blob_id` is None for inline content. Digests are raw bytes; a digest that was not asked for is None.
    """

    blob_id: str | None
    inline: bytes | None
    size_bytes: int
    sha256: bytes
    md5: bytes | None = None
    crc32: int | None = None


class BlobWriter(Protocol):
    """New content on its way. Small content stays in memory until `finish`; the rest streams to a temporary file."""

    @property
    def size_bytes(self) -> int:
        """The highest offset written so far."""
        ...

    async def write(self, offset_bytes: int, data: bytes) -> None:
        """Take `data` at an offset. Returns once it is queued within the writer's memory bound.

        A late failure of the disk (StorageFullError, StorageError) is raised by a later `write` or by `finish`.
        """
        ...

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return what has been written so far at an offset."""
        ...

    async def truncate(self, size_bytes: int) -> None:
        """Cut or extend (with zeros) the content."""
        ...

    async def flush(self) -> None:
        """Make what was written so far durable (SFTP's fsync@openssh.com)."""
        ...

    async def finish(self) -> Blob:
        """Make the content durable and give it its id; the writer can be used no more.

        The caller must commit a row that names `blob_id` soon; content that no row names is collected.
        """
        ...

    async def park(self) -> str | None:
        """Keep the unfinished content for a later `resume`; return its name, or None when there is nothing to keep."""
        ...

    async def abort(self) -> None:
        """Discard the content. Never raises for what is already gone."""
        ...


class BlobStore(Protocol):
    """The store of content."""

    def create(self, *, md5: bool = False, crc32: bool = False) -> BlobWriter:
        """Return a writer for new content. SHA-256 is always computed; MD5 and CRC-32 when asked for."""
        ...

    async def resume(self, parked: str, *, md5: bool = False) -> BlobWriter:
        """Return a writer that goes on with parked content; raise FileNotFoundError when it is gone.

        The parked content belongs to the writer from then on: park it again, or it is gone with `abort`.
        """
        ...

    async def read(self, blob_id: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return up to `length_bytes` of the content; fewer only at its end."""
        ...

    def stream(self, blob_id: str, offset_bytes: int, length_bytes: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a range in pieces of bounded size."""
        ...

    async def concatenate(self, blobs: list[Blob]) -> Blob:
        """Return one blob with the contents of several, in order (multipart uploads); sources stay."""
        ...

    def exists(self, blob_id: str) -> bool:
        """Return whether the content is there. Quick: the transaction that names a blob asks."""
        ...

    async def digest(self, blob_id: str) -> tuple[bytes, int]:
        """Read the content again, from the disk where possible; return its SHA-256 and size in bytes.

        Raises StorageError when it cannot be read or is not there.
        """
        ...

    async def remove(self, blob_id: str) -> None:
        """Delete the content; fine when it is gone already. Readers that began before may finish."""
        ...

    def list_ids(self, *, older_than_ms: int) -> AsyncIterator[list[str]]:
        """Yield the ids of all content that was finished before a time, in batches."""
        ...

    async def sweep(self) -> int:
        """Delete unfinished content of processes that died and parked content that expired; return how many."""
        ...

    async def close(self) -> None:
        """Wait for work under way and release threads and files."""
        ...
