"""JSON as Step Functions reads and writes it: one place for `loads`, `dumps` and their bounds.

Integers stay integers and floats stay floats; NaN and infinities are refused; of duplicate keys the last wins; output
is compact with non-ASCII letters kept. The depth of what is read is bounded, so that no later walk can exhaust the
stack.
"""

import json
import re
from itertools import accumulate
from typing import Any, NoReturn

MAX_DEPTH = 200
"""How deeply arrays and objects may be nested in data. AWS does not document its own bound (Jackson's is 1,000)."""

_NOT_BRACKETS = re.compile(r'"(?:[^"\\]+|\\.)*"|[^\[\]{}"]+', re.DOTALL)
_DELTA = {"[": 1, "{": 1, "]": -1, "}": -1, '"': 0}


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


_decode = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite).decode
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def loads(text: str, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value of a JSON text. Raises `InvalidJson`."""
    if text.count("[") + text.count("{") > max_depth and _depth(text) > max_depth:
        raise InvalidJson(f"nested more than {max_depth} levels deep")
    try:
        return _decode(text)
    except InvalidJson:
        raise
    except json.JSONDecodeError as error:
        raise InvalidJson(error.msg, error.lineno, error.colno) from None
    except (ValueError, RecursionError) as error:
        raise InvalidJson(str(error)) from None


def _depth(text: str) -> int:
    """Return the greatest nesting of brackets outside strings. Linear: the pattern never looks back."""
    brackets = _NOT_BRACKETS.sub("", text)
    return max(accumulate(map(_DELTA.__getitem__, brackets)), default=0)


def dumps(value: Any) -> str:
    """Return the compact JSON text; it can always be written as UTF-8 (lone surrogates are escaped)."""
    text = _encode(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _encode_ascii(value)
    return text
