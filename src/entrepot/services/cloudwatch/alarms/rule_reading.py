"""Reads the rule of a composite alarm by the grammar in `rule.lark`."""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput, v_args

from entrepot.services.cloudwatch.alarms.alarm import StateValue
from entrepot.services.cloudwatch.errors import ValidationError

Test = Callable[[Mapping[str, StateValue]], bool]


def read(text: str) -> tuple[Test, set[str]]:
    """Return the test of a rule, and the names of the alarms in it; ValidationError when it cannot be read."""
    builder = _Builder()
    try:
        holds: Test = builder.transform(_grammar().parse(text))
    except UnexpectedInput as error:
        place = error.pos_in_stream
        where = "at its end" if place is None or place < 0 else f"at character {place + 1}"
        raise ValidationError(f"AlarmRule must contain a valid rule; it cannot be read {where}.") from None
    return holds, builder.children


@cache
def _grammar() -> Lark:
    return Lark(files(__package__).joinpath("rule.lark").read_text(encoding="utf-8"), parser="lalr")


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
