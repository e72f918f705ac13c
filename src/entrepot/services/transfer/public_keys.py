"""Public keys as users hand them in, and as the server compares them.

Source: https://docs.aws.amazon.com/transfer/latest/userguide/key-management.html; RFC 4253 section 6.6; the keys of
security tokens ("sk-") are OpenSSH's PROTOCOL.u2f.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

import asyncssh

from entrepot.services.transfer.errors import InvalidRequestError

KEY_TYPES: Final = frozenset(
    {
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "ssh-rsa",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
"""Types of key that a user may have. `ssh-rsa` is the key's type; it signs with SHA-2 only."""

RSA_MINIMUM_BITS: Final = 2048
"""A shorter RSA key is refused."""

BODY_LIMIT_CHARACTERS: Final = 2048
"""The longest body of a key, as AWS has it."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A parsed key. `data` is its SSH wire form; `fingerprint` is `SHA256:` and unpadded Base64."""

    key_type: str
    data: bytes
    fingerprint: str
    comment: str = ""


def parse_public_key(body: str) -> PublicKey:
    """Return the key of a line in OpenSSH's format, `type base64 [comment]`; raise InvalidRequestError.

    Options as in `authorized_keys` and certificates are refused, like on AWS.
    """
    if len(body) > BODY_LIMIT_CHARACTERS:
        raise InvalidRequestError(f"The public key is longer than {BODY_LIMIT_CHARACTERS} characters.")
    if "PRIVATE KEY" in body:
        raise InvalidRequestError("This is a private key. Give the public one, the file that ends in .pub.")
    parts = body.strip().split(None, 2)
    if "\n" in body.strip() or len(parts) < 2:
        raise InvalidRequestError(
            "Unsupported or invalid SSH public key format: expected one line `type base64 comment`."
        )
    key_type, encoded = parts[0], parts[1]
    if key_type not in KEY_TYPES:
        raise InvalidRequestError(
            f"Unsupported or invalid SSH public key format: type {key_type[:64]!r} is none of "
            f"{', '.join(sorted(KEY_TYPES))}."
        )
    try:
        data = base64.b64decode(encoded, validate=True)
        key = asyncssh.import_public_key(f"{key_type} {encoded}")
    except (binascii.Error, asyncssh.KeyImportError, ValueError) as error:
        raise InvalidRequestError(f"Unsupported or invalid SSH public key format: {error}") from error
    if key.public_data != data or key.get_algorithm() != key_type:
        raise InvalidRequestError("Unsupported or invalid SSH public key format: the type and the data do not agree.")
    if key_type == "ssh-rsa" and (bits := rsa_bits(data)) < RSA_MINIMUM_BITS:
        raise InvalidRequestError(f"An RSA key needs {RSA_MINIMUM_BITS} bits at least; this one has {bits}.")
    return PublicKey(key_type, data, fingerprint_of(data), parts[2] if len(parts) > 2 else "")


def fingerprint_of(data: bytes) -> str:
    """Return OpenSSH's fingerprint of a key in wire form."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def rsa_bits(data: bytes) -> int:
    """Return the size of an RSA key from its wire form: string type, mpint e, mpint n."""
    offset = 0
    field = b""
    for _ in range(3):
        length = int.from_bytes(data[offset : offset + 4], "big")
        field = data[offset + 4 : offset + 4 + length]
        offset += 4 + length
    return int.from_bytes(field, "big").bit_length()
