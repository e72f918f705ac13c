"""Filter expressions of paths: `?(@.price < 10 && @.tag in ['a','b'])`, compiled to a tree that tests one node.

Comparison follows Jayway, which AWS runs: a number equals its text, things of different types are not ordered, a path
that finds nothing equals nothing. Regular expressions (`=~`) are refused: their time could not be bounded.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from .evaluation import Json
from .path_syntax import MAX_FILTER_DEPTH, Cursor, Step, is_definite, parse_quoted, parse_root, parse_steps

_PATH_STOPS = " \t\r\n)=<>!&|,]"
_OPERATOR = re.compile(r"==|!=|<=|>=|<|>|(?:in|nin|subsetof|anyof|noneof|contains|size|empty)(?![\w.])")
_NUMBER = re.compile(r"-?[0-9]{1,300}(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,3})?(?![\w])")
_WORD = re.compile(r"\w+")
_WORDS: dict[str, Json] = {"true": True, "false": False, "null": None}

MISSING = object()
"""What an operand gives whose path finds nothing."""

Walk: TypeAlias = Callable[[Json, tuple[Step, ...]], list[Json]]
"""Finds what the steps lead to from a node; the caller's `Walk` also counts the nodes it visits."""


class Test(Protocol):
    """A filter's node of the tree."""

    def holds(self, node: Json, root: Json, walk: Walk) -> bool:
        """Whether `node` passes; `root` is what `$` means."""
        ...


@dataclass(frozen=True, slots=True)
class Operand:
    """A literal, or a path from the node (`@`) or the root (`$`)."""

    literal: Json = None
    from_node: bool = False
    steps: tuple[Step, ...] | None = None
    definite: bool = True

    def value(self, node: Json, root: Json, walk: Walk) -> Json:
        """Return the value, or MISSING."""
        if self.steps is None:
            return self.literal
        found = walk(node if self.from_node else root, self.steps)
        if not self.definite:
            return found
        return found[0] if found else MISSING


@dataclass(frozen=True, slots=True)
class Exists:
    """A path alone: it finds something."""

    operand: Operand

    def holds(self, node: Json, root: Json, walk: Walk) -> bool:
        """Whether the path finds anything, null included."""
        value = self.operand.value(node, root, walk)
        if not self.operand.definite:
            return bool(value)
        return value is not MISSING


@dataclass(frozen=True, slots=True)
class Compare:
    """`left operator right`."""

    left: Operand
    operator: str
    right: Operand

    def holds(self, node: Json, root: Json, walk: Walk) -> bool:
        """Whether the comparison is true; never raises for types that do not fit."""
        return compare(self.operator, self.left.value(node, root, walk), self.right.value(node, root, walk))


@dataclass(frozen=True, slots=True)
class Not:
    """`!test`."""

    test: Test

    def holds(self, node: Json, root: Json, walk: Walk) -> bool:
        """Whether the test is false."""
        return not self.test.holds(node, root, walk)


@dataclass(frozen=True, slots=True)
class AllOf:
    """`a && b`."""

    tests: tuple[Test, ...]

    def holds(self, node: Json, root: Json, walk: Walk) -> bool:
        """Whether every test is true."""
        return all(test.holds(node, root, walk) for test in self.tests)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """`a || b`."""

    tests: tuple[Test, ...]

    def holds(self, node: Json, root: Json, walk: Walk) -> bool:
        """Whether one test is true."""
        return any(test.holds(node, root, walk) for test in self.tests)


def compare(operator: str, left: Json, right: Json) -> bool:
    """Compare two values as Jayway does; MISSING stands for a path that found nothing."""
    if operator == "==":
        return _equal(left, right)
    if operator == "!=":
        return not _equal(left, right)
    if left is MISSING or right is MISSING:
        return False
    if operator in ("<", "<=", ">", ">="):
        return _ordered(operator, left, right)
    return _by_word(operator, left, right)


def _is_number(value: Json) -> bool:
    return type(value) is int or type(value) is float


def _equal(left: Json, right: Json) -> bool:
    if left is MISSING or right is MISSING:
        return left is right
    if _is_number(left) and isinstance(right, str):
        return bool(_number_of(right) == left)
    if isinstance(left, str) and _is_number(right):
        return bool(left == str(right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _number_of(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _ordered(operator: str, left: Json, right: Json) -> bool:
    if not (_is_number(left) and _is_number(right)) and not (isinstance(left, str) and isinstance(right, str)):
        return False
    if operator == "<":
        return bool(left < right)
    if operator == "<=":
        return bool(left <= right)
    if operator == ">":
        return bool(left > right)
    return bool(left >= right)


def _by_word(operator: str, left: Json, right: Json) -> bool:
    if operator == "in":
        return isinstance(right, list) and any(_equal(left, item) for item in right)
    if operator == "nin":
        return isinstance(right, list) and not any(_equal(left, item) for item in right)
    if operator == "contains":
        if isinstance(left, str) and isinstance(right, str):
            return right in left
        return isinstance(left, list) and any(_equal(item, right) for item in left)
    if operator == "size":
        return isinstance(left, str | list) and _is_number(right) and bool(len(left) == right)
    if operator == "empty":
        return isinstance(left, str | list) and bool((len(left) == 0) is right)
    if not isinstance(left, list) or not isinstance(right, list):
        return False
    if operator == "subsetof":
        return all(any(_equal(a, b) for b in right) for a in left)
    found = any(_equal(a, b) for a in left for b in right)
    return found if operator == "anyof" else not found


def parse_filter(cursor: Cursor) -> Test:
    """Parse a filter in its parentheses."""
    cursor.depth += 1
    if cursor.depth > MAX_FILTER_DEPTH:
        raise cursor.problem(f"filters nested more than {MAX_FILTER_DEPTH} deep")
    cursor.expect("(")
    test = _parse_any(cursor)
    cursor.expect(")")
    cursor.depth -= 1
    return test


def _parse_any(cursor: Cursor) -> Test:
    tests = [_parse_all(cursor)]
    while cursor.take("||"):
        tests.append(_parse_all(cursor))
    return tests[0] if len(tests) == 1 else AnyOf(tuple(tests))


def _parse_all(cursor: Cursor) -> Test:
    tests = [_parse_test(cursor)]
    while cursor.take("&&"):
        tests.append(_parse_test(cursor))
    return tests[0] if len(tests) == 1 else AllOf(tuple(tests))


def _parse_test(cursor: Cursor) -> Test:
    cursor.skip_blanks()
    negations = 0
    while cursor.peek() == "!":
        cursor.pos += 1
        negations += 1
        cursor.skip_blanks()
    test = parse_filter(cursor) if cursor.peek() == "(" else _parse_comparison(cursor)
    cursor.skip_blanks()
    return Not(test) if negations % 2 else test


def _parse_comparison(cursor: Cursor) -> Test:
    left = _parse_operand(cursor)
    cursor.skip_blanks()
    operator = cursor.match(_OPERATOR)
    if operator is not None:
        cursor.skip_blanks()
        return Compare(left, operator, _parse_operand(cursor))
    if left.steps is None:
        raise cursor.problem("expected a comparison")
    return Exists(left)


def _parse_operand(cursor: Cursor) -> Operand:
    char = cursor.peek()
    if char in ("@", "$") and char:
        if char == "@":
            cursor.pos += 1
        elif parse_root(cursor) != "$":
            raise cursor.problem("only '@' and '$' can be used in a filter")
        steps = parse_steps(cursor, _PATH_STOPS, parse_filter)
        return Operand(from_node=char == "@", steps=steps, definite=is_definite(steps))
    return Operand(_parse_literal(cursor))


def _parse_literal(cursor: Cursor) -> Json:
    char = cursor.peek()
    if char in ("'", '"') and char:
        return parse_quoted(cursor)
    if char == "[":
        return _parse_list(cursor)
    number = cursor.match(_NUMBER)
    if number is not None:
        return float(number) if any(mark in number for mark in ".eE") else int(number)
    word = cursor.match(_WORD)
    if word is None:
        raise cursor.problem("expected a path or a literal")
    return _WORDS.get(word, word)


def _parse_list(cursor: Cursor) -> list[Json]:
    cursor.expect("[")
    items: list[Json] = []
    cursor.skip_blanks()
    while not cursor.take("]"):
        if items:
            cursor.expect(",")
            cursor.skip_blanks()
        if cursor.peek() == "[":
            raise cursor.problem("lists in lists are not supported")
        items.append(_parse_literal(cursor))
        cursor.skip_blanks()
    return items
