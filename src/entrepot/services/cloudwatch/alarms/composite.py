"""The rule of a composite alarm: states of other alarms, joined by AND, OR and NOT."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput, v_args

from entrepot.services.cloudwatch.alarms.alarm import StateValue
from entrepot.services.cloudwatch.errors import ValidationError

CHILDREN_LIMIT = 100
"""A rule names at most this many alarms. AWS's limit."""

DEPTH_LIMIT = 100
"""Parentheses may nest this deep."""


@dataclass(frozen=True, slots=True)
class CompositeRule:
    """A parsed rule and the names of the alarms in it."""

    holds: Callable[[Mapping[str, StateValue]], bool]
    children: frozenset[str]


@lru_cache(1024)
def parse_rule(text: str) -> CompositeRule:
    """Return the rule; ValidationError when it cannot be read."""
    if text.count("(") > DEPTH_LIMIT * 2 or text.upper().count("NOT") > DEPTH_LIMIT:
        raise ValidationError(f"AlarmRule nests deeper than {DEPTH_LIMIT}.")
    builder = _Builder()
    try:
        holds = builder.transform(_grammar().parse(text))
    except UnexpectedInput as error:
        place = error.pos_in_stream
        where = "at its end" if place is None or place < 0 else f"at character {place + 1}"
        raise ValidationError(f"AlarmRule must contain a valid rule; it cannot be read {where}.") from None
    if len(builder.children) > CHILDREN_LIMIT:
        raise ValidationError(f"AlarmRule names more than {CHILDREN_LIMIT} alarms.")
    return CompositeRule(holds, frozenset(builder.children))


@cache
def _grammar() -> Lark:
    return Lark(files(__package__).joinpath("rule.lark").read_text(encoding="utf-8"), parser="lalr")


Test = Callable[[Mapping[str, StateValue]], bool]


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Lark's tree to a test; one method for each rule."""

    def __init__(self) -> None:
        super().__init__()
        self.children: set[str] = set()

    def start(self, test: Test) -> Test:
        return test

    def disjunction(self, *tests: Test) -> Test:
        return lambda states: any(test(states) for test in tests)

    def conjunction(self, *tests: Test) -> Test:
        return lambda states: all(test(states) for test in tests)

    def negate(self, test: Test) -> Test:
        return lambda states: not test(states)

    def state(self, wanted: Token, name: str) -> Test:
        self.children.add(name)
        return lambda states: states.get(name, "INSUFFICIENT_DATA") == str(wanted).upper()

    def true(self, _: Token) -> Test:
        return lambda states: True

    def false(self, _: Token) -> Test:
        return lambda states: False

    def name(self, token: Token) -> str:
        text = str(token)
        if token.type == "QUOTED":
            text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        return text.rsplit(":alarm:", 1)[-1]  # an alarm may be named by its ARN
