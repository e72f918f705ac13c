"""Secrets at rest: sealed with a key that derives from the stack's master secret, so that a copy of the ledger tells nothing.

AES-256-GCM with a random nonce (NIST SP 800-38D); the key of each purpose is derived by HKDF-SHA-256 (RFC 5869).
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from entrepot.errors import EntrepotError

NONCE_BYTES = 12


class SealBrokenError(EntrepotError):
    """What is sealed cannot be opened: the master secret is another one, or the bytes were changed."""


class Seal:
    """Seals and opens for one purpose."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        """`secret` is the stack's master secret."""
        self._cipher = AESGCM(HKDF(SHA256(), 32, None, purpose.encode()).derive(secret))

    def close(self, plain: bytes, name: str) -> bytes:
        """Seal; `name` says whose secret it is, and has to be said again to open it."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """Open what `close` made; raise SealBrokenError."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            raise SealBrokenError(
                f"The secret of {name} cannot be opened: keys/secret is not the one with which it was stored. Restore that "
                "file from its backup, or give the secret anew."
            ) from None
