"""IAM policy documents: JSON text → immutable compiled statements, strictly validated.

Every refusal is a MalformedPolicyDocumentError whose message has the place in the JSON (`Statement[0].Action`) and the
reason. Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from entrepot.operations import Decision
from entrepot.services.iam import globs
from entrepot.services.iam.conditions import OPERATORS, Condition, Quantifier, UnclearError, Value, arn_matcher
from entrepot.services.iam.errors import MalformedPolicyDocumentError
from entrepot.services.iam.globs import Lookup, Matcher, Token

MAX_POLICY_LENGTH = 131_072
"""Characters of a policy's JSON text that are read at all (the parameter's limit in AWS's API)."""

MAX_STATEMENTS = 1_000
"""Statements in one policy."""

KNOWN_ACTIONS = 1_024
"""Actions per role whose statements are kept sorted out; further actions are sorted out each time."""

TIME_KEYS = frozenset({"aws:currenttime", "aws:epochtime"})
"""Condition keys that change by themselves, in lower case."""

UNSUPPORTED_KEYS = frozenset({"dynamodb:leadingkeys", "dynamodb:attributes", "dynamodb:enclosingoperation"})
"""Condition keys that no operation here supplies, and whose absence could let in whom a policy means to keep out."""

_VERSIONS = ("2012-10-17", "2008-10-17")
_POLICY_KEYS = {"Version", "Id", "Statement"}
_STATEMENT_KEYS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}


class ResourcePattern:
    """One `Resource`: `*`, or an ARN that is compared part by part."""

    __slots__ = ("_matcher", "_tokens")

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        """Raise ValueError unless the tokens are `*` or an ARN."""
        self._tokens = tokens
        self._matcher: Matcher | None = None
        if not globs.has_variables(tokens):
            self._matcher = _resource_matcher(tokens)
        elif len(globs.split_arn(tokens)) != 6:
            raise ValueError('must be in ARN format or "*"')

    @property
    def variables(self) -> set[str]:
        """Return the names of the policy variables in the pattern."""
        return globs.variable_names(self._tokens)

    def matches(self, resource: str, lookup: Lookup, unclear: bool) -> bool:
        """Compare with a request's resource; `unclear` is the answer when a variable has no value."""
        if self._matcher is not None:
            return self._matcher(resource)
        tokens = globs.substitute(self._tokens, lookup)
        return unclear if tokens is None else _resource_matcher(tokens)(resource)


def _resource_matcher(tokens: tuple[Token, ...]) -> Matcher:
    if tokens == (globs.ANY_TEXT,):
        return lambda resource: True
    first = tokens[0]
    if isinstance(first, str) and first.count(":") >= 5:
        return globs.matcher(tokens)  # no wildcard before the sixth part: one comparison does
    return arn_matcher(tokens)


@dataclass(frozen=True, slots=True)
class Statement:
    """One compiled statement. `label` names its policy and its Sid or index: `role/demo home#AllowHome`.

    A negated statement has NotAction or NotResource.
    """

    label: str
    allows: bool
    actions: tuple[Matcher, ...]
    actions_negated: bool
    resources: tuple[ResourcePattern, ...]
    resources_negated: bool
    conditions: tuple[Condition, ...]
    allowed: Decision

    def names(self) -> set[str]:
        """Return the condition keys and policy variables that the statement reads, in lower case."""
        names = {condition.key for condition in self.conditions}
        return names.union(
            *(pattern.variables for pattern in self.resources),
            *(value.variables for condition in self.conditions for value in condition.values),
        )

    def covers_action(self, action: str) -> bool:
        """Compare with an action in lower case."""
        return any(match(action) for match in self.actions) != self.actions_negated


@dataclass(frozen=True, slots=True)
class Policies:
    """Statements that hold together: those of a role, or of a session policy."""

    statements: tuple[Statement, ...]
    uses_time: bool = False
    _by_action: dict[str, tuple[tuple[Statement, ...], tuple[Statement, ...]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def about(self, action: str) -> tuple[tuple[Statement, ...], tuple[Statement, ...]]:
        """Return the (denying, allowing) statements that cover an action."""
        known = self._by_action.get(action)
        if known is None:
            lowered = action.lower()
            covering = [statement for statement in self.statements if statement.covers_action(lowered)]
            known = (tuple(s for s in covering if not s.allows), tuple(s for s in covering if s.allows))
            if len(self._by_action) < KNOWN_ACTIONS:
                self._by_action[action] = known
        return known


def join(policies: Iterable[Policies]) -> Policies:
    """Return all statements of several policies as one."""
    joined = tuple(policies)
    statements = tuple(statement for policy in joined for statement in policy.statements)
    return Policies(statements, any(policy.uses_time for policy in joined))


def compile_policy(text: str, name: str, *, max_length: int = MAX_POLICY_LENGTH) -> Policies:
    """Compile an identity or session policy. Raise MalformedPolicyDocumentError with place and reason.

    `name` stands in decisions before the statement's Sid: `role/demo home`.
    """
    document = parse_document(text, max_length=max_length)
    version = document.get("Version", "2008-10-17")
    statements = []
    for index, (place, statement) in enumerate(statements_of(document)):
        statements.append(compile_statement(statement, place, name, index, variables=version == "2012-10-17"))
    return Policies(tuple(statements), any(statement.names() & TIME_KEYS for statement in statements))


def parse_document(text: str, *, max_length: int = MAX_POLICY_LENGTH) -> dict[str, Any]:
    """Parse and check what identity and trust policies have in common. Raise MalformedPolicyDocumentError."""
    if not isinstance(text, str) or len(text) > max_length:
        raise MalformedPolicyDocumentError(f"The policy is longer than {max_length} characters.")
    try:
        document = json.loads(text, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise MalformedPolicyDocumentError("The policy is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise MalformedPolicyDocumentError(
            f"The policy is not JSON: line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None
    except ValueError as error:
        raise MalformedPolicyDocumentError(f"The policy is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise MalformedPolicyDocumentError("The policy must be a JSON object.")
    if unknown := sorted(set(document) - _POLICY_KEYS):
        raise malformed(unknown[0], "is not an element of a policy")
    if document.get("Version", _VERSIONS[0]) not in _VERSIONS:
        raise malformed("Version", f"must be one of {', '.join(_VERSIONS)}")
    if not isinstance(document.get("Id", ""), str):
        raise malformed("Id", "must be a string")
    if "Statement" not in document:
        raise malformed("Statement", "is missing")
    return document


def statements_of(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return (place, statement) of each statement, with Sid and Effect checked."""
    given = document["Statement"]
    listed = given if isinstance(given, list) else [given]
    if not 0 < len(listed) <= MAX_STATEMENTS:
        raise malformed("Statement", f"must hold 1 to {MAX_STATEMENTS} statements")
    result: list[tuple[str, dict[str, Any]]] = []
    sids: set[str] = set()
    for index, statement in enumerate(listed):
        place = f"Statement[{index}]" if isinstance(given, list) else "Statement"
        if not isinstance(statement, dict):
            raise malformed(place, "must be a JSON object")
        sid = statement.get("Sid", "")
        if not isinstance(sid, str):
            raise malformed(f"{place}.Sid", "must be a string")
        if sid and sid in sids:
            raise malformed(f"{place}.Sid", f"{sid!r} occurs twice; statement IDs must be unique")
        sids.add(sid)
        if statement.get("Effect") not in ("Allow", "Deny"):
            raise malformed(f"{place}.Effect", "must be Allow or Deny")
        result.append((place, statement))
    return result


def malformed(place: str, reason: str) -> MalformedPolicyDocumentError:
    """Return the error for one place of the document."""
    return MalformedPolicyDocumentError(f"{place}: {reason}.")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return result


def compile_statement(
    statement: dict[str, Any], place: str, policy_name: str, index: int, *, variables: bool
) -> Statement:
    """Compile one statement that names no principal. Raise MalformedPolicyDocumentError."""
    for principal in ("Principal", "NotPrincipal"):
        if principal in statement:
            raise malformed(f"{place}.{principal}", "an identity policy names no principal: it belongs to one")
    if unknown := sorted(set(statement) - _STATEMENT_KEYS):
        raise malformed(f"{place}.{unknown[0]}", "is not an element of a statement")
    label = f"{policy_name}#{statement.get('Sid') or index}"
    action_key = _one_of(statement, place, "Action", "NotAction")
    resource_key = _one_of(statement, place, "Resource", "NotResource")
    return Statement(
        label=label,
        allows=statement["Effect"] == "Allow",
        actions=compile_actions(statement[action_key], f"{place}.{action_key}"),
        actions_negated=action_key == "NotAction",
        resources=_compile_each(
            statement[resource_key],
            f"{place}.{resource_key}",
            lambda text: ResourcePattern(globs.tokenize(text, variables=variables, wildcards=True)),
        ),
        resources_negated=resource_key == "NotResource",
        conditions=compile_conditions(statement.get("Condition", {}), f"{place}.Condition", variables=variables),
        allowed=Decision(True, label, f"{label} allows it"),
    )


def _one_of(statement: dict[str, Any], place: str, key: str, negated_key: str) -> str:
    if (key in statement) == (negated_key in statement):
        raise malformed(place, f"must have either {key} or {negated_key}")
    return key if key in statement else negated_key


def _compile_each(value: Any, place: str, compile_text: Callable[[str], Any]) -> tuple[Any, ...]:
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise malformed(place, "must not be empty")
    result = []
    for index, text in enumerate(texts):
        here = f"{place}[{index}]" if isinstance(value, list) else place
        if not isinstance(text, str) or not text:
            raise malformed(here, "must be a string that is not empty")
        try:
            result.append(compile_text(text))
        except ValueError as error:
            raise malformed(here, f"{text!r}: {error}") from None
    return tuple(result)


def compile_actions(value: Any, place: str) -> tuple[Matcher, ...]:
    """Compile actions such as `s3:Get*`; they match actions in lower case."""

    def compile_action(text: str) -> Matcher:
        vendor, colon, name = text.partition(":")
        if text != "*":
            if not colon or not vendor or not name:
                raise ValueError("an action is a service, a colon and a name, such as s3:GetObject, or *")
            if not vendor.replace("-", "").isalnum() or not name.replace("*", "").replace("?", "").isalnum():
                if set(name) - {"*", "?"}:
                    raise ValueError("an action has letters, digits, * and ? only; its service no wildcards")
                if not vendor.replace("-", "").isalnum():
                    raise ValueError("the service of an action has letters, digits and hyphens only")
        return globs.matcher(globs.tokenize(text.lower(), variables=False, wildcards=True))

    return _compile_each(value, place, compile_action)


def compile_conditions(block: Any, place: str, *, variables: bool) -> tuple[Condition, ...]:
    """Compile a Condition element. Raise MalformedPolicyDocumentError with the place."""
    if not isinstance(block, dict):
        raise malformed(place, "must be a JSON object")
    conditions = []
    for name, keys in block.items():
        here = f"{place}.{name}"
        if not isinstance(keys, dict):
            raise malformed(here, "must be a JSON object of condition keys")
        for key, value in keys.items():
            if not key:
                raise malformed(here, "a condition key must not be empty")
            if key.lower() in UNSUPPORTED_KEYS:
                raise malformed(f"{here}.{key}", "this condition key is not supported here")
            conditions.append(_compile_condition(name, key, value, f"{here}.{key}", variables=variables))
    return tuple(conditions)


def _compile_condition(name: str, key: str, value: Any, place: str, *, variables: bool) -> Condition:
    prefix, colon, rest = name.partition(":")
    quantifier: Quantifier = ""
    if colon:
        if prefix.lower() == "forallvalues":
            quantifier = "ForAllValues"
        elif prefix.lower() == "foranyvalue":
            quantifier = "ForAnyValue"
        else:
            raise malformed(place, f"{prefix!r} is neither ForAllValues nor ForAnyValue")
    base = (rest if colon else name).lower()
    texts = [_condition_text(item, place) for item in (value if isinstance(value, list) else [value])]
    if not texts:
        raise malformed(place, "must have a value")
    if base == "null" and not quantifier:
        if len(texts) != 1 or texts[0].lower() not in ("true", "false"):
            raise malformed(place, "Null takes true or false")
        return Condition(key.lower(), None, "", False, (), null=texts[0].lower() == "true")
    if_exists = base.endswith("ifexists")
    operator = OPERATORS.get(base.removesuffix("ifexists"))
    if operator is None:
        raise malformed(place, f"{name!r} is not a condition operator")
    try:
        values = tuple(Value(text, operator, variables=variables) for text in texts)
    except (ValueError, UnclearError) as error:
        raise malformed(place, str(error)) from None
    return Condition(key.lower(), operator, quantifier, if_exists, values)


def _condition_text(item: Any, place: str) -> str:
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, (int, float)):
        return str(item)
    if not isinstance(item, str):
        raise malformed(place, "a condition value is a string, a number or a boolean")
    return item
