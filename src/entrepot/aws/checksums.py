"""The checksums that S3 takes with a body, as header or trailer (`x-amz-checksum-crc32`, …).

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

import base64
import hashlib
from collections.abc import Callable
from typing import Protocol

from awscrt import checksums as crt

from entrepot.aws.errors import BadRequestError

MEMBER_OF_HEADER = {
    "x-amz-checksum-crc32": "ChecksumCRC32",
    "x-amz-checksum-crc32c": "ChecksumCRC32C",
    "x-amz-checksum-crc64nvme": "ChecksumCRC64NVME",
    "x-amz-checksum-sha1": "ChecksumSHA1",
    "x-amz-checksum-sha256": "ChecksumSHA256",
}
"""The request member under which an operation finds each checksum, by header or trailer name."""


class Checksum(Protocol):
    """A running checksum."""

    def update(self, data: bytes, /) -> None:
        """Add what follows."""
        ...

    def digest(self) -> bytes:
        """Return the checksum so far."""
        ...


class _Crc:
    def __init__(self, function: Callable[[bytes, int], int], size_bytes: int) -> None:
        self._function = function
        self._size_bytes = size_bytes
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size_bytes, "big")


def start(header: str) -> Checksum:
    """Return a new checksum for a header's name; raise BadRequestError for one that is not known here."""
    match header:
        case "x-amz-checksum-crc32":
            return _Crc(crt.crc32, 4)
        case "x-amz-checksum-crc32c":
            return _Crc(crt.crc32c, 4)
        case "x-amz-checksum-crc64nvme":
            return _Crc(crt.crc64nvme, 8)
        case "x-amz-checksum-sha1":
            return hashlib.sha1(usedforsecurity=False)
        case "x-amz-checksum-sha256":
            return hashlib.sha256()
    raise BadRequestError(
        f"The checksum {header[:64]!r} is not supported here; use one of {', '.join(MEMBER_OF_HEADER)}."
    )


def as_text(checksum: Checksum) -> str:
    """Return the checksum as it is sent: Base64."""
    return base64.b64encode(checksum.digest()).decode()
