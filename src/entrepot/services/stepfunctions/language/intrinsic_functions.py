"""The intrinsic functions: each takes the list of its evaluated arguments and gives a JSON value.

Source: https://docs.aws.amazon.com/step-functions/latest/dg/intrinsic-functions.html. Numbers round as Java's
Math.round does (half up), Format writes values as Java's toString does, because that is what AWS answers.
"""

import base64
import binascii
import hashlib
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from entrepot import ids

from . import json_text
from .evaluation import Json

MAX_ARRAY_RANGE_ITEMS = 1_000
"""AWS: ArrayRange "can contain up to 1000 array elements"."""

MAX_ENCODED_CHARACTERS = 10_000
"""AWS: Base64Encode, Base64Decode and Hash take up to 10,000 characters."""

MAX_RESULT_CHARACTERS = 262_144
"""The longest string that Format gives; more could not leave the state anyway (256 KiB)."""

MIN_INTEGER = -2_147_483_648
MAX_INTEGER = 2_147_483_647
"""AWS: MathAdd takes "integer values from -2147483648 through 2147483647"."""

_HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
_PLACEHOLDERS = re.compile(r"\\(.)|(\{\})", re.DOTALL)
_ANY = ("string", "number", "boolean", "null")


class IntrinsicProblem(Exception):
    """The arguments do not fit; str() says why."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function: how many arguments it takes, and which literals may stand in each place (none: paths and calls)."""

    run: Callable[[list[Json]], Json]
    fewest: int
    most: int
    literals: tuple[tuple[str, ...], ...] = ()


def _array(arguments: list[Json]) -> Json:
    return arguments


def _array_partition(arguments: list[Json]) -> Json:
    items = _list(arguments[0])
    size = _integer(arguments[1])
    if size < 1:
        raise IntrinsicProblem("The chunk size must be a positive integer")
    return [items[start : start + size] for start in range(0, len(items), size)]


def _array_contains(arguments: list[Json]) -> Json:
    wanted = _identity(arguments[1])
    return any(_identity(item) == wanted for item in _list(arguments[0]))


def _array_range(arguments: list[Json]) -> Json:
    first, last, step = (_integer(argument) for argument in arguments)
    if step == 0:
        raise IntrinsicProblem("The increment must not be zero")
    values = range(first, last + (1 if step > 0 else -1), step)
    if len(values) > MAX_ARRAY_RANGE_ITEMS:
        raise IntrinsicProblem(f"The array would have more than {MAX_ARRAY_RANGE_ITEMS} items")
    return list(values)


def _array_get_item(arguments: list[Json]) -> Json:
    items = _list(arguments[0])
    index = _integer(arguments[1])
    if not 0 <= index < len(items):
        raise IntrinsicProblem(f"The index {index} is out of bounds for an array of {len(items)} items")
    return items[index]


def _array_length(arguments: list[Json]) -> Json:
    return len(_list(arguments[0]))


def _array_unique(arguments: list[Json]) -> Json:
    unique: dict[tuple[Any, ...], Json] = {}
    for item in _list(arguments[0]):
        unique.setdefault(_identity(item), item)
    return list(unique.values())


def _base64_encode(arguments: list[Json]) -> Json:
    return base64.b64encode(_utf8(_short_string(arguments[0]))).decode("ascii")


def _base64_decode(arguments: list[Json]) -> Json:
    text = _short_string(arguments[0])
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", errors="replace")
    except (binascii.Error, ValueError):
        raise IntrinsicProblem("The input is not valid Base64") from None


def _hash(arguments: list[Json]) -> Json:
    data, algorithm = arguments
    name = _HASHES.get(algorithm) if isinstance(algorithm, str) else None
    if name is None:
        raise IntrinsicProblem(f"Unknown hash algorithm. The algorithms are {', '.join(_HASHES)}")
    text = data if isinstance(data, str) else json_text.dumps(data)
    return hashlib.new(name, _utf8(_short_string(text)), usedforsecurity=False).hexdigest()


def _json_merge(arguments: list[Json]) -> Json:
    first, second, deep = arguments
    if not isinstance(first, dict) or not isinstance(second, dict):
        raise IntrinsicProblem("The first two arguments must be JSON objects")
    if deep is not False:
        raise IntrinsicProblem("The third argument must be false: only shallow merging is supported")
    return {**first, **second}


def _math_random(arguments: list[Json]) -> Json:
    start, end = _integer(arguments[0]), _integer(arguments[1])
    if start >= end:
        raise IntrinsicProblem("The start number must be less than the end number")
    if len(arguments) == 3:
        return random.Random(_integer(arguments[2])).randrange(start, end)  # noqa: S311 (not for secrets)
    return random.randrange(start, end)  # noqa: S311 (not for secrets)


def _math_add(arguments: list[Json]) -> Json:
    total = _integer(arguments[0]) + _integer(arguments[1])
    if not MIN_INTEGER <= total <= MAX_INTEGER:
        raise IntrinsicProblem(f"The sum is not between {MIN_INTEGER} and {MAX_INTEGER}")
    return total


def _string_split(arguments: list[Json]) -> Json:
    """Split at every character of the second argument; empty pieces are dropped."""
    text, separators = _string(arguments[0]), _string(arguments[1])
    if not separators:
        return [text] if text else []
    if len(separators) > 1:
        text = text.translate(dict.fromkeys(map(ord, separators), separators[0]))
    return [piece for piece in text.split(separators[0]) if piece]


def _string_to_json(arguments: list[Json]) -> Json:
    text = _string(arguments[0])
    if not text.strip():
        return None
    try:
        return json_text.loads(text)
    except json_text.InvalidJson as problem:
        raise IntrinsicProblem(f"The input is not valid JSON: {problem}") from None


def _json_to_string(arguments: list[Json]) -> Json:
    value = arguments[0]
    return json_text.dumps(_plain(value))


def _uuid(arguments: list[Json]) -> Json:
    return ids.random_uuid()


def _format(arguments: list[Json]) -> Json:
    template = _string(arguments[0])
    values = iter(arguments[1:])
    left = len(arguments) - 1
    needed = 0

    def fill(match: re.Match[str]) -> str:
        nonlocal needed
        if match.group(2) is None:
            escaped = match.group(1)
            return escaped if escaped in "{}\\'" else match.group()
        needed += 1
        return java_text(next(values, None))

    text = _PLACEHOLDERS.sub(fill, template)
    if needed != left:
        raise IntrinsicProblem(f"The template has {needed} placeholders, but {left} arguments are given")
    if len(text) > MAX_RESULT_CHARACTERS:
        raise IntrinsicProblem(f"The result has more than {MAX_RESULT_CHARACTERS} characters")
    return text


def java_text(value: Json) -> str:
    """Return the text of a value as Java's toString gives it: `{a=1, b=[x, y]}`, `null`, `1.0E10`."""
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, float):
        return _java_double(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join([java_text(item) for item in value]) + "]"
    return "{" + ", ".join([f"{key}={java_text(item)}" for key, item in value.items()]) + "}"


def _java_double(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        text = repr(value)
        return text if "e" not in text else f"{value:f}"
    mantissa, _, exponent = f"{value:e}".partition("e")
    digits = repr(float(repr(value).partition("e")[0])) if "e" in repr(value) else ""
    if not digits:
        digits = repr(value / 10 ** int(exponent)) if abs(int(exponent)) < 23 else mantissa
    return f"{digits}E{int(exponent)}"


def _plain(value: Json) -> Json:
    """Return objects as dicts (the context object may be another Mapping)."""
    return dict(value) if hasattr(value, "keys") else value


def _identity(value: Json) -> tuple[Any, ...]:
    """Return a hashable stand-in: equal for values that are equal as JSON (1 and 1.0 and true are three values)."""
    if isinstance(value, dict | list):
        return (type(value), json_text.dumps(_sorted(value)))
    return (type(value), value)


def _sorted(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise IntrinsicProblem("The first argument must be an array")
    return value


def _string(value: Json) -> str:
    if not isinstance(value, str):
        raise IntrinsicProblem("The argument must be a string")
    return value


def _short_string(value: Json) -> str:
    text = _string(value)
    if len(text) > MAX_ENCODED_CHARACTERS:
        raise IntrinsicProblem(f"The input has more than {MAX_ENCODED_CHARACTERS} characters")
    return text


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")


def _integer(value: Json) -> int:
    """Return the number rounded as Java's Math.round does: to the nearest, halves up."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise IntrinsicProblem("The argument must be a number")
    number = value if isinstance(value, int) else math.floor(value + 0.5)
    if not MIN_INTEGER <= number <= MAX_INTEGER:
        raise IntrinsicProblem(f"The argument is not between {MIN_INTEGER} and {MAX_INTEGER}")
    return number


_MANY = 256

FUNCTIONS: dict[str, Function] = {
    "States.Array": Function(_array, 0, _MANY),
    "States.ArrayPartition": Function(_array_partition, 2, 2, ((), ("number",))),
    "States.ArrayContains": Function(_array_contains, 2, 2, ((), _ANY)),
    "States.ArrayRange": Function(_array_range, 3, 3, (("number",),) * 3),
    "States.ArrayGetItem": Function(_array_get_item, 2, 2, ((), ("number",))),
    "States.ArrayLength": Function(_array_length, 1, 1, ((),)),
    "States.ArrayUnique": Function(_array_unique, 1, 1, ((),)),
    "States.Base64Encode": Function(_base64_encode, 1, 1, (("string",),)),
    "States.Base64Decode": Function(_base64_decode, 1, 1, (("string",),)),
    "States.Format": Function(_format, 1, _MANY, (("string",),)),
    "States.Hash": Function(_hash, 2, 2, (_ANY, ("string",))),
    "States.JsonMerge": Function(_json_merge, 3, 3, ((), (), ("boolean",))),
    "States.JsonToString": Function(_json_to_string, 1, 1, (_ANY,)),
    "States.MathAdd": Function(_math_add, 2, 2, (("number",),) * 2),
    "States.MathRandom": Function(_math_random, 2, 3, (("number",),) * 3),
    "States.StringSplit": Function(_string_split, 2, 2, (("string",),) * 2),
    "States.StringToJson": Function(_string_to_json, 1, 1, (("string",),)),
    "States.UUID": Function(_uuid, 0, 0),
}
