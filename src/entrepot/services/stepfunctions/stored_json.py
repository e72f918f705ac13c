"""JSON that only this package reads again: the same values come back, as fast as can be.

What AWS's clients see is written by `language.json_text`, whose texts of numbers are Python's. msgspec writes 1e16 where those
have 1e+16, and refuses lone surrogates, which are left to Python's own module.
"""

import json
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def pack(value: Any) -> bytes:
    """Return the compact JSON of a value that consists of JSON and tuples."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), check_circular=False).encode()


def unpack(content: bytes | str) -> Any:
    """Return the value of what `pack` (or older code, by Python's own module) wrote."""
    try:
        return _decode(content)
    except msgspec.DecodeError:
        return json.loads(content)
