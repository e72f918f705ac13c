"""What one field of an event pattern accepts: AWS's comparison operators, validated and compiled.

Operators: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
The texts of errors are those of AWS's event-ruler. Every test is linear in the length of the value.
"""

import ipaddress
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from entrepot.services.events.errors import InvalidEventPatternError

WILDCARDS_LIMIT = 5
"""Wildcard characters in one value; AWS refuses rules whose wildcards let too many prefixes match at once."""

Token: TypeAlias = str | int | float | tuple[str, bool | None]
Test: TypeAlias = Callable[[Any], bool]
Key: TypeAlias = tuple[str, Any, Any]
"""What an index files a test under; every value that the test accepts has it. Its kind, then what the kind needs:
("prefix", text, ignoring case), ("suffix", text, ignoring case), ("text", text, True) for a whole text whose case does not
count, ("range", least, greatest), ("cidr", (version, shift), network)."""

Pairs: TypeAlias = "ObjectPairs"


class ObjectPairs(list[tuple[str, Any]]):
    """A JSON object as its pairs in order, so that a key that comes twice can be seen."""


class Keyed(NamedTuple):
    """A test, and what an index may file it under; None where no index helps."""

    test: Test
    key: Key | None


@dataclass(frozen=True, slots=True)
class Leaf:
    """What one field accepts: one of `exact`, anything at all (`exists`), one of `tests`, or (`absent`) no field.

    `keys` are those of the tests; None when one of them has none. `source` is the same for the same pattern.
    """

    exact: frozenset[Token]
    tests: tuple[Test, ...]
    exists: bool
    absent: bool
    keys: tuple[Key, ...] | None
    source: str

    @property
    def absent_only(self) -> bool:
        """Whether only the absence of the field is accepted."""
        return self.absent and not (self.exact or self.tests or self.exists)

    def accepts(self, value: object) -> bool:
        """Return whether a string, number, boolean or null that is there is accepted."""
        if self.exists or token(value) in self.exact:
            return True
        return any(test(value) for test in self.tests)


def invalid(reason: str) -> InvalidEventPatternError:
    """Return AWS's error for a pattern."""
    return InvalidEventPatternError(f"Event pattern is not valid. Reason: {reason}")


def token(value: object) -> Token:
    """Return what stands for a scalar where values are looked up: 300 and 300.0 are the same, true and 1 are not."""
    if value is None or value is True or value is False:
        return ("literal", value)
    return value  # type: ignore[return-value]


def compile_leaf(values: Iterable[Any]) -> Leaf:
    """Compile the array of a field; raise InvalidEventPatternError."""
    exact: set[Token] = set()
    tests: list[Keyed] = []
    exists = absent = False
    empty = True
    values = list(values)
    for value in values:
        empty = False
        if not isinstance(value, list):
            exact.add(token(value))
        elif not isinstance(value, ObjectPairs):
            raise invalid("Match value must be String, number, true, false, or null")
        else:
            compiled = _expression(value)
            if isinstance(compiled, bool):
                exists, absent = exists or compiled, absent or not compiled
            elif isinstance(compiled, Keyed):
                tests.append(compiled)
            else:
                exact.update(compiled)
    if empty:
        raise invalid("Empty arrays are not allowed")
    keys = [keyed.key for keyed in tests if keyed.key is not None]
    return Leaf(
        frozenset(exact), tuple(keyed.test for keyed in tests), exists, absent,
        tuple(keys) if len(keys) == len(tests) else None, repr(values),
    )  # fmt: skip


def _expression(pairs: ObjectPairs) -> Keyed | frozenset[Token] | bool:
    if not pairs:
        raise invalid("Match expression name not found")
    name, value = pairs[0]
    known = _OPERATORS.get(name)
    if known is None:
        raise invalid(f"Unrecognized match type {name}")
    compiled = known(value)
    if len(pairs) > 1:
        raise invalid(
            "Too many elements in numeric expression"
            if name in ("numeric", "anything-but")
            else "Only one key allowed in match expression"
        )
    return compiled


# ── the operators ────────────────────────────────────────────────────────────────────────────────────────────────────


def _text(value: object, operator: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"{operator} match pattern must be a string")
    return value


def _exactly(value: object) -> frozenset[Token]:
    return frozenset((_text(value, "exact"),))


def _exists(value: object) -> bool:
    if not isinstance(value, bool):
        raise invalid("exists match pattern must be either true or false.")
    return value


def _ignoring_case(value: object, operator: str) -> str | None:
    """Return the lowered text of `{"equals-ignore-case": text}`, None when `value` is no object."""
    if not isinstance(value, ObjectPairs):
        return None
    if not value:
        raise invalid(f"{operator.capitalize()} expression name not found")
    name, text = value[0]
    if name != "equals-ignore-case":
        raise invalid(f"Unsupported {operator} pattern: {name}")
    lowered = _text(text, "equals-ignore-case").lower()
    if len(value) > 1:
        raise invalid("Only one key allowed in match expression")
    return lowered


def _prefix(value: object) -> Keyed:
    if (lowered := _ignoring_case(value, "prefix")) is not None:
        return Keyed(lambda v: isinstance(v, str) and v.lower().startswith(lowered), ("prefix", lowered, True))
    text = _text(value, "prefix")
    return Keyed(lambda v: isinstance(v, str) and v.startswith(text), ("prefix", text, False))


def _suffix(value: object) -> Keyed:
    if (lowered := _ignoring_case(value, "suffix")) is not None:
        return Keyed(lambda v: isinstance(v, str) and v.lower().endswith(lowered), ("suffix", lowered, True))
    text = _text(value, "suffix")
    return Keyed(lambda v: isinstance(v, str) and v.endswith(text), ("suffix", text, False))


def _equals_ignore_case(value: object) -> Keyed:
    lowered = _text(value, "equals-ignore-case").lower()
    return Keyed(lambda v: isinstance(v, str) and v.lower() == lowered, ("text", lowered, True))


def _wildcard(value: object) -> Keyed:
    text = _text(value, "wildcard")
    pieces = _wildcard_pieces(text)
    if len(pieces) == 1:
        return Keyed(lambda v: v == pieces[0], ("prefix", pieces[0], False))
    head, *middle, tail = pieces
    least = len(head) + len(tail)

    def matches(v: object) -> bool:
        if not isinstance(v, str) or len(v) < least or not v.startswith(head) or not v.endswith(tail):
            return False
        position, end = len(head), len(v) - len(tail)
        for piece in middle:  # The leftmost place of each piece leaves most room for the rest: no backtracking.
            found = v.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True

    if not head and not tail:
        return Keyed(matches, None)
    return Keyed(matches, ("prefix", head, False) if len(head) >= len(tail) else ("suffix", tail, False))


def _wildcard_pieces(text: str) -> list[str]:
    """Return the texts between the wildcards; `\\*` and `\\\\` stand for themselves."""
    pieces, current, position = [], "", 0
    while position < len(text):
        character = text[position]
        if character == "*":
            if text[position + 1 : position + 2] == "*":
                raise invalid(f"Consecutive wildcard characters at pos {len(text[:position].encode()) + 1}")
            pieces.append(current)
            current = ""
        elif character == "\\":
            position += 1
            if text[position : position + 1] not in ("*", "\\"):
                raise invalid(f"Invalid escape character at pos {len(text[: position - 1].encode()) + 1}")
            current += text[position]
        else:
            current += character
        position += 1
    if len(pieces) > WILDCARDS_LIMIT:
        raise invalid(
            "Rule is too complex - try using fewer wildcard characters or fewer repeating character sequences after a "
            "wildcard character"
        )
    return [*pieces, current]


def _number(value: object, operator: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"Value of {'equals' if operator == '=' else operator} must be numeric")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numeric(value: object) -> Keyed | frozenset[Token]:
    if not isinstance(value, list) or isinstance(value, ObjectPairs):
        raise invalid("Value of numeric must be an array.")
    if not value or not isinstance(value[0], str):
        raise invalid(f"Invalid member in numeric match: {_shown(value[0]) if value else ']'}")
    operator = value[0]
    if operator not in ("=", ">", ">=", "<", "<="):
        raise invalid(f"Unrecognized numeric range operator: {operator}")
    bound = _number(value[1] if len(value) > 1 else None, operator)
    if operator in ("=", "<", "<=") or len(value) == 2:
        if len(value) > 2:
            raise invalid("Too many elements in numeric expression")
        if operator == "=":
            return frozenset((bound,))
        least, greatest = (-math.inf, bound) if operator in ("<", "<=") else (bound, math.inf)
        return Keyed(_COMPARE[operator](bound), ("range", least, greatest))
    return _numeric_range(_COMPARE[operator](bound), bound, value[2:])


def _numeric_range(above: Test, bottom: float, rest: list[Any]) -> Keyed:
    operator = rest[0]
    if not isinstance(operator, str):
        raise invalid(f"Bad value in numeric range: {_shown(operator)}")
    if operator not in ("<", "<="):
        raise invalid(f"Bad numeric range operator: {operator}")
    top = _number(rest[1] if len(rest) > 1 else None, operator)
    if len(rest) > 2:
        raise invalid("Too many terms in numeric range expression")
    if bottom >= top:
        raise invalid("Bottom must be less than top")
    below = _COMPARE[operator](top)
    return Keyed(lambda v: above(v) and below(v), ("range", bottom, top))


_COMPARE: dict[str, Callable[[Any], Test]] = {
    "<": lambda bound: lambda v: _is_number(v) and v < bound,
    "<=": lambda bound: lambda v: _is_number(v) and v <= bound,
    ">": lambda bound: lambda v: _is_number(v) and v > bound,
    ">=": lambda bound: lambda v: _is_number(v) and v >= bound,
}


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


_IPV4 = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+")
_IPV6 = re.compile(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*")


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a text is, None when it is none."""
    if _IPV4.fullmatch(text) or _IPV6.fullmatch(text):
        try:
            return ipaddress.ip_address(text)
        except ValueError:
            return None
    return None


def _cidr(value: object) -> Keyed:
    address_text, slash, bits_text = _text(value, "prefix").partition("/")
    if not slash or not address_text or not bits_text or "/" in bits_text:
        raise invalid("Malformed CIDR, one '/' required")
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", bits_text):
        raise invalid("Malformed CIDR, mask bits must be an integer")
    bits = int(bits_text)
    if bits < 0:
        raise invalid("Malformed CIDR, mask bits must not be negative")
    if not (_IPV4.fullmatch(address_text) or _IPV6.fullmatch(address_text)):
        raise invalid(f"Nonstandard IP address: {address_text}")
    address = address_of(address_text)
    if address is None:
        raise invalid(f"Invalid IP address: {address_text}")
    if bits >= address.max_prefixlen:
        raise invalid(f"IPv{address.version} mask bits must be < {address.max_prefixlen}")
    shift, version = address.max_prefixlen - bits, address.version
    network = int(address) >> shift

    def matches(v: object) -> bool:
        if not isinstance(v, str) or len(v) > 45:
            return False
        candidate = address_of(v)
        return candidate is not None and candidate.version == version and int(candidate) >> shift == network

    return Keyed(matches, ("cidr", (version, shift), network))


def _anything_but(value: object) -> Keyed:
    if isinstance(value, ObjectPairs):
        return _anything_but_expression(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float | list):
        raise invalid("Value of anything-but must be an array or single string/number value.")
    values = value if isinstance(value, list) else [value]
    if any(isinstance(v, bool) or not isinstance(v, str | int | float) for v in values):
        raise invalid("Inside anything but list, start|null|boolean is not supported.")
    if len({isinstance(v, str) for v in values}) != 1:
        raise invalid("Inside anything but list, either all values are number or string, mixed type is not supported")
    refused = frozenset(token(v) for v in values)
    return Keyed(lambda v: token(v) not in refused, None)


def _anything_but_expression(pairs: ObjectPairs) -> Keyed:
    if not pairs:
        raise invalid("Anything-But expression name not found")
    operator, value = pairs[0]
    if operator not in ("equals-ignore-case", "prefix", "suffix", "wildcard"):
        raise invalid(f"Unsupported anything-but pattern: {operator}")
    if isinstance(value, bool) or value is None or isinstance(value, ObjectPairs):
        raise invalid("Value of anything-but must be an array or single string/number value.")
    values = value if isinstance(value, list) else [value]
    for text in values:
        if not isinstance(text, str):
            raise invalid(
                {
                    "equals-ignore-case": "Inside anything-but/equals-ignore-case list, number|start|null|boolean is "
                    "not supported.",
                    "wildcard": "wildcard match pattern must be a string",
                }.get(operator, "prefix/suffix match pattern must be a string")
            )
        if not text and operator in ("prefix", "suffix"):
            raise invalid("Null prefix/suffix not allowed")
    if len(pairs) > 1:
        raise invalid("Too many elements in numeric expression")
    compile_one = {
        "equals-ignore-case": _equals_ignore_case, "prefix": _prefix, "suffix": _suffix, "wildcard": _wildcard
    }[operator]  # fmt: skip
    refused = tuple(compile_one(text).test for text in values)
    return Keyed(lambda v: not any(test(v) for test in refused), None)


_OPERATORS: dict[str, Callable[[Any], Keyed | frozenset[Token] | bool]] = {
    "exactly": _exactly,
    "prefix": _prefix,
    "suffix": _suffix,
    "numeric": _numeric,
    "anything-but": _anything_but,
    "exists": _exists,
    "cidr": _cidr,
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": _wildcard,
}

RESERVED_IN_OR = frozenset(
    {
        *_OPERATORS, "=", "<", "<=", ">", ">=", "regex", "not-wildcard", "not-equals-ignore-case", "date-after",
        "date-on-or-after", "date-before", "date-on-or-before", "in-date-range", "ip-address-in-range",
        "ip-address-not-in-range",
    }
)  # fmt: skip
"""Names that AWS does not allow for fields inside `$or`."""


def finite(text: str) -> float:
    """Parse a JSON number with a fraction or exponent; raise ValueError when no double can hold it."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number out of range: {text[:40]}")
    return value
