"""Names for things: random where nobody may guess them, derived where a replay must find the same one."""

import hashlib
import os
import uuid


def random_uuid() -> str:
    """Return a random UUID in its 36 character form."""
    return str(uuid.UUID(bytes=os.urandom(16), version=4))


def random_hex(length_bytes: int) -> str:
    """Return `length_bytes` random bytes as lower-case hex."""
    return os.urandom(length_bytes).hex()


def derived(*parts: str) -> str:
    """Return the lower-case hex SHA-256 of the parts joined by `/`: the same parts give the same name.

    A state machine computes the same with
    `States.Hash(States.Format('{}/{}', $.a, $.b), 'SHA-256')`.
    """
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


def derived_uuid(*parts: str) -> str:
    """Return a UUID that is a function of the parts (RFC 9562, version 8 layout)."""
    return str(uuid.UUID(bytes=hashlib.sha256("/".join(parts).encode()).digest()[:16], version=5))
