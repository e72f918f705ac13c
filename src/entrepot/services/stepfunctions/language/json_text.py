"""JSON as Step Functions reads and writes it: one place for `loads`, `dumps` and their bounds.

Integers stay integers and floats stay floats; NaN and infinities are refused; of duplicate keys the last wins; output
is compact with non-ASCII letters kept. The depth of what is read is bounded, so that no later walk can exhaust the
stack.
"""

import json
from itertools import accumulate
from typing import Any, NoReturn

MAX_DEPTH = 200
"""How deeply arrays and objects may be nested in data. AWS does not document its own bound (Jackson's is 1,000)."""

_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"'))
_DELTA = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_FOLDS = 3


class InvalidJson(ValueError):
    """The text is not JSON, or is beyond the bounds; str() says why, `line` and `column` where (from 1; 0: unknown)."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


def _no_constant(text: str) -> NoReturn:
    raise InvalidJson(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise InvalidJson(f"the number {text[:40]} is out of range")
    return number


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise InvalidJson("a key is there twice")
    return made


_decoder = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
_decode = _decoder.decode
_decode_unique = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_twins).decode
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def loads(text: str, max_depth: int = MAX_DEPTH, *, unique_keys: bool = False) -> Any:
    """Return the value of a JSON text. `unique_keys`: refuse an object with a key twice. Raises `InvalidJson`."""
    if text.count("[") + text.count("{") > max_depth and _too_deep(text, max_depth):
        raise InvalidJson(f"nested more than {max_depth} levels deep")
    try:
        return (_decode_unique if unique_keys else _decode)(text)
    except InvalidJson:
        raise
    except json.JSONDecodeError as error:
        raise InvalidJson(error.msg, error.lineno, error.colno) from None
    except (ValueError, RecursionError) as error:
        raise InvalidJson(str(error)) from None


def decode_at(text: str, start: int) -> tuple[Any, int]:
    """Return the value that begins at `start` and where it ends; what follows is not looked at. Raises `InvalidJson`."""
    try:
        value, end = _decoder.raw_decode(text, start)
    except InvalidJson:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidJson(str(error)) from None
    if text.count("[", start, end) + text.count("{", start, end) > MAX_DEPTH and _too_deep(text[start:end], MAX_DEPTH):
        raise InvalidJson(f"nested more than {MAX_DEPTH} levels deep")
    return value, end


def _too_deep(text: str, max_depth: int) -> bool:
    """Whether brackets outside strings are nested deeper (of a text that is JSON; of others anything may come out).

    All but brackets and quotes is thrown away first, and the innermost pairs are folded, so that little is left to count.
    """
    if "\\" in text:
        text = text.replace("\\\\", "").replace('\\"', "")
    marks = text.encode("utf-8", errors="replace").translate(None, _NO_MARKS).replace(b'""', b"")
    if b'"' in marks:
        marks = b"".join(marks.split(b'"')[::2])
    folded = marks
    for _ in range(_FOLDS):
        folded = folded.replace(b"[]", b"").replace(b"{}", b"")
    return 2 * _FOLDS + _depth(folded) > max_depth and _depth(marks) > max_depth


def _depth(marks: bytes) -> int:
    return max(accumulate(map(_DELTA.__getitem__, marks)), default=0)


def dumps(value: Any, max_depth: int = MAX_DEPTH) -> str:
    """Return the compact JSON text; it can always be written as UTF-8 (lone surrogates are escaped).

    Raises `InvalidJson` when the value is nested deeper than `loads` would take back.
    """
    try:
        text = _encode(value)
    except RecursionError:
        raise InvalidJson(f"nested more than {max_depth} levels deep") from None
    if text.count("[") + text.count("{") > max_depth and _too_deep(text, max_depth):
        raise InvalidJson(f"nested more than {max_depth} levels deep")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _encode_ascii(value)
    return text
