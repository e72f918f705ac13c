"""SEARCH: which metrics a search expression finds.

A word finds metrics that have it as a token anywhere in their namespace, name or dimensions; a quoted word must be the whole
of one of these. `property=value` looks at one of them alone.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from lark import Token, Transformer, UnexpectedInput, v_args

from entrepot.services.cloudwatch.expressions.parse import ExpressionError, check_depth, unquoted
from entrepot.services.cloudwatch.expressions.reading import grammar
from entrepot.services.cloudwatch.metrics import Metric

Test: TypeAlias = Callable[[Metric], bool]

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PLAIN = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the search; `exact` when it was quoted."""

    text: str
    exact: bool

    def matches(self, value: str) -> bool:
        """Whether `value` is this word, or has its tokens."""
        if self.exact:
            return value == self.text
        return self.text.lower() == value.lower() or _tokens(self.text) <= _tokens(value)


@lru_cache(4096)
def _tokens(text: str) -> frozenset[str]:
    """Return the tokens of a text, in lower case: words between other characters, and the words inside camel case."""
    plain = _PLAIN.findall(text)
    return frozenset(token.lower() for token in plain) | frozenset(
        token.lower() for word in plain for token in _TOKEN.findall(word)
    )


@lru_cache(512)
def parse_search(text: str, account_id: str = "") -> Test:
    """Return the test of a search expression; ExpressionError. All metrics are of the account `account_id`."""
    check_depth(text)
    try:
        test: Test = _Builder(account_id).transform(grammar("search.lark").parse(text))
    except UnexpectedInput as error:
        place = error.pos_in_stream
        where = "at its end" if place is None or place < 0 else f"at character {place + 1}"
        raise ExpressionError(f"Error in search expression '{text}': it cannot be read {where}.") from None
    return test


def _value(metric: Metric, name: str, account_id: str) -> str | None:
    """Return a property: the namespace, the metric's name, its account, or a dimension; None where there is no such."""
    if name.lower() == ":aws.accountid":
        return account_id
    if name.lower() == "namespace":
        return metric.namespace
    if name.lower() == "metricname":
        return metric.name
    return dict(metric.dimensions).get(name)


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Lark's tree to a test; one method for each rule."""

    def __init__(self, account_id: str) -> None:
        super().__init__()
        self._account_id = account_id

    def start(self, schema: Test | None, condition: Test | None) -> Test:
        tests = [test for test in (schema, condition) if test is not None]
        return lambda metric: all(test(metric) for test in tests)

    def schema(self, namespace: Word, *dimensions: Word) -> Test:
        names = {dimension.text for dimension in dimensions}
        return lambda metric: metric.namespace == namespace.text and {name for name, _ in metric.dimensions} == names

    def disjunction(self, *tests: Test) -> Test:
        return lambda metric: any(test(metric) for test in tests)

    def conjunction(self, *tests: Test) -> Test:
        return lambda metric: all(test(metric) for test in tests)

    def negate(self, test: Test) -> Test:
        return lambda metric: not test(metric)

    def anywhere(self, word: Word) -> Test:
        def test(metric: Metric) -> bool:
            places = [metric.namespace, metric.name, *(part for dimension in metric.dimensions for part in dimension)]
            return any(word.matches(place) for place in places)

        return test

    def property(self, name: Word, words: Sequence[Word]) -> Test:
        def test(metric: Metric) -> bool:
            value = _value(metric, name.text, self._account_id)
            return value is not None and any(word.matches(value) for word in words)

        return test

    def value(self, *words: Word) -> Sequence[Word]:
        return words

    def word(self, token: Token) -> Word:
        return Word(unquoted(token), True) if token.type == "QUOTED" else Word(str(token), False)
