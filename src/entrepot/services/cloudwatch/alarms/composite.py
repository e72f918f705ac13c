"""The rule of a composite alarm: states of other alarms, joined by AND, OR and NOT."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

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
    from entrepot.services.cloudwatch.alarms.rule_reading import read  # its library is loaded with the first rule

    holds, children = read(text)
    if len(children) > CHILDREN_LIMIT:
        raise ValidationError(f"AlarmRule names more than {CHILDREN_LIMIT} alarms.")
    return CompositeRule(holds, frozenset(children))
