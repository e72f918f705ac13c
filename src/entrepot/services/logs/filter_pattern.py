"""The filter pattern language of CloudWatch Logs, compiled into a function of a message.

Three forms: terms (`ERROR -timeout "a phrase" ?any`), JSON (`{ $.a.b = "x*" && $.n > 3 }`) and space-delimited
(`[ip, user, ..., status = 4*]`). Matching takes time linear in the message for each condition; there is no regular
expression engine behind it, so `%regex%` is refused rather than left to run away.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

import json
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeAlias

from entrepot.services.logs.errors import InvalidParameterError

Matches: TypeAlias = Callable[[str], bool]
Condition: TypeAlias = Callable[[Any], bool]

PATTERN_LIMIT_CHARS = 1_024
"""AWS's limit for a filter pattern."""

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
_TERM = re.compile(r'([?-]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?=\s|$)')
_REFUSED_IN_TERM = re.compile(r"""[\[\]{}()%&|=<>!,;:'?]""")
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<selector>\$(?:\.?[\w\-:/@]+|\.?\[(?:\d+|\*|"[^"]*"|'[^']*')\]|\.)*)"""
    r"""|(?P<op>&&|\|\||!=|<=|>=|=|<|>|\(|\)|,|\.\.\.)|(?P<word>[^\s"=<>!&|(),]+))"""
)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_STEP = re.compile(r"""\.?\[(\d+|\*)\]|\.?\[(?:"([^"]*)"|'([^']*)')\]|\.?([\w\-:/@]+)""")
_FIELD = re.compile(r"""\[([^\]]*)\]|"([^"]*)"|(\S+)""")


def compile_pattern(pattern: str) -> Matches:
    """Return a function that says whether a message matches; InvalidParameterError when `pattern` is not one."""
    if len(pattern) > PATTERN_LIMIT_CHARS:
        raise InvalidParameterError(
            f"1 validation error detected: Value at 'filterPattern' failed to satisfy constraint: "
            f"Member must have length less than or equal to {PATTERN_LIMIT_CHARS}"
        )
    text = pattern.strip()
    if not text:
        return lambda _: True
    if text.startswith("{"):
        if not text.endswith("}"):
            _invalid(pattern, "the closing } is missing")
        return _json_pattern(text[1:-1], pattern)
    if text.startswith("["):
        if not text.endswith("]"):
            _invalid(pattern, "the closing ] is missing")
        return _fields_pattern(text[1:-1], pattern)
    return _terms_pattern(text, pattern)


def _invalid(pattern: str, why: str) -> NoReturn:
    raise InvalidParameterError(f"Invalid filter pattern {pattern!r}: {why}")


# ── terms ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _terms_pattern(text: str, pattern: str) -> Matches:
    wanted: list[str] = []
    unwanted: list[str] = []
    any_of: list[str] = []
    at = 0
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None:
            _invalid(pattern, f"cannot read {text[at : at + 40]!r}")
        sign, quoted, bare = match.groups()
        if bare is not None and bare.startswith("%"):
            _invalid(pattern, "regular expressions (%...%) are not supported here")
        if bare is not None and _REFUSED_IN_TERM.search(bare):
            raise InvalidParameterError(f"Invalid character(s) in term '{bare}'. Put it in double quotes.")
        term = bare if bare is not None else _unquote(quoted)
        {"": wanted, "-": unwanted, "?": any_of}[sign].append(term)
        at = match.end()
        while at < len(text) and text[at].isspace():
            at += 1
    if wanted or unwanted:
        any_of = []  # as AWS does: optional terms beside others decide nothing

    def matches(message: str) -> bool:
        return (
            all(term in message for term in wanted)
            and not any(term in message for term in unwanted)
            and (not any_of or any(term in message for term in any_of))
        )

    return matches


def _unquote(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted)


# ── JSON and fields: one grammar of conditions ───────────────────────────────────────────────────────────────────────


def _json_pattern(body: str, pattern: str) -> Matches:
    parser = _Parser(body, pattern, _json_selector)
    condition = parser.expression(0)
    parser.expect_end()

    def matches(message: str) -> bool:
        start = message.find("{")
        if start < 0:
            return False
        try:
            document = json.loads(message if start == 0 else message[start:])
        except (ValueError, RecursionError):
            return False
        return condition(document)

    return matches


def _fields_pattern(body: str, pattern: str) -> Matches:
    fields: list[str | None] = []
    conditions: list[tuple[str, Condition]] = []
    for part in _split_fields(body):
        part = part.strip()
        if part == "...":
            if None in fields:
                _invalid(pattern, "only one ... is allowed")
            fields.append(None)
            continue
        name = re.match(r"[(\s]*([A-Za-z_]\w*)", part)
        if name is None:
            _invalid(pattern, f"{part!r} is not a field")
        fields.append(name[1])
        if part != name[1]:
            parser = _Parser(part, pattern, _field_selector)
            conditions.append((name[1], parser.expression(0)))
            parser.expect_end()
    names = [field for field in fields if field is not None]
    if len(set(names)) != len(names):
        _invalid(pattern, "two fields have the same name")
    gap = fields.index(None) if None in fields else -1

    def matches(message: str) -> bool:
        values = [next(group for group in match.groups() if group is not None) for match in _FIELD.finditer(message)]
        if len(values) != len(fields) if gap < 0 else len(values) < len(names):
            return False
        if gap >= 0:
            values = values[:gap] + values[len(values) - (len(names) - gap) :]
        record = dict(zip(names, values, strict=True))
        return all(condition(record) for _, condition in conditions)

    return matches


def _split_fields(body: str) -> Iterator[str]:
    """Yield what stands between the commas that are not in quotes."""
    start, quoted = 0, False
    for at, char in enumerate(body):
        if char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            yield body[start:at]
            start = at + 1
    yield body[start:]


class _Parser:
    """Conditions joined by && and ||, with parentheses, over whatever `select` makes of a left side."""

    def __init__(self, text: str, pattern: str, select: Callable[[str, str], Callable[[Any], list[Any]]]) -> None:
        self._pattern = pattern
        self._select = select
        self._tokens: list[tuple[str, str]] = []
        self._at = 0
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                _invalid(pattern, f"cannot read {text[at : at + 40]!r}")
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def expect_end(self) -> None:
        """Refuse what is left over."""
        if self._at < len(self._tokens):
            _invalid(self._pattern, f"unexpected {self._peek()[1]!r}")

    def expression(self, depth: int) -> Condition:
        """`and ('||' and)*`."""
        if depth > DEPTH_LIMIT:
            _invalid(self._pattern, "too many parentheses")
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
            inner = self.expression(depth + 1)
            if self._next() != ("op", ")"):
                _invalid(self._pattern, "a closing ) is missing")
            return inner
        kind, left = self._next()
        if kind not in ("selector", "word"):
            _invalid(self._pattern, f"expected a field, found {left!r}")
        return self._condition(self._select(left, self._pattern))

    def _condition(self, select: Callable[[Any], list[Any]]) -> Condition:
        kind, op = self._next()
        if kind == "word" and op.upper() == "IS":
            name = self._next()[1].upper()
            if name not in ("TRUE", "FALSE", "NULL"):
                _invalid(self._pattern, "IS wants TRUE, FALSE or NULL")
            constant = {"TRUE": True, "FALSE": False, "NULL": None}[name]
            return lambda value: any(found is constant for found in select(value))
        if kind == "word" and op.upper() == "NOT":
            if self._next()[1].upper() != "EXISTS":
                _invalid(self._pattern, "NOT wants EXISTS")
            return lambda value: not select(value)
        if kind == "word" and op.upper() == "EXISTS":
            return lambda value: bool(select(value))
        if kind != "op" or op not in _COMPARE:
            _invalid(self._pattern, f"expected a comparison, found {op!r}")
        return self._comparison(select, op)

    def _comparison(self, select: Callable[[Any], list[Any]], op: str) -> Condition:
        kind, right = self._next()
        if kind not in ("quoted", "word"):
            _invalid(self._pattern, f"expected a value after {op!r}, found {right!r}")
        if kind == "word" and right.startswith("%"):
            _invalid(self._pattern, "regular expressions (%...%) are not supported here")
        if kind == "word" and _NUMBER.fullmatch(right):
            compare, number = _COMPARE[op], float(right)
            return lambda value: any(
                (n := _as_number(found)) is not None and compare(n, number) for found in select(value)
            )
        if op not in ("=", "!="):
            _invalid(self._pattern, f"{op!r} compares numbers, {right!r} is none")
        like = _wildcard(_unquote(right[1:-1]) if kind == "quoted" else right)
        wanted = op == "="
        return lambda value: any(like(found) == wanted for found in map(_as_text, select(value)) if found is not None)


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e300 else None
    if isinstance(value, str) and len(value) <= 64 and _NUMBER.fullmatch(value):
        return float(value)
    return None


def _as_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None


def _wildcard(pattern: str) -> Callable[[str], bool]:
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


def _json_selector(selector: str, pattern: str) -> Callable[[Any], list[Any]]:
    """Return a function that finds the values of `$.a[0].b[*]` in a document; an absent field gives none."""
    if not selector.startswith("$"):
        _invalid(pattern, f"{selector!r} is not a selector such as $.a.b")
    steps: list[str | int | None] = []
    at = 1
    while at < len(selector):
        match = _STEP.match(selector, at)
        if match is None:
            _invalid(pattern, f"{selector!r} is not a selector such as $.a.b")
        index, double, single, name = match.groups()
        if index is not None:
            steps.append(None if index == "*" else int(index[:9]))
        else:
            steps.append(next(part for part in (double, single, name) if part is not None))
        at = match.end()

    def select(document: Any) -> list[Any]:
        found = [document]
        for step in steps:
            if isinstance(step, str):
                found = [value[step] for value in found if isinstance(value, dict) and step in value]
            elif step is None:
                found = [item for value in found if isinstance(value, list) for item in value]
            else:
                found = [value[step] for value in found if isinstance(value, list) and step < len(value)]
        return found

    return select


def _field_selector(name: str, pattern: str) -> Callable[[Any], list[Any]]:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        _invalid(pattern, f"{name!r} is not a field")
    return lambda record: [record[name]] if name in record else []
