"""JSON bodies by shape: each shape becomes one reader and one writer, made at first use and kept.

Readers check types and raise SerializationError in AWS's words; unknown members are ignored, as AWS ignores them.
"""

import base64
import binascii
import json
import logging
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

from botocore.model import Shape

from entrepot.aws import timestamps
from entrepot.aws.errors import SerializationError

Convert: TypeAlias = Callable[[Any], Any]

MAX_DEPTH = 64
"""How deep a JSON body may nest (DynamoDB's documents go 32 levels, each two deep)."""

_TYPE_NAMES = {str: "STRING_VALUE", bool: "TRUE_VALUE", int: "NUMBER_VALUE", float: "DECIMAL_VALUE"}
_log = logging.getLogger(__name__)


def loads(body: bytes) -> Any:
    """Return the value of a JSON text; raise SerializationError when it is none, is too deep, or has NaN."""
    try:
        text = body.decode()
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_depth(text)
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise SerializationError("Start of structure or map found where not expected, or text is not JSON.") from None


def _refuse_constant(name: str) -> None:
    raise SerializationError(f"{name} is not JSON.")


def _check_depth(text: str) -> None:
    """Refuse text that nests deeper than MAX_DEPTH; brackets inside strings do not count."""
    depth = 0
    inside = escaped = False
    for character in text:
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise SerializationError(f"The JSON text nests deeper than {MAX_DEPTH} levels.")
        elif character in "]}":
            depth -= 1


def dumps(value: Any) -> bytes:
    """Return compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


class JsonReaders:
    """Readers of one service's shapes."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Convert] = {}

    def reader(self, shape: Shape) -> Convert:
        """Return the function that turns a JSON value into the shape's Python value."""
        key = (shape.name, str(sorted(shape.serialization.items(), key=str)))
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(shape)
        return made

    def _make(self, shape: Shape) -> Convert:
        match shape.type_name:
            case "structure":
                return self._structure(shape)
            case "list":
                return self._list(shape)
            case "map":
                return self._map(shape)
            case "timestamp":
                return _read_timestamp
            case "blob":
                return _read_blob
            case "boolean":
                return _read_boolean
            case "integer" | "long" | "short" | "byte":
                return _read_integer
            case "float" | "double":
                return _read_float
            case _:
                return _read_string

    def _structure(self, shape: Any) -> Convert:
        if getattr(shape, "is_document_type", False):
            return _as_it_is
        members: dict[str, tuple[str, Convert]] = {}

        def read(value: Any) -> dict[str, Any]:
            if value.__class__ is not dict:
                raise _unexpected(value, "structure")
            if not members:
                for name, member in shape.members.items():
                    members[member.serialization.get("name", name)] = (name, self.reader(member))
            result = {}
            for wire_name, item in value.items():
                known = members.get(wire_name)
                if known is not None and item is not None:
                    result[known[0]] = known[1](item)
            return result

        return read

    def _list(self, shape: Any) -> Convert:
        convert: Convert | None = None

        def read(value: Any) -> list[Any]:
            nonlocal convert
            if value.__class__ is not list:
                raise _unexpected(value, "list")
            if convert is None:
                convert = self.reader(shape.member)
            return [convert(item) for item in value if item is not None]

        return read

    def _map(self, shape: Any) -> Convert:
        convert: Convert | None = None

        def read(value: Any) -> dict[str, Any]:
            nonlocal convert
            if value.__class__ is not dict:
                raise _unexpected(value, "map")
            if convert is None:
                convert = self.reader(shape.value)
            return {key: convert(item) for key, item in value.items() if item is not None}

        return read


def _unexpected(value: Any, wanted: str) -> SerializationError:
    if isinstance(value, dict):
        return SerializationError("Start of structure or map found where not expected.")
    if isinstance(value, list):
        return SerializationError("Unrecognized collection type class; a list was found where it is not expected.")
    if wanted in ("structure", "list", "map"):
        return SerializationError("Unexpected field type")
    found = "FALSE_VALUE" if value is False else _TYPE_NAMES.get(type(value), "VALUE")
    return SerializationError(f"{found} cannot be converted to {wanted}")


def _as_it_is(value: Any) -> Any:
    return value


def _read_string(value: Any) -> str:
    if value.__class__ is not str:
        raise _unexpected(value, "String")
    return str(value)


def _read_boolean(value: Any) -> bool:
    if value.__class__ is not bool:
        raise _unexpected(value, "Boolean")
    return bool(value)


def _read_integer(value: Any) -> int:
    if value.__class__ is int and -(2**63) <= value < 2**63:
        return int(value)
    if value.__class__ is float and value.is_integer() and abs(value) < 2**63:
        return int(value)
    raise _unexpected(value, "Integer")


def _read_float(value: Any) -> float:
    if value.__class__ in (int, float):
        try:
            return float(value)
        except OverflowError:
            raise _unexpected(value, "Double") from None
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    raise _unexpected(value, "Double")


def _read_timestamp(value: Any) -> datetime:
    if value.__class__ in (int, float):
        return timestamps.from_unix(value)
    if value.__class__ is str:
        return timestamps.parse(value)
    raise _unexpected(value, "Timestamp")


def _read_blob(value: Any) -> bytes:
    if value.__class__ is not str:
        raise _unexpected(value, "Blob")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise SerializationError("The blob is not base64.") from None


class JsonWriters:
    """Writers of one service's shapes."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Convert] = {}

    def writer(self, shape: Shape) -> Convert:
        """Return the function that turns the shape's Python value into what `dumps` takes."""
        key = (shape.name, str(sorted(shape.serialization.items(), key=str)))
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(shape)
        return made

    def _make(self, shape: Any) -> Convert:
        match shape.type_name:
            case "structure":
                return self._structure(shape)
            case "list":
                return self._list(shape)
            case "map":
                return self._map(shape)
            case "timestamp":
                return _timestamp_writer(shape.serialization.get("timestampFormat", "unixTimestamp"))
            case "blob":
                return _write_blob
            case "float" | "double":
                return _write_float
            case "string":
                return _write_string
            case _:
                return _as_it_is

    def _structure(self, shape: Any) -> Convert:
        if getattr(shape, "is_document_type", False):
            return _as_it_is
        members: dict[str, tuple[str, Convert]] = {}

        def write(value: Any) -> dict[str, Any]:
            if not members:
                for name, member in shape.members.items():
                    members[name] = (member.serialization.get("name", name), self.writer(member))
            result = {}
            for name, item in value.items():
                if item is None:
                    continue
                known = members.get(name)
                if known is None:
                    _log.warning("%s has no member %r; it was left out of the response", shape.name, name)
                    continue
                result[known[0]] = known[1](item)
            return result

        return write

    def _list(self, shape: Any) -> Convert:
        convert: Convert | None = None

        def write(value: Any) -> list[Any]:
            nonlocal convert
            if convert is None:
                convert = self.writer(shape.member)
            return [convert(item) for item in value]

        return write

    def _map(self, shape: Any) -> Convert:
        convert: Convert | None = None

        def write(value: Any) -> dict[str, Any]:
            nonlocal convert
            if convert is None:
                convert = self.writer(shape.value)
            return {key: convert(item) for key, item in value.items()}

        return write


def _timestamp_writer(timestamp_format: str) -> Convert:
    if timestamp_format == "unixTimestamp":
        return timestamps.unix
    return lambda at: timestamps.as_text(at, timestamp_format)


def _write_string(value: Any) -> str:
    return value if value.__class__ is str else str(value)


def _write_blob(value: Any) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def _write_float(value: Any) -> Any:
    number = float(value)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number
