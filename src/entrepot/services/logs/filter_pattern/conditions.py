"""Conditions on the values that selectors find, joined by && and ||: the grammar that JSON and space-delimited patterns share."""

import operator
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from entrepot.services.logs.filter_pattern.regex import Refuse, compile_regex
from entrepot.services.logs.filter_pattern.selectors import Select
from entrepot.services.logs.filter_pattern.terms import unquoted

Condition: TypeAlias = Callable[[Any], bool]

DEPTH_LIMIT = 32
"""Parentheses may nest this deep."""

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<regex>%(?:[^%\\]|\\.)+%)"""
    r"""|(?P<selector>\$(?:\.\*|\.?[\w\-:/@]+|\.?\[(?:\d+|\*|"[^"]*"|'[^']*')\]|\.)*)"""
    r"""|(?P<op>&&|\|\||!=|<=|>=|=|<|>|\(|\)|,|\.\.\.)|(?P<word>[^\s"=<>!&|(),]+))"""
)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_CONSTANTS = {"TRUE": True, "FALSE": False, "NULL": None}


class Conditions:
    """Reads conditions over what `selector` makes of a left side. After it, `selectors` are those that were named."""

    def __init__(self, text: str, selector: Callable[[str, Refuse], Select], refuse: Refuse) -> None:
        self.selectors: dict[str, Select] = {}
        self.regexes = 0
        self._selector = selector
        self._refuse = refuse
        self._tokens: list[tuple[str, str]] = []
        self._at = 0
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                refuse(f"cannot read {text[at : at + 40]!r}")
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()

    def read(self) -> Condition:
        """Return the condition that the whole text is."""
        condition = self._expression(0)
        if self._at < len(self._tokens):
            self._refuse(f"unexpected {self._peek()[1]!r}")
        return condition

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _expression(self, depth: int) -> Condition:
        """`and ('||' and)*`."""
        if depth > DEPTH_LIMIT:
            self._refuse("too many parentheses")
        either = [self._conjunction(depth)]
        while self._peek() == ("op", "||"):
            self._next()
            either.append(self._conjunction(depth))
        return either[0] if len(either) == 1 else lambda value: any(condition(value) for condition in either)

    def _conjunction(self, depth: int) -> Condition:
        both = [self._unit(depth)]
        while self._peek() == ("op", "&&"):
            self._next()
            both.append(self._unit(depth))
        return both[0] if len(both) == 1 else lambda value: all(condition(value) for condition in both)

    def _unit(self, depth: int) -> Condition:
        if self._peek() == ("op", "("):
            self._next()
            inner = self._expression(depth + 1)
            if self._next() != ("op", ")"):
                self._refuse("a closing ) is missing")
            return inner
        kind, left = self._next()
        if kind not in ("selector", "word"):
            self._refuse(f"expected a field, found {left!r}")
        select = self.selectors[left] = self._selector(left, self._refuse)
        return self._condition(select)

    def _condition(self, select: Select) -> Condition:
        kind, op = self._next()
        if kind == "word" and op.upper() == "IS":
            name = self._next()[1].upper()
            if name not in _CONSTANTS:
                self._refuse("IS wants TRUE, FALSE or NULL")
            constant = _CONSTANTS[name]
            return lambda value: any(found is constant for found in select(value))
        if kind == "word" and op.upper() == "NOT":
            if self._next()[1].upper() != "EXISTS":
                self._refuse("NOT wants EXISTS")
            return lambda value: not select(value)
        if kind == "word" and op.upper() == "EXISTS":
            return lambda value: bool(select(value))
        if kind != "op" or op not in _COMPARE:
            self._refuse(f"expected a comparison, found {op!r}")
        return self._comparison(select, op)

    def _comparison(self, select: Select, op: str) -> Condition:
        kind, right = self._next()
        if kind not in ("quoted", "word", "regex"):
            self._refuse(f"expected a value after {op!r}, found {right!r}")
        if kind == "word" and _NUMBER.fullmatch(right):
            compare, number = _COMPARE[op], float(right)
            return lambda value: any(
                (n := _as_number(found)) is not None and compare(n, number) for found in select(value)
            )
        if op not in ("=", "!="):
            self._refuse(f"{op!r} compares numbers, {right!r} is none")
        if kind == "regex":
            self.regexes += 1
            like = compile_regex(right, self._refuse)
        else:
            like = wildcard(unquoted(right[1:-1]) if kind == "quoted" else right)
        wanted = op == "="
        return lambda value: any(like(found) == wanted for found in map(as_text, select(value)) if found is not None)


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e300 else None
    return text_number(value) if isinstance(value, str) else None


def text_number(text: str) -> float | None:
    """Return the number that a text is."""
    return float(text) if len(text) <= 64 and _NUMBER.fullmatch(text) else None


def as_text(value: Any) -> str | None:
    """Return a value as the text that it is compared by; None for what has none (objects, arrays, null, booleans)."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None


def wildcard(pattern: str) -> Callable[[str], bool]:
    """Return a matcher for text with `*` for anything, linear in the text for each `*`."""
    parts = pattern.split("*")
    if len(parts) == 1:
        return lambda text: text == pattern
    first, last, middle = parts[0], parts[-1], [part for part in parts[1:-1] if part]

    def matches(text: str) -> bool:
        if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for part in middle:
            found = text.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return matches
