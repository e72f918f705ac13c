"""Taking the body of a PUT or of a part: to the content store, verified against what the caller says of it."""

import asyncio
from collections.abc import AsyncIterable
from dataclasses import dataclass

from entrepot.blobs import Blob
from entrepot.errors import AwsError
from entrepot.operations import Request
from entrepot.services.s3 import checksums
from entrepot.services.s3.errors import (
    BadDigestError,
    EntityTooLargeError,
    IncompleteBodyError,
    InvalidDigestError,
    InvalidRequestError,
)
from entrepot.services.s3.multipart import PART_MAXIMUM_BYTES
from entrepot.services.s3.service import S3

THREAD_BYTES = 65_536
"""Pieces from this size on are summed in a thread: the event loop serves others meanwhile."""


@dataclass(frozen=True, slots=True)
class Received:
    """Content that arrived whole. `checksum` is Base64 in `algorithm` ('' when the caller wants none)."""

    blob: Blob
    md5_hex: str
    algorithm: str
    checksum: str

    def members(self) -> dict[str, str]:
        """Return the checksum as a member of a response or of a version's attributes."""
        return {f"Checksum{self.algorithm}": self.checksum} if self.algorithm else {}


def algorithm_of(request: Request) -> str:
    """Return the one checksum algorithm that the request names or uses; '' without one."""
    given = [name for name in checksums.ALGORITHMS if request.get(f"Checksum{name}") is not None]
    if len(given) > 1:
        raise InvalidRequestError("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
    named = str(request.get("ChecksumAlgorithm") or (given[0] if given else ""))
    if named and named not in checksums.ALGORITHMS:
        raise InvalidRequestError(f"Checksum algorithm provided is unsupported here: {named}")
    return given[0] if given else named


async def receive(service: S3, request: Request) -> Received:
    """Stream the request's Body into the content store.

    `Body` is bytes or an async iterable of bytes. The checksum is read from the request after the body has ended,
    since a trailer may bring it. Raises BadDigestError, EntityTooLargeError, IncompleteBodyError; then nothing is left.
    """
    md5 = request.get("ContentMD5")
    expected_md5 = None if md5 is None else checksums.decode_md5(md5)
    if md5 is not None and expected_md5 is None:
        raise InvalidDigestError
    length = request.get("ContentLength")
    if length is not None and length > PART_MAXIMUM_BYTES:
        raise EntityTooLargeError(length, PART_MAXIMUM_BYTES)
    algorithm = algorithm_of(request)
    running = checksums.Running(algorithm) if algorithm and checksums.needs_running(algorithm) else None
    writer = service.blobs.create(md5=True, crc32=algorithm == "CRC32")
    try:
        async for piece in _pieces(request.get("Body")):
            if writer.size_bytes + len(piece) > PART_MAXIMUM_BYTES:
                raise EntityTooLargeError(writer.size_bytes + len(piece), PART_MAXIMUM_BYTES)
            if running is not None:
                await _update(running, piece)
            await writer.write(writer.size_bytes, piece)
        if length is not None and writer.size_bytes != length:
            raise IncompleteBodyError
        blob = await writer.finish()
    except BaseException:
        await writer.abort()
        raise
    assert blob.md5 is not None
    checksum = checksums.of_blob(algorithm, blob, running) if algorithm else ""
    try:
        if expected_md5 is not None and expected_md5 != blob.md5:
            raise BadDigestError("Content-MD5")
        given = request.get(f"Checksum{algorithm}") if algorithm else None
        if given is not None and given != checksum:
            raise BadDigestError(algorithm)
    except AwsError:
        await discard(service, blob)
        raise
    return Received(blob, blob.md5.hex(), algorithm, checksum)


async def discard(service: S3, blob: Blob) -> None:
    """Delete content that was received but is certainly not named by any row."""
    if blob.blob_id is not None:
        await service.blobs.remove(blob.blob_id)


async def _update(running: checksums.Running, piece: bytes) -> None:
    if len(piece) >= THREAD_BYTES:
        await asyncio.to_thread(running.update, piece)
    else:
        running.update(piece)


async def _pieces(body: object) -> AsyncIterable[bytes]:
    if body is None:
        return
    if isinstance(body, str):
        yield body.encode()
    elif isinstance(body, bytes | bytearray | memoryview):
        if body:
            yield bytes(body)
    else:
        assert isinstance(body, AsyncIterable), type(body)
        async for piece in body:
            yield piece
