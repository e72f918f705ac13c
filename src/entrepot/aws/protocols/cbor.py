"""CBOR as rpc-v2-cbor needs it: definite and indefinite items, tag 1 (time), no other tag. Bounded.

Source: RFC 8949.
"""

import struct
from datetime import datetime
from typing import Any

from entrepot.aws import timestamps
from entrepot.aws.errors import SerializationError

MAX_DEPTH = 64
"""How deep items may nest."""

MAX_ITEMS = 500_000
"""How many items a body may have."""

_BREAK = object()


def loads(data: bytes) -> Any:
    """Return the one item that `data` is; raise SerializationError for anything else."""
    reader = _Reader(data)
    try:
        value = reader.item(0)
    except (IndexError, struct.error, UnicodeDecodeError, TypeError):
        raise SerializationError("The body is not CBOR.") from None
    if value is _BREAK or reader.position != len(data):
        raise SerializationError("The body is not one CBOR item.")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0
        self._items = 0

    def item(self, depth: int) -> Any:
        self._items += 1
        if depth > MAX_DEPTH or self._items > MAX_ITEMS:
            raise SerializationError("The CBOR body has too many items or nests too deep.")
        initial = self._data[self.position]
        self.position += 1
        major, info = initial >> 5, initial & 31
        if major == 7:
            return self._simple(info)
        length = None if info == 31 else self._argument(info)
        if major == 0:
            return self._definite(length)
        if major == 1:
            return -1 - self._definite(length)
        if major in (2, 3):
            raw = self._chunks(major) if length is None else self._take(length)
            return raw if major == 2 else raw.decode()
        if major == 4:
            return self._list(length, depth)
        if major == 5:
            return self._map(length, depth)
        if self._definite(length) != 1:
            raise SerializationError("Only the CBOR tag 1 (time) is understood.")
        seconds = self.item(depth + 1)
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise SerializationError("A CBOR time must be a number.")
        return timestamps.from_unix(seconds)

    def _definite(self, length: int | None) -> int:
        if length is None:
            raise SerializationError("The body is not CBOR.")
        return length

    def _argument(self, info: int) -> int:
        if info < 24:
            return info
        size_bytes = {24: 1, 25: 2, 26: 4, 27: 8}.get(info)
        if size_bytes is None:
            raise SerializationError("The body is not CBOR.")
        return int.from_bytes(self._take(size_bytes), "big")

    def _take(self, size_bytes: int) -> bytes:
        end = self.position + size_bytes
        if end > len(self._data):
            raise SerializationError("The CBOR body is cut off.")
        raw = self._data[self.position : end]
        self.position = end
        return raw

    def _chunks(self, major: int) -> bytes:
        parts = []
        while (initial := self._data[self.position]) != 0xFF:
            if initial >> 5 != major or initial & 31 == 31:
                raise SerializationError("The body is not CBOR.")
            self.position += 1
            parts.append(self._take(self._argument(initial & 31)))
        self.position += 1
        return b"".join(parts)

    def _list(self, length: int | None, depth: int) -> list[Any]:
        values: list[Any] = []
        while length is None or len(values) < length:
            value = self.item(depth + 1)
            if value is _BREAK:
                if length is None:
                    break
                raise SerializationError("The body is not CBOR.")
            values.append(value)
        return values

    def _map(self, length: int | None, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        count = 0
        while length is None or count < length:
            key = self.item(depth + 1)
            if key is _BREAK and length is None:
                break
            if not isinstance(key, str) or key in values:
                raise SerializationError("The keys of a CBOR map must be distinct text.")
            value = self.item(depth + 1)
            if value is _BREAK:
                raise SerializationError("The body is not CBOR.")
            values[key] = value
            count += 1
        return values

    def _simple(self, info: int) -> Any:
        match info:
            case 20:
                return False
            case 21:
                return True
            case 22 | 23:
                return None
            case 25:
                return struct.unpack(">e", self._take(2))[0]
            case 26:
                return struct.unpack(">f", self._take(4))[0]
            case 27:
                return struct.unpack(">d", self._take(8))[0]
            case 31:
                return _BREAK
        raise SerializationError("The body has a CBOR value that JSON-like data does not.")


def dumps(value: Any) -> bytes:
    """Return the CBOR of dicts, lists, text, bytes, numbers, booleans, None and aware datetimes."""
    out = bytearray()
    _dump(out, value)
    return bytes(out)


def _dump(out: bytearray, value: Any) -> None:
    if value is None:
        out.append(0xF6)
    elif value is True or value is False:
        out.append(0xF5 if value else 0xF4)
    elif isinstance(value, str):
        raw = value.encode("utf-8", "replace")
        _head(out, 3, len(raw))
        out += raw
    elif isinstance(value, int):
        _head(out, 0 if value >= 0 else 1, value if value >= 0 else -1 - value)
    elif isinstance(value, float):
        out += b"\xfb" + struct.pack(">d", value)
    elif isinstance(value, bytes):
        _head(out, 2, len(value))
        out += value
    elif isinstance(value, datetime):
        out.append(0xC1)
        _dump(out, timestamps.unix(value))
    elif isinstance(value, dict):
        _head(out, 5, len(value))
        for key, item in value.items():
            _dump(out, str(key))
            _dump(out, item)
    else:
        _head(out, 4, len(value))
        for item in value:
            _dump(out, item)


def _head(out: bytearray, major: int, argument: int) -> None:
    if argument < 24:
        out.append(major << 5 | argument)
        return
    for info, size_bytes in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size_bytes:
            out.append(major << 5 | info)
            out += argument.to_bytes(size_bytes, "big")
            return
    raise ValueError("an integer is too large for CBOR")
