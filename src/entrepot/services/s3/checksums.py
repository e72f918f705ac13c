"""The checksums that callers may send along with content, and S3 verifies.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

import base64
import binascii
import hashlib
from collections.abc import Callable

from awscrt import checksums as crt

from entrepot.blobs import Blob

ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
"""AWS's names of the algorithms; the members are `ChecksumCRC32` and so on."""

FULL_OBJECT_ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME")
"""Those that can be combined from parts into the checksum of the whole."""

_CRCS: dict[str, tuple[Callable[[bytes, int], int], int]] = {
    "CRC32": (crt.crc32, 4),
    "CRC32C": (crt.crc32c, 4),
    "CRC64NVME": (crt.crc64nvme, 8),
}
_COMBINE: dict[str, Callable[[int, int, int], int]] = {
    "CRC32": crt.combine_crc32,
    "CRC32C": crt.combine_crc32c,
    "CRC64NVME": crt.combine_crc64nvme,
}


class Running:
    """A checksum over content that arrives in pieces."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self._crc = 0
        self._sha1 = hashlib.sha1(usedforsecurity=False) if algorithm == "SHA1" else None

    def update(self, data: bytes) -> None:
        """Add what follows."""
        if self._sha1 is not None:
            self._sha1.update(data)
        else:
            self._crc = _CRCS[self.algorithm][0](data, self._crc)

    def base64(self) -> str:
        """Return the checksum as the wire has it."""
        if self._sha1 is not None:
            return base64.b64encode(self._sha1.digest()).decode()
        return base64.b64encode(self._crc.to_bytes(_CRCS[self.algorithm][1], "big")).decode()


def needs_running(algorithm: str) -> bool:
    """Return whether the store does not compute the algorithm itself."""
    return algorithm not in ("SHA256", "CRC32")


def of_blob(algorithm: str, blob: Blob, running: Running | None) -> str:
    """Return the Base64 checksum of finished content."""
    if algorithm == "SHA256":
        return base64.b64encode(blob.sha256).decode()
    if algorithm == "CRC32" and blob.crc32 is not None:
        return base64.b64encode(blob.crc32.to_bytes(4, "big")).decode()
    assert running is not None
    return running.base64()


def checksum_of(algorithm: str, data: bytes) -> str:
    """Return the Base64 checksum of bytes."""
    if algorithm == "SHA256":
        return base64.b64encode(hashlib.sha256(data).digest()).decode()
    running = Running(algorithm)
    running.update(data)
    return running.base64()


def combine(algorithm: str, parts: list[tuple[str, int]]) -> str:
    """Return the checksum of the whole from (Base64 checksum, size in bytes) of each part."""
    width = _CRCS[algorithm][1]
    whole = 0
    for index, (text, size_bytes) in enumerate(parts):
        crc = int.from_bytes(base64.b64decode(text), "big")
        whole = crc if index == 0 else _COMBINE[algorithm](whole, crc, size_bytes)
    return base64.b64encode(whole.to_bytes(width, "big")).decode()


def composite(algorithm: str, parts: list[str]) -> str:
    """Return the checksum of the parts' checksums, with their number."""
    return f"{checksum_of(algorithm, b''.join(base64.b64decode(text) for text in parts))}-{len(parts)}"


def decode_md5(text: str) -> bytes | None:
    """Return the 16 bytes of a Content-MD5 header, None when it is none."""
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == 16 else None
