"""The conditions of Choice rules as a small tree: And, Or, Not over tests of one value.

Source: https://states-language.net/spec.html#choice-state. A value of the wrong type makes a test false; a path that
finds nothing is an error, except for IsPresent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .evaluation import Json, Scope
from .jsonata import JsonataExpression
from .path import Path
from .timestamps import timestamp_ns


class Condition(Protocol):
    """A test on the scope."""

    def holds(self, scope: Scope) -> bool:
        """Whether the condition is true. Raises `StatesError` (States.Runtime) when a path finds nothing."""
        ...


@dataclass(frozen=True, slots=True)
class And:
    """True when all are; stops at the first that is not."""

    conditions: tuple[Condition, ...]

    def holds(self, scope: Scope) -> bool:
        """Whether all conditions hold."""
        return all(condition.holds(scope) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Or:
    """True when one is; stops at the first that is."""

    conditions: tuple[Condition, ...]

    def holds(self, scope: Scope) -> bool:
        """Whether a condition holds."""
        return any(condition.holds(scope) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Not:
    """True when the condition is false."""

    condition: Condition

    def holds(self, scope: Scope) -> bool:
        """Whether the condition does not hold."""
        return not self.condition.holds(scope)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`Variable` compared with a value that is written down, or (…Path operators) found by a path."""

    variable: Path
    operator: str
    test: Callable[[Json, Json], bool]
    expected: Json
    expected_path: Path | None = None

    def holds(self, scope: Scope) -> bool:
        """Whether the comparison is true."""
        value = self.variable.evaluate(scope)
        expected = self.expected if self.expected_path is None else self.expected_path.evaluate(scope)
        return self.test(value, expected)


@dataclass(frozen=True, slots=True)
class JsonataCondition:
    """Condition of a rule in JSONata: an expression that must give a boolean, or a boolean."""

    expression: JsonataExpression | None
    constant: bool

    def holds(self, scope: Scope) -> bool:
        """Whether the condition is true. Raises `QueryEvaluationError`."""
        return self.constant if self.expression is None else self.expression.typed(scope, "boolean") is True


@dataclass(frozen=True, slots=True)
class IsPresent:
    """The variable is there (null counts), or is not."""

    variable: Path
    expected: bool

    def holds(self, scope: Scope) -> bool:
        """Whether presence is as expected."""
        return self.variable.exists(scope) is self.expected


def is_number(value: Json) -> bool:
    """Whether the value is a JSON number."""
    return type(value) is int or type(value) is float


def is_timestamp(value: Json) -> bool:
    """Whether the value is a string that holds a timestamp."""
    return isinstance(value, str) and timestamp_ns(value) is not None


def matches_pattern(text: str, pattern: str) -> bool:
    """Whether `text` matches `pattern`: `*` stands for any characters, `\\*` for a star, `\\\\` for a backslash.

    Each literal piece is searched once, from where the one before it ended; so the time grows with the text's length.
    """
    first, *rest = _literal_pieces(pattern)
    if not rest:
        return text == first
    if not text.startswith(first):
        return False
    position = len(first)
    for piece in rest[:-1]:
        found = text.find(piece, position)
        if found < 0:
            return False
        position = found + len(piece)
    return len(text) - position >= len(rest[-1]) and text.endswith(rest[-1])


def _literal_pieces(pattern: str) -> list[str]:
    """Return what stands between the stars that are not escaped."""
    pieces: list[list[str]] = [[]]
    letters = iter(pattern)
    for letter in letters:
        if letter == "*":
            pieces.append([])
        elif letter == "\\":
            escaped = next(letters, "")
            pieces[-1].append(escaped if escaped in ("*", "\\") else letter + escaped)
        else:
            pieces[-1].append(letter)
    return ["".join(piece) for piece in pieces]


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be", errors="surrogatepass")


def _strings(test: Callable[[int], bool]) -> Callable[[Json, Json], bool]:
    """Return a test on the order of two strings: by UTF-16 units, as Java orders them."""

    def compare(value: Json, expected: Json) -> bool:
        if not isinstance(value, str) or not isinstance(expected, str):
            return False
        if value.isascii() and expected.isascii():
            return test((value > expected) - (value < expected))
        left, right = _utf16(value), _utf16(expected)
        return test((left > right) - (left < right))

    return compare


def _numbers(test: Callable[[int], bool]) -> Callable[[Json, Json], bool]:
    def compare(value: Json, expected: Json) -> bool:
        return is_number(value) and is_number(expected) and test((value > expected) - (value < expected))

    return compare


def _timestamps(test: Callable[[int], bool]) -> Callable[[Json, Json], bool]:
    def compare(value: Json, expected: Json) -> bool:
        if not isinstance(value, str) or not isinstance(expected, str):
            return False
        left, right = timestamp_ns(value), timestamp_ns(expected)
        return left is not None and right is not None and test((left > right) - (left < right))

    return compare


def _booleans(value: Json, expected: Json) -> bool:
    return isinstance(value, bool) and value is expected


def _matches(value: Json, expected: Json) -> bool:
    return isinstance(value, str) and isinstance(expected, str) and matches_pattern(value, expected)


def _type_test(is_type: Callable[[Json], bool]) -> Callable[[Json, Json], bool]:
    return lambda value, expected: is_type(value) is expected


_ORDERS: dict[str, Callable[[int], bool]] = {
    "Equals": lambda order: order == 0,
    "LessThan": lambda order: order < 0,
    "GreaterThan": lambda order: order > 0,
    "LessThanEquals": lambda order: order <= 0,
    "GreaterThanEquals": lambda order: order >= 0,
}

TYPE_TESTS: dict[str, Callable[[Json, Json], bool]] = {
    "IsNull": _type_test(lambda value: value is None),
    "IsString": _type_test(lambda value: isinstance(value, str)),
    "IsNumeric": _type_test(is_number),
    "IsBoolean": _type_test(lambda value: isinstance(value, bool)),
    "IsTimestamp": _type_test(is_timestamp),
}
"""Operators whose operand is a boolean; IsPresent is `IsPresent`."""

COMPARISONS: dict[str, Callable[[Json, Json], bool]] = {
    **{f"String{name}": _strings(order) for name, order in _ORDERS.items()},
    **{f"Numeric{name}": _numbers(order) for name, order in _ORDERS.items()},
    **{f"Timestamp{name}": _timestamps(order) for name, order in _ORDERS.items()},
    "BooleanEquals": _booleans,
    "StringMatches": _matches,
}
"""Operators that compare; each except StringMatches has a …Path twin."""
