"""S3 bodies while they stream: signed hashes, aws-chunked framing with AWS's documented signatures, checksums."""

import base64
import hashlib
import zlib
from typing import Any

import pytest
from awscrt import checksums as crt
from hypothesis import given
from hypothesis import strategies as st

from entrepot.aws import errors
from entrepot.aws.http import HttpRequest, RequestBody
from entrepot.aws.payload import (
    SIGNED_CHUNKS,
    SIGNED_CHUNKS_TRAILER,
    UNSIGNED_CHUNKS_TRAILER,
    Payload,
    content_hash,
    open_payload,
)
from entrepot.aws.signature import UNSIGNED_PAYLOAD, Claim, signing_key
from entrepot.errors import AwsError

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SIGNING_KEY = signing_key(SECRET, "20130524", "us-east-1", "s3")


def claim(signature: str) -> Claim:
    return Claim(
        "AKIAIOSFODNN7EXAMPLE", "20130524", "us-east-1", "s3", "20130524T000000Z", ("host",), signature, None, None
    )


def arriving(pieces: list[bytes], *, cut: bool = False) -> RequestBody:
    """A body that comes in these pieces; `cut`: the client disconnects instead of ending it."""
    waiting: list[dict[str, Any]] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting.append({"type": "http.disconnect"} if cut else {"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    return RequestBody(receive)


def opened(
    hash_text: str, body: bytes, head: dict[str, str], *, step: int = 1 << 16, seed: str = "0" * 64, cut: bool = False
) -> Payload:
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    request = HttpRequest("PUT", "/b/k", "", {"x-amz-content-sha256": hash_text, **head}, arriving(pieces, cut=cut))
    assert content_hash(request, claim(seed)) == hash_text
    return open_payload(request, claim(seed), SIGNING_KEY, hash_text, with_checksums=True)


async def content(payload: Payload) -> bytes:
    return b"".join([piece async for piece in payload.body])


async def refused(payload: Payload, error: type[AwsError]) -> None:
    with pytest.raises(error):
        await content(payload)


# ── the examples of AWS's documentation ──────────────────────────────────────────────────────────────────────────────

CONTENT = b"a" * 66_560
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
FRAMED = (
    b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n"
    + b"a" * 65_536
    + b"\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"
    + b"a" * 1024
    + b"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
)
SEED_TRAILER = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
FRAMED_TRAILER = (
    b"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n"
    + b"a" * 65_536
    + b"\r\n400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n"
    + b"a" * 1024
    + b"\r\n0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n"
    + b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
    + b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
)
LENGTH = {"x-amz-decoded-content-length": "66560"}
CRC32C_TRAILER = {**LENGTH, "x-amz-trailer": "x-amz-checksum-crc32c"}


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
async def test_the_documented_signed_chunks(step: int) -> None:
    assert await content(opened(SIGNED_CHUNKS, FRAMED, LENGTH, seed=SEED, step=step)) == CONTENT


@pytest.mark.parametrize("step", [1, 1 << 20])
async def test_the_documented_signed_chunks_with_a_trailer(step: int) -> None:
    payload = opened(SIGNED_CHUNKS_TRAILER, FRAMED_TRAILER, CRC32C_TRAILER, seed=SEED_TRAILER, step=step)
    assert await content(payload) == CONTENT
    assert payload.verified == {"ChecksumCRC32C": "sOO8/Q=="}


@given(at=st.integers(0, len(FRAMED) - 1), new=st.integers(0, 255))
async def test_no_byte_of_signed_chunks_can_change(at: int, new: int) -> None:
    changed = FRAMED[:at] + bytes([new]) + FRAMED[at + 1 :]
    payload = opened(SIGNED_CHUNKS, changed, LENGTH, seed=SEED)
    try:
        assert await content(payload) == CONTENT and changed.lower() == FRAMED
    except AwsError:
        assert changed != FRAMED


@given(at=st.integers(66_700, len(FRAMED_TRAILER) - 1), new=st.integers(0, 255))
async def test_no_byte_of_a_signed_trailer_can_change(at: int, new: int) -> None:
    changed = FRAMED_TRAILER[:at] + bytes([new]) + FRAMED_TRAILER[at + 1 :]
    payload = opened(SIGNED_CHUNKS_TRAILER, changed, CRC32C_TRAILER, seed=SEED_TRAILER)
    try:
        # White space after the trailer's colon is not part of its value; nothing else may vary.
        assert await content(payload) == CONTENT and payload.verified == {"ChecksumCRC32C": "sOO8/Q=="}
        assert changed.lower().replace(b"\t", b"").replace(b" ", b"") in (FRAMED_TRAILER, FRAMED_TRAILER.lower())
    except AwsError:
        assert changed != FRAMED_TRAILER


async def test_signed_chunks_under_another_seed_are_refused() -> None:
    await refused(opened(SIGNED_CHUNKS, FRAMED, LENGTH, seed=SEED_TRAILER), errors.SignatureDoesNotMatchError)


async def test_a_missing_trailer_signature_is_refused() -> None:
    cut = FRAMED_TRAILER[: FRAMED_TRAILER.index(b"x-amz-trailer-signature")] + b"\r\n"
    await refused(
        opened(SIGNED_CHUNKS_TRAILER, cut, CRC32C_TRAILER, seed=SEED_TRAILER), errors.SignatureDoesNotMatchError
    )


@pytest.mark.parametrize("end", [0, 5, 100, 65_600, 66_600, len(FRAMED) - 2, len(FRAMED) - 1])
async def test_chunks_that_end_early_are_refused(end: int) -> None:
    await refused(opened(SIGNED_CHUNKS, FRAMED[:end], LENGTH, seed=SEED), errors.IncompleteBodyError)
    await refused(opened(SIGNED_CHUNKS, FRAMED[:end], LENGTH, seed=SEED, cut=True), errors.IncompleteBodyError)


# ── unsigned chunks with a checksum trailer, as boto3 sends over https ───────────────────────────────────────────────

HELLO_CRC32 = base64.b64encode(zlib.crc32(b"hello").to_bytes(4, "big")).decode()


def hello(framed: bytes, **head: str) -> Payload:
    names = {name.replace("_", "-"): value for name, value in head.items()}
    defaults = {"x-amz-decoded-content-length": "5", "x-amz-trailer": "x-amz-checksum-crc32"}
    return opened(UNSIGNED_CHUNKS_TRAILER, framed, defaults | names)


async def test_a_trailing_checksum_is_verified_and_handed_on() -> None:
    payload = hello(f"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:{HELLO_CRC32}\r\n\r\n".encode())
    assert payload.length_bytes == 5
    assert payload.verified == {}
    assert await content(payload) == b"hello"
    assert payload.verified == {"ChecksumCRC32": HELLO_CRC32}


@pytest.mark.parametrize(
    "framed",
    [
        b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",  # another checksum
        b"5\r\nhello\r\n0\r\n\r\n",  # no trailer
        b"5\r\nhello\r\n0\r\nx-amz-checksum-sha1:AAAA\r\n\r\n",  # not the announced one
        b"5\r\nhello\r\n0\r\n",  # no end
        b"6\r\nhello!\r\n0\r\n\r\n",  # longer than announced
        b"4\r\nhell\r\n0\r\n\r\n",  # shorter than announced
        b"5\r\nhelloX\r\n0\r\n\r\n",  # no CRLF after the chunk
        b"5;a=b\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"ffffffffffffffff\r\nhello",
        b"1" * 1000,
        b"",
        b"hello",
        b"5\r\nhello\r\n0\r\n" + b"x-a:b\r\n" * 5000,
        b"5\r\nhello\r\n0\r\n" + b"x" * 100_000,
    ],
)
async def test_broken_framing_is_refused(framed: bytes) -> None:
    with pytest.raises((errors.IncompleteBodyError, errors.BadDigestError, errors.BadRequestError)):
        await content(hello(framed))


async def test_bytes_after_the_end_are_refused() -> None:
    framed = f"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:{HELLO_CRC32}\r\n\r\nmore".encode()
    await refused(hello(framed), errors.IncompleteBodyError)


@given(st.binary(max_size=200))
async def test_any_bytes_end_in_an_aws_error(framed: bytes) -> None:
    with pytest.raises(AwsError):
        await content(hello(framed))


async def test_the_length_of_the_content_must_be_announced() -> None:
    with pytest.raises(errors.BadRequestError, match="decoded-content-length"):
        opened(UNSIGNED_CHUNKS_TRAILER, b"", {"x-amz-trailer": "x-amz-checksum-crc32"})


@given(st.binary(max_size=5000), st.integers(1, 700), st.integers(1, 64))
async def test_many_small_chunks_are_joined(data: bytes, size: int, step: int) -> None:
    framed = b"".join(
        b"%x\r\n%s\r\n" % (len(data[at : at + size]), data[at : at + size]) for at in range(0, len(data), size)
    )
    checksum = base64.b64encode(zlib.crc32(data).to_bytes(4, "big"))
    framed += b"0\r\nx-amz-checksum-crc32:" + checksum + b"\r\n\r\n"
    head = {"x-amz-decoded-content-length": str(len(data)), "x-amz-trailer": "x-amz-checksum-crc32"}
    assert await content(opened(UNSIGNED_CHUNKS_TRAILER, framed, head, step=step)) == data


# ── plain bodies ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_signed_hash_is_verified_at_the_end() -> None:
    good = hashlib.sha256(b"hello").hexdigest()
    assert await content(opened(good, b"hello", {})) == b"hello"
    await refused(opened(good, b"hellO", {}), errors.ContentHashMismatchError)
    await refused(opened(good, b"hell", {}), errors.ContentHashMismatchError)
    await refused(opened(hashlib.sha256(b"").hexdigest(), b"x", {}), errors.ContentHashMismatchError)


async def test_a_large_body_is_hashed_in_order() -> None:
    data = bytes(range(256)) * 8000
    payload = opened(hashlib.sha256(data).hexdigest(), data, {}, step=300_000)
    assert await content(payload) == data
    await refused(
        opened(hashlib.sha256(data).hexdigest(), data[::-1], {}, step=300_000), errors.ContentHashMismatchError
    )


async def test_a_client_that_disconnects_raises() -> None:
    await refused(opened(UNSIGNED_PAYLOAD, b"hel", {"content-length": "5"}, cut=True), errors.IncompleteBodyError)


CHECKSUMS = {
    "crc32": zlib.crc32(b"hello").to_bytes(4, "big"),
    "crc32c": crt.crc32c(b"hello").to_bytes(4, "big"),
    "crc64nvme": crt.crc64nvme(b"hello").to_bytes(8, "big"),
    "sha1": hashlib.sha1(b"hello").digest(),
    "sha256": hashlib.sha256(b"hello").digest(),
}


@pytest.mark.parametrize("name", list(CHECKSUMS))
async def test_a_checksum_header_is_verified(name: str) -> None:
    sent = base64.b64encode(CHECKSUMS[name]).decode()
    payload = opened(UNSIGNED_PAYLOAD, b"hello", {f"x-amz-checksum-{name}": sent, "x-amz-checksum-type": "FULL_OBJECT"})
    assert await content(payload) == b"hello"
    assert list(payload.verified.values()) == [sent]
    wrong = base64.b64encode(CHECKSUMS[name][:-1] + b"?").decode()
    await refused(opened(UNSIGNED_PAYLOAD, b"hello", {f"x-amz-checksum-{name}": wrong}), errors.BadDigestError)


async def test_an_unknown_checksum_is_refused_by_name() -> None:
    with pytest.raises(errors.BadRequestError, match="x-amz-checksum-md6"):
        opened(UNSIGNED_PAYLOAD, b"hello", {"x-amz-checksum-md6": "AAAA"})


def test_the_payload_hash_must_be_said() -> None:
    for head in (
        {},
        {"x-amz-content-sha256": "abc"},
        {"x-amz-content-sha256": "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"},
    ):
        with pytest.raises(errors.BadRequestError, match="x-amz-content-sha256"):
            content_hash(HttpRequest("PUT", "/b/k", "", head, arriving([])), claim("0" * 64))
