"""Names for things: random where nobody may guess them, derived where a replay must find the same one."""

import hashlib
import os


def random_uuid() -> str:
    """Return a random UUID in its 36 character form."""
    return _uuid(os.urandom(16).hex(), "4")


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
    return _uuid(derived(*parts), "5")


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The digit that holds a UUID's variant: its upper two bits are 10 (RFC 9562, section 4.1)."""


def _uuid(digits: str, version: str) -> str:
    """Return a UUID from 32 or more random hex digits, as the class UUID would, at a fraction of its cost."""
    return f"{digits[:8]}-{digits[8:12]}-{version}{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"
