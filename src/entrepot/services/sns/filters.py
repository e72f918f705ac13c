"""Filter policies: which messages a subscription takes, by their attributes or by their body.

The operators are those of event patterns; what compiles them comes in as a callable. Owned here are what SNS adds: its
limits, its two scopes, and what a message's attributes are to a pattern.
Source: https://docs.aws.amazon.com/sns/latest/dg/sns-subscription-filter-policies.html
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from entrepot.errors import AwsError
from entrepot.services.sns.errors import InvalidParameter

POLICY_LIMIT_BYTES = 256 * 1024
KEYS_LIMIT = 5
COMBINATIONS_LIMIT = 150
"""AWS's limits: bytes of a policy, names with values in it, and the product of the lengths of its lists."""

DEPTH_LIMIT = 32
"""How deep a policy on bodies may nest."""

CACHED = 4_096
"""Compiled policies that are remembered."""

Matches: TypeAlias = Callable[[Mapping[str, Any]], bool]
CompilePattern: TypeAlias = Callable[[str], Matches]
"""Compiles an event pattern; raises AwsError with the reason."""


class Filters:
    """Compiles policies, each once."""

    def __init__(self, compile_pattern: CompilePattern) -> None:
        self._compile_pattern = compile_pattern
        self.compiled = lru_cache(maxsize=CACHED)(self._compile)

    def check(self, text: str, scope: str) -> None:
        """Raise InvalidParameter unless the policy is valid."""
        if scope not in ("MessageAttributes", "MessageBody"):
            raise InvalidParameter(f"Invalid parameter: FilterPolicyScope: Invalid value [{scope[:100]}]. Please use "
                                   "either MessageBody or MessageAttributes")  # fmt: skip
        self.compiled(text, scope)

    def accepts(self, text: str, scope: str, attributes: Mapping[str, Any], body: "Callable[[], Any]") -> bool:
        """Tell whether a message passes. `attributes` as `attribute_values` gives them; `body` parses the message."""
        matches = self.compiled(text, scope)
        if matches is None:
            return True
        value = attributes if scope == "MessageAttributes" else body()
        return isinstance(value, Mapping) and matches(value)

    def _compile(self, text: str, scope: str) -> Matches | None:
        if len(text.encode("utf-8", "surrogatepass")) > POLICY_LIMIT_BYTES:
            raise _refused("Filter policy is too large")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise _refused("failed to parse JSON.") from None
        if not isinstance(document, dict):
            raise _refused('"filter" only supports an object')
        if not document:
            return None
        keys, combinations = _measure(document, 1)
        if keys > KEYS_LIMIT:
            raise _refused(f"Filter policy can not have more than {KEYS_LIMIT} keys")
        if combinations > COMBINATIONS_LIMIT:
            raise _refused("Filter policy is too complex")
        if scope == "MessageAttributes":
            _check_flat(document)
        try:
            return self._compile_pattern(text)
        except AwsError as error:
            raise _refused(error.message.partition("Reason: ")[2] or error.message) from None


def _check_flat(document: Mapping[str, Any]) -> None:
    """Raise InvalidParameter when a policy on attributes nests: these are a flat list."""
    for name, value in document.items():
        if isinstance(value, dict):
            raise _refused("Filter policy scope MessageAttributes does not support nested filter policy")
        if not isinstance(value, list):
            raise _refused(f'"{name[:100]}" must be an object or an array')


def _measure(value: Mapping[str, Any], depth: int) -> tuple[int, int]:
    """Return (names that have values, product of the lengths of the lists, multiplied by the depth as AWS does)."""
    if depth > DEPTH_LIMIT:
        raise _refused("Filter policy is nested too deeply")
    keys, combinations = 0, 1
    for name, inner in value.items():
        if isinstance(inner, dict):
            measured = _measure(inner, depth + 1)
            keys, combinations = keys + measured[0], combinations * measured[1]
        elif name == "$or" and isinstance(inner, list) and all(isinstance(one, dict) for one in inner):
            parts = [_measure(one, depth) for one in inner]
            keys += sum(part[0] for part in parts)
            combinations *= max(1, sum(part[1] for part in parts))
        else:
            keys += 1
            combinations *= depth * (len(inner) if isinstance(inner, list) and inner else 1)
    return keys, combinations


def attribute_values(attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return message attributes as a pattern sees them: texts, numbers, lists; a Binary is only there."""
    values: dict[str, Any] = {}
    for name, attribute in attributes.items():
        kind, text = attribute["DataType"], attribute.get("StringValue")
        if kind == "Number" and text is not None:
            number = float(text)
            values[name] = int(number) if number.is_integer() else number
        elif kind == "String.Array" and text is not None:
            try:
                parsed = json.loads(text)
            except (ValueError, RecursionError):
                parsed = text
            values[name] = parsed if isinstance(parsed, list) else text
        else:
            values[name] = text
    return values


def _refused(reason: str) -> InvalidParameter:
    return InvalidParameter(f"Invalid parameter: FilterPolicy: {reason}")
