"""From the query string to its tree, by the grammar in `grammar.lark`."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NoReturn, cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken, v_args
from lark.exceptions import VisitError
from lark.tree import Meta

from entrepot.services.logs.insights import syntax
from entrepot.services.logs.insights.errors import MalformedQueryError
from entrepot.services.logs.insights.syntax import Command, Expression, Item, Name, Span

QUERY_LIMIT_CHARS = 10_000
"""AWS's limit for a query string."""

DEPTH_LIMIT = 100
"""Parentheses and operators may nest this deep."""

COMMANDS = ("display", "fields", "filter", "parse", "stats", "sort", "limit", "dedup", "unnest", "pattern")

_UNITS = (
    ("ms", ("ms", "msec", "millisecond")),
    ("s", ("s", "sec", "second")),
    ("m", ("m", "min", "minute")),
    ("h", ("h", "hr", "hour")),
    ("d", ("d", "day")),
    ("w", ("w", "week")),
    ("mo", ("mo", "mon", "month")),
    ("q", ("q", "qtr", "quarter")),
    ("y", ("y", "yr", "year")),
)
_UNIT_OF = {word: unit for unit, words in _UNITS for word in words} | {
    f"{word}s": unit for unit, words in _UNITS for word in words if len(word) > 1
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\"}


def parse_query(text: str) -> tuple[Command, ...]:
    """Return the commands of a query; MalformedQueryError says what is wrong at which character."""
    if len(text) > QUERY_LIMIT_CHARS:
        raise MalformedQueryError(f"A query has at most {QUERY_LIMIT_CHARS} characters.", QUERY_LIMIT_CHARS, len(text))
    if _depth(text) > DEPTH_LIMIT:
        raise MalformedQueryError(f"Parentheses nest deeper than {DEPTH_LIMIT}.", 0, len(text))
    try:
        tree = _grammar().parse(text)
        return cast(tuple[Command, ...], _Builder(text).transform(tree))
    except UnexpectedInput as error:
        _refuse(text, error)
    except VisitError as error:
        if isinstance(error.orig_exc, MalformedQueryError):
            raise error.orig_exc from None
        raise
    except RecursionError:
        raise MalformedQueryError("The query nests too deep.", 0, len(text)) from None


@cache
def _grammar() -> Lark:
    """Return the parser; made at the first query, because it takes a moment."""
    text = files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", propagate_positions=True, maybe_placeholders=True)


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in re.sub(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", "", text):
        if character in "([":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]":
            depth -= 1
    return max(deepest, len(re.findall(r"\bnot\b", text, re.IGNORECASE)), len(re.findall(r"[-+]{2,}|\^", text)))


def _refuse(text: str, error: UnexpectedInput) -> NoReturn:
    """Say at which word the query stops making sense, and what could stand there."""
    if isinstance(error, UnexpectedEOF) or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        raise MalformedQueryError("unexpected end of the query", len(text), len(text)) from None
    start = error.pos_in_stream or 0
    if isinstance(error, UnexpectedToken):
        start = error.token.start_pos or 0
        word = str(error.token)
    else:
        assert isinstance(error, UnexpectedCharacters)
        word = next(iter(re.findall(r"\S\w*", text[start : start + 60])), "")
    before = text[:start].rstrip()
    if (not before or before.endswith("|")) and re.fullmatch(r"[A-Za-z_@]\w*", word):
        message = f"unsupported command '{word}': the commands are {', '.join(COMMANDS)}"
    else:
        message = f"unexpected symbol found {word} at line {error.line} and position {error.column - 1}"
    raise MalformedQueryError(message, start, start + max(1, len(word))) from None


@v_args(inline=True, meta=True)
class _Builder(Transformer[Token, Any]):
    """Lark's tree to ours, bottom up; one method for each rule."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def start(self, meta: Meta, *commands: Command) -> tuple[Command, ...]:
        return commands

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def fields(self, meta: Meta, items: tuple[Item, ...]) -> Command:
        return syntax.Fields(items)

    def display(self, meta: Meta, items: tuple[Item, ...]) -> Command:
        return syntax.Display(items)

    def filter(self, meta: Meta, condition: Expression) -> Command:
        return syntax.Filter(condition)

    def parse_glob(self, meta: Meta, source: Expression | None, glob: Token, *names: Name) -> Command:
        parts = _unquoted(glob).split("*")
        if len(parts) - 1 != len(names):
            raise MalformedQueryError(
                f"the pattern has {len(parts) - 1} wildcards (*), but {len(names)} names follow 'as'",
                meta.start_pos,
                meta.end_pos,
            )
        # A wildcard at the end takes the rest of the text, every other one as little as it can.
        regex = re.escape(parts[0])
        for index in range(len(names)):
            rest = index == len(names) - 1 and not parts[-1]
            regex += ("(.*)" if rest else "(.*?)") + re.escape(parts[index + 1])
        source = source or Name("@message", _span(meta))
        return syntax.Parse(source, f"(?s){regex}", tuple(name.text for name in names), _span(meta))

    def parse_regex(self, meta: Meta, source: Expression | None, regex: Token) -> Command:
        return syntax.Parse(source or Name("@message", _span(meta)), _pattern(regex), None, _span(meta))

    def source(self, meta: Meta, token: Token) -> Expression:
        return self.name(meta, token)

    def stats(self, meta: Meta, aggregates: tuple[Item, ...], by: tuple[Item, ...] | None) -> Command:
        return syntax.Stats(aggregates, by or ())

    def sort(self, meta: Meta, *keys: tuple[Expression, bool]) -> Command:
        return syntax.Sort(keys)

    def key(self, meta: Meta, expression: Expression, direction: Token | None) -> tuple[Expression, bool]:
        return expression, direction is not None and direction.type == "DESC"

    def limit(self, meta: Meta, count: Token) -> Command:
        return syntax.Limit(int(count), _span(meta))

    def dedup(self, meta: Meta, *keys: Expression) -> Command:
        return syntax.Dedup(keys)

    def unnest(self, meta: Meta, source: Name, alias: Name) -> Command:
        return syntax.Unnest(source, alias)

    def pattern(self, meta: Meta, source: Expression) -> Command:
        return syntax.Pattern(source)

    def items(self, meta: Meta, *items: Item) -> tuple[Item, ...]:
        return items

    def item(self, meta: Meta, expression: Expression, alias: Name | None) -> Item:
        span = expression.span
        typed = expression.text if isinstance(expression, Name) else self._text[span.start : span.end]
        return Item(expression, typed if alias is None else alias.text, span)

    # ── expressions ──────────────────────────────────────────────────────────────────────────────────────────────

    def disjunction(self, meta: Meta, *operands: Expression) -> Expression:
        return syntax.Operator("or", operands, _span(meta))

    def conjunction(self, meta: Meta, *operands: Expression) -> Expression:
        return syntax.Operator("and", operands, _span(meta))

    def negate(self, meta: Meta, operand: Expression) -> Expression:
        return syntax.Operator("not", (operand,), _span(meta))

    def compare(self, meta: Meta, left: Expression, symbol: Token, right: Expression) -> Expression:
        return syntax.Operator(str(symbol), (left, right), _span(meta))

    def arithmetic(self, meta: Meta, left: Expression, symbol: Token, right: Expression) -> Expression:
        return syntax.Operator(str(symbol), (left, right), _span(meta))

    def like(self, meta: Meta, left: Expression, right: Expression) -> Expression:
        return syntax.Operator("like", (left, right), _span(meta))

    def not_like(self, meta: Meta, left: Expression, right: Expression) -> Expression:
        return syntax.Operator("not", (self.like(meta, left, right),), _span(meta))

    def matches(self, meta: Meta, operand: Expression, regex: Token) -> Expression:
        return syntax.Matches(operand, _pattern(regex), _span(meta))

    def not_matches(self, meta: Meta, operand: Expression, regex: Token) -> Expression:
        return syntax.Operator("not", (self.matches(meta, operand, regex),), _span(meta))

    def is_in(self, meta: Meta, operand: Expression, values: Sequence[Expression]) -> Expression:
        return syntax.Operator("in", (operand, *values), _span(meta))

    def is_not_in(self, meta: Meta, operand: Expression, values: Sequence[Expression]) -> Expression:
        return syntax.Operator("not", (self.is_in(meta, operand, values),), _span(meta))

    def list(self, meta: Meta, *values: Expression | None) -> tuple[Expression, ...]:
        return tuple(value for value in values if value is not None)

    def signed(self, meta: Meta, sign: Token, operand: Expression) -> Expression:
        return syntax.Operator("negative", (operand,), _span(meta)) if sign == "-" else operand

    def element(self, meta: Meta, operand: Expression, key: Token) -> Expression:
        return syntax.Element(operand, int(key) if key.type == "INTEGER" else _unquoted(key), _span(meta))

    def call(self, meta: Meta, name: Token, *arguments: Expression | Token | None) -> Expression:
        star = any(isinstance(argument, Token) for argument in arguments)
        given = tuple(argument for argument in arguments if argument is not None and not isinstance(argument, Token))
        return syntax.Function(str(name), given, star, _span(meta))

    def name(self, meta: Meta, token: Token) -> Expression:
        return Name(str(token).strip("`"), _span(meta))

    def text(self, meta: Meta, token: Token) -> Expression:
        return syntax.Literal(_unquoted(token), _span(meta))

    def number(self, meta: Meta, token: Token) -> Expression:
        return syntax.Literal(int(token) if token.type == "INTEGER" else float(token), _span(meta))

    def period(self, meta: Meta, token: Token) -> Expression:
        count, unit = re.fullmatch(r"(\d+)(\w+)", token).groups()  # type: ignore[union-attr]
        return syntax.Period(int(count), _UNIT_OF[unit], _span(meta))


def _span(meta: Meta) -> Span:
    return Span(meta.start_pos, meta.end_pos)


def _unquoted(token: Token) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), token[1:-1], flags=re.DOTALL)


def _pattern(token: Token) -> str:
    """Return what stands between the slashes; an escaped slash is a slash."""
    return token[1:-1].replace(r"\/", "/")
