"""The body of an S3 request, verified while it streams: signed hash, aws-chunked framing, chunk signatures, checksums.

Whatever does not agree raises before the stream ends, so that a consumer which publishes only after the end publishes
nothing that was not verified.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and sigv4-streaming-trailers.html.
"""

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from entrepot.aws import checksums
from entrepot.aws.errors import (
    BadDigestError,
    BadRequestError,
    ContentHashMismatchError,
    IncompleteBodyError,
    SignatureDoesNotMatchError,
)
from entrepot.aws.http import Body, HttpRequest
from entrepot.aws.signature import EMPTY_SHA256, UNSIGNED_PAYLOAD, Claim

SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_CHUNKS_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

MAX_CHUNK_LINE_BYTES = 256
"""A chunk's size and signature take about 100 bytes."""

MAX_TRAILERS_BYTES = 4096
"""All trailers together."""

THREAD_BYTES = 128 * 1024
"""Pieces from this size on are hashed in a thread, while the event loop serves others and the consumer has the piece."""

_NOT_CHECKSUMS = ("x-amz-checksum-type", "x-amz-checksum-algorithm", "x-amz-checksum-mode")
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?\Z")
_TRAILER = re.compile(rb"([a-z0-9-]{1,64}):[ \t]*([!-~]{1,256})[ \t]*\Z")


@dataclass(slots=True)
class Payload:
    """A body about to stream. `length_bytes` is that of the content, None when the client did not say.

    `verified` fills with the checksums (by member name: `ChecksumCRC32`) that agreed, at the latest when the stream ends.
    """

    body: Body
    length_bytes: int | None
    verified: dict[str, Any] = field(default_factory=dict)
    trailing_algorithm: str = ""


def content_hash(request: HttpRequest, claim: Claim) -> str:
    """Return what stands for the payload in the canonical request of S3; raise BadRequestError without it."""
    value = request.header("x-amz-content-sha256")
    if value is None:
        if claim.presigned:
            return UNSIGNED_PAYLOAD
        raise BadRequestError("Missing required header for this request: x-amz-content-sha256")
    streaming = (UNSIGNED_PAYLOAD, SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER)
    if value not in streaming and not _HEX64.match(value):
        raise BadRequestError(
            f"x-amz-content-sha256 must be {', '.join(streaming)}, or a valid sha256 value.",
            ArgumentName="x-amz-content-sha256",
        )
    return value


def open_payload(
    request: HttpRequest, claim: Claim, signing_key: bytes, hash_text: str, *, with_checksums: bool
) -> Payload:
    """Return the content of a request whose head has been verified with `hash_text` as its payload hash.

    Trailing checksums are always verified; those in headers only `with_checksums` (on CompleteMultipartUpload they
    speak of another body than the request's).
    """
    expected = _expected_checksums(request) if with_checksums else {}
    if hash_text in (UNSIGNED_PAYLOAD, EMPTY_SHA256) or _HEX64.match(hash_text):
        length = _number(request, "content-length")
        body: Body = request.body
        if hash_text != UNSIGNED_PAYLOAD:
            body = _hashed(body, hash_text)
        trailers: dict[str, str] = {}
    else:
        length = _number(request, "x-amz-decoded-content-length")
        if length is None:
            raise _missing_length()
        trailers = {}
        signer = None if hash_text == UNSIGNED_CHUNKS_TRAILER else _ChunkSigner(claim, signing_key)
        body = _Chunks(request.body, length, signer, trailers, with_trailer=hash_text != SIGNED_CHUNKS).pieces()
    payload = Payload(body, length)
    trailing = _announced_trailer(request, hash_text)
    if trailing:
        payload.trailing_algorithm = trailing[0].removeprefix("x-amz-checksum-").upper()
    names = [*expected, *trailing]
    if names:
        payload.body = _checked(payload, body, names, expected, trailers)
    return payload


def _missing_length() -> BadRequestError:
    return BadRequestError("You must provide the x-amz-decoded-content-length HTTP header.")


def _number(request: HttpRequest, name: str) -> int | None:
    text = request.header(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise BadRequestError(f"The header {name} must be a number of bytes.")
    return int(text)


def _expected_checksums(request: HttpRequest) -> dict[str, str]:
    found = {}
    for name, value in request.headers.items():
        if name.startswith("x-amz-checksum-") and name not in _NOT_CHECKSUMS:
            checksums.start(name)  # refuses what is not known
            found[name] = value
    return found


def _announced_trailer(request: HttpRequest, hash_text: str) -> list[str]:
    if not hash_text.endswith("-TRAILER"):
        return []
    names = [name.strip().lower() for name in (request.header("x-amz-trailer") or "").split(",")]
    if len(names) != 1:
        raise BadRequestError("Expecting a single x-amz-checksum- trailer.")
    checksums.start(names[0])
    return names


def check_md5(request: HttpRequest, body: bytes) -> None:
    """Compare a buffered body with its Content-MD5; raise BadDigestError or BadRequestError."""
    sent = request.header("content-md5")
    if sent is None:
        return
    computed = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    if computed != sent:
        raise BadDigestError("The Content-MD5 you specified did not match what we received.")


async def _hashed(body: Body, expected: str) -> AsyncIterator[bytes]:
    digest = hashlib.sha256()
    loop = asyncio.get_running_loop()
    hashing: asyncio.Future[None] | None = None
    async for piece in body:
        if hashing is not None:
            await hashing
            hashing = None
        if len(piece) >= THREAD_BYTES:
            hashing = loop.run_in_executor(None, digest.update, piece)
        else:
            digest.update(piece)
        yield piece
    if hashing is not None:
        await hashing
    if not hmac.compare_digest(digest.hexdigest(), expected):
        raise ContentHashMismatchError(
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ClientComputedContentSHA256=expected,
            S3ComputedContentSHA256=digest.hexdigest(),
        )


async def _checked(
    payload: Payload, body: Body, names: list[str], expected: dict[str, str], trailers: dict[str, str]
) -> AsyncIterator[bytes]:
    running = {name: checksums.start(name) for name in names}
    async for piece in body:
        for checksum in running.values():
            checksum.update(piece)
        yield piece
    for name, checksum in running.items():
        sent = expected.get(name) or trailers.get(name)
        if sent is None:
            raise BadRequestError(f"The trailer {name} was announced and did not come.")
        if checksums.as_text(checksum) != sent:
            algorithm = name.removeprefix("x-amz-checksum-").upper()
            raise BadDigestError(f"The {algorithm} you specified did not match the calculated checksum.")
        payload.verified[checksums.MEMBER_OF_HEADER[name]] = sent


class _ChunkSigner:
    """The chain of chunk signatures, each signing the one before."""

    def __init__(self, claim: Claim, signing_key: bytes) -> None:
        self._key = signing_key
        self._head = f"\n{claim.amz_date}\n{claim.scope}\n"
        self._previous = claim.signature

    def chunk(self, content_sha256: str, signature: str) -> None:
        """Verify the signature of a chunk's content."""
        self._verify("AWS4-HMAC-SHA256-PAYLOAD", f"{EMPTY_SHA256}\n{content_sha256}", signature)

    def trailers(self, raw: bytes, signature: str) -> None:
        """Verify the signature of the trailers, `name:value\\n` each."""
        self._verify("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(raw).hexdigest(), signature)

    def _verify(self, algorithm: str, rest: str, signature: str) -> None:
        text = f"{algorithm}{self._head}{self._previous}\n{rest}".encode("latin-1", "replace")
        if not hmac.compare_digest(hmac.digest(self._key, text, "sha256").hex(), signature):
            raise SignatureDoesNotMatchError("The signature of a chunk of the body does not match.")
        self._previous = signature


class _Chunks:
    """aws-chunked: `hex-size[;chunk-signature=…] CRLF content CRLF`, a chunk of size 0, trailers, CRLF."""

    def __init__(
        self,
        body: Body,
        length_bytes: int,
        signer: _ChunkSigner | None,
        trailers: dict[str, str],
        *,
        with_trailer: bool,
    ) -> None:
        self._body = body
        self._length_bytes = length_bytes
        self._signer = signer
        self._trailers = trailers
        self._with_trailer = with_trailer
        self._buffer = b""
        self._position = 0
        self._seen_bytes = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the content; raise IncompleteBodyError for broken framing, SignatureDoesNotMatchError for a forged one."""
        while True:
            size, signature = await self._chunk_line()
            digest: Any = hashlib.sha256() if self._signer else None
            left = size
            while left:
                piece = await self._take(left)
                left -= len(piece)
                if digest is not None:
                    digest.update(piece)
                yield piece
            if self._signer is not None:
                self._signer.chunk(digest.hexdigest(), signature)
            if size == 0:
                break
            if await self._line(2) != b"":
                raise _broken("a chunk does not end with CRLF")
        if self._seen_bytes != self._length_bytes:
            raise _broken(f"{self._seen_bytes} bytes came where x-amz-decoded-content-length says {self._length_bytes}")
        await self._read_trailers()

    async def _chunk_line(self) -> tuple[int, str]:
        match = _CHUNK_LINE.match(await self._line(MAX_CHUNK_LINE_BYTES))
        if match is None:
            raise _broken("a chunk's first line is not a size in hexadecimal")
        signature = (match.group(2) or b"").decode()
        if self._signer is not None and not signature:
            raise SignatureDoesNotMatchError("A chunk of the body has no signature.")
        size = int(match.group(1), 16)
        self._seen_bytes += size
        if self._seen_bytes > self._length_bytes:
            raise _broken("the chunks hold more than x-amz-decoded-content-length says")
        return size, signature

    async def _read_trailers(self) -> None:
        canonical = b""
        signature = ""
        total = 0
        while line := await self._line(MAX_CHUNK_LINE_BYTES * 2):
            total += len(line)
            match = _TRAILER.match(line.rstrip(b"\n"))
            if match is None or total > MAX_TRAILERS_BYTES or not self._with_trailer or signature:
                raise _broken("a trailer is malformed or not expected")
            name, value = match.group(1).decode(), match.group(2).decode()
            if name == "x-amz-trailer-signature":
                signature = value
            elif name in self._trailers:
                raise _broken(f"the trailer {name} came twice")
            else:
                self._trailers[name] = value
                canonical += f"{name}:{value}\n".encode()
        if self._signer is not None and self._with_trailer:
            self._signer.trailers(canonical, signature)
        left = self._buffer[self._position :]
        if left or await anext(self._body, b"") != b"":
            raise _broken("bytes follow the last chunk")

    async def _take(self, limit: int) -> bytes:
        if self._position == len(self._buffer):
            await self._fill()
        end = min(self._position + limit, len(self._buffer))
        piece = self._buffer[self._position : end]
        self._position = end
        return piece

    async def _line(self, limit: int) -> bytes:
        while (end := self._buffer.find(b"\r\n", self._position, self._position + limit + 2)) < 0:
            if len(self._buffer) - self._position > limit + 2:
                raise _broken("a line of the framing is too long")
            await self._fill()
        line = self._buffer[self._position : end]
        self._position = end + 2
        return line

    async def _fill(self) -> None:
        more = await anext(self._body, b"")
        if not more:
            raise _broken("the body ends inside a chunk")
        self._buffer = self._buffer[self._position :] + more
        self._position = 0


def _broken(why: str) -> IncompleteBodyError:
    return IncompleteBodyError(f"The request body is not valid aws-chunked framing: {why}.")
