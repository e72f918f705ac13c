"""The condition operators of IAM policies, compiled once per policy.

A condition key's value in the request is a string, or a tuple of strings for keys that hold several. A key that is
absent (or an empty tuple) fails every positive operator, satisfies every negated one, every `…IfExists` and
`ForAllValues:`, and fails `ForAnyValue:`.

A value that cannot be judged (a variable without a value, a number that is not one) is `unclear`: it counts as no match
where the statement allows, and as a match where it denies.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

import base64
import binascii
import ipaddress
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from entrepot.services.iam import globs
from entrepot.services.iam.globs import Lookup, Matcher, Token

ContextValue: TypeAlias = str | tuple[str, ...]
ContextLookup: TypeAlias = Callable[[str], ContextValue | None]
Quantifier: TypeAlias = Literal["", "ForAllValues", "ForAnyValue"]


class UnclearError(Exception):
    """A comparison that has no answer, because one side cannot be understood."""


# ── one comparison: (text of the policy) → matcher of the request's text ─────────────────────────────────────────────


def _equals(text: str) -> Matcher:
    return text.__eq__


def _equals_ignoring_case(text: str) -> Matcher:
    folded = text.casefold()
    return lambda value: value.casefold() == folded


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise UnclearError(f"{text!r} is not a number") from error
    if not math.isfinite(number):
        raise UnclearError(f"{text!r} is not a finite number")
    return number


def _date(text: str) -> float:
    """Return seconds since the epoch of an ISO 8601 date or of a count of seconds."""
    try:
        return float(int(text))
    except OverflowError as error:
        raise UnclearError(f"{text!r} is not a date") from error
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UnclearError(f"{text!r} is not an ISO 8601 date") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _ordered(read: Callable[[str], float], compare: Callable[[float, float], bool]) -> Callable[[str], Matcher]:
    def compile_value(text: str) -> Matcher:
        bound = read(text)
        return lambda value: compare(read(value), bound)

    return compile_value


def _boolean(text: str) -> Matcher:
    wanted = text.lower()
    if wanted not in ("true", "false"):
        raise UnclearError(f"{text!r} is neither true nor false")
    return lambda value: value.lower() == wanted


def _binary(text: str) -> Matcher:
    def decode(encoded: str) -> bytes:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise UnclearError(f"{encoded!r} is not base64") from error

    wanted = decode(text)
    return lambda value: decode(value) == wanted


def _address(text: str) -> Matcher:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise UnclearError(f"{text!r} is not an IP address or CIDR range") from error

    def match(value: str) -> bool:
        try:
            address = ipaddress.ip_address(value)
        except ValueError as error:
            raise UnclearError(f"{value!r} is not an IP address") from error
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address in network

    return match


def arn_matcher(tokens: tuple[Token, ...]) -> Matcher:
    """Match an ARN part by part: a wildcard stays within its part, save in the last, which may hold colons.

    Raise ValueError when the pattern has fewer than six parts.
    """
    parts = globs.split_arn(tokens)
    if len(parts) != 6:
        raise ValueError('must be in ARN format or "*"')
    matchers = tuple(globs.matcher(part) for part in parts)

    def match(value: str) -> bool:
        texts = value.split(":", 5)
        return len(texts) == 6 and all(part(text) for part, text in zip(matchers, texts, strict=True))

    return match


@dataclass(frozen=True, slots=True)
class Operator:
    """How one family of operators compares: by `compile_value`, or (`patterned`) by a pattern with wildcards."""

    compile_value: Callable[[str], Matcher] | None
    patterned: Callable[[tuple[Token, ...]], Matcher] | None = None
    negated: bool = False


def _number_operator(compare: Callable[[float, float], bool], *, negated: bool = False) -> Operator:
    return Operator(_ordered(_number, compare), negated=negated)


def _date_operator(compare: Callable[[float, float], bool], *, negated: bool = False) -> Operator:
    return Operator(_ordered(_date, compare), negated=negated)


OPERATORS: dict[str, Operator] = {
    "stringequals": Operator(_equals),
    "stringnotequals": Operator(_equals, negated=True),
    "stringequalsignorecase": Operator(_equals_ignoring_case),
    "stringnotequalsignorecase": Operator(_equals_ignoring_case, negated=True),
    "stringlike": Operator(None, globs.matcher),
    "stringnotlike": Operator(None, globs.matcher, negated=True),
    "numericequals": _number_operator(lambda a, b: a == b),
    "numericnotequals": _number_operator(lambda a, b: a == b, negated=True),
    "numericlessthan": _number_operator(lambda a, b: a < b),
    "numericlessthanequals": _number_operator(lambda a, b: a <= b),
    "numericgreaterthan": _number_operator(lambda a, b: a > b),
    "numericgreaterthanequals": _number_operator(lambda a, b: a >= b),
    "dateequals": _date_operator(lambda a, b: a == b),
    "datenotequals": _date_operator(lambda a, b: a == b, negated=True),
    "datelessthan": _date_operator(lambda a, b: a < b),
    "datelessthanequals": _date_operator(lambda a, b: a <= b),
    "dategreaterthan": _date_operator(lambda a, b: a > b),
    "dategreaterthanequals": _date_operator(lambda a, b: a >= b),
    "bool": Operator(_boolean),
    "binaryequals": Operator(_binary),
    "ipaddress": Operator(_address),
    "notipaddress": Operator(_address, negated=True),
    "arnequals": Operator(None, arn_matcher),
    "arnlike": Operator(None, arn_matcher),
    "arnnotequals": Operator(None, arn_matcher, negated=True),
    "arnnotlike": Operator(None, arn_matcher, negated=True),
}
"""Every operator but `Null`, by its name in lower case."""


class Value:
    """One value of a condition in a policy: compiled at once when it has no variables, else when it is asked for."""

    __slots__ = ("_matcher", "_operator", "_tokens")

    def __init__(self, text: str, operator: Operator, *, variables: bool) -> None:
        """Raise ValueError or UnclearError with the reason when `text` is not a value of this operator."""
        self._operator = operator
        self._tokens = globs.tokenize(text, variables=variables, wildcards=operator.patterned is not None)
        self._matcher: Matcher | None = None
        if not globs.has_variables(self._tokens):
            self._matcher = self._compile(self._tokens)

    @property
    def variables(self) -> set[str]:
        """Return the names of the policy variables in the value."""
        return globs.variable_names(self._tokens)

    def _compile(self, tokens: tuple[Token, ...]) -> Matcher:
        if self._operator.patterned is not None:
            return self._operator.patterned(tokens)
        assert self._operator.compile_value is not None
        return self._operator.compile_value(globs.literal_text(tokens))

    def matches(self, value: str, lookup: Lookup) -> bool:
        """Raise UnclearError when the comparison has no answer."""
        match = self._matcher
        if match is None:
            tokens = globs.substitute(self._tokens, lookup)
            if tokens is None:
                raise UnclearError("a policy variable has no value")
            try:
                match = self._compile(tokens)
            except ValueError as error:
                raise UnclearError(str(error)) from error
        return match(value)


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key. `null` is set for the operator `Null`: whether the key must be absent."""

    key: str
    operator: Operator | None
    quantifier: Quantifier
    if_exists: bool
    values: tuple[Value, ...]
    null: bool | None = None

    def holds(self, context: ContextLookup, lookup: Lookup, unclear: bool) -> bool:
        """Tell whether the request satisfies this; `unclear` is the answer where there is none."""
        held = context(self.key)
        present = held is not None and held != ()
        if self.operator is None:
            return present != self.null
        if not present:
            if self.if_exists or self.quantifier == "ForAllValues":
                return True
            return self.operator.negated and self.quantifier != "ForAnyValue"
        assert held is not None
        texts = (held,) if isinstance(held, str) else held
        if self.quantifier == "ForAllValues":
            return all(self._one(text, lookup, unclear) for text in texts)
        if self.quantifier == "ForAnyValue":
            return any(self._one(text, lookup, unclear) for text in texts)
        return self._one(texts[0], lookup, unclear) if len(texts) == 1 else unclear

    def _one(self, text: str, lookup: Lookup, unclear: bool) -> bool:
        assert self.operator is not None
        uncertain = False
        for value in self.values:
            try:
                if value.matches(text, lookup):
                    return not self.operator.negated
            except UnclearError:
                uncertain = True
        return unclear if uncertain else self.operator.negated
