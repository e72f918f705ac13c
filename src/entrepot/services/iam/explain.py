"""Why something is allowed or denied: every statement of a principal's policies, held against one permission.

The decision itself is the evaluator's; this only tells which part of each statement said yes or no. Pure.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from entrepot.operations import Decision, Permission
from entrepot.services.iam import globs
from entrepot.services.iam.evaluate import applies, evaluate
from entrepot.services.iam.policy import (
    Policies,
    ResourcePattern,
    Statement,
    compile_policy,
    join,
    parse_document,
    statements_of,
)

_ANYTHING = (ResourcePattern((globs.ANY_TEXT,)),)

PolicyKind = Literal["identity", "session"]


@dataclass(frozen=True, slots=True)
class ConditionAnswer:
    """Whether the condition on one key of the request holds; `key` is in lower case."""

    key: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Considered:
    """One statement and its parts' answers. It `applies` when action, resource and all conditions say yes.

    `text` is the statement as it was written (JSON).
    """

    label: str
    kind: PolicyKind
    allows: bool
    text: str
    action_matches: bool
    resource_matches: bool
    conditions: tuple[ConditionAnswer, ...]
    applies: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision, and the statements from which it follows, in the order of the policies."""

    decision: Decision
    statements: tuple[Considered, ...]


def explain(
    documents: Iterable[tuple[str, str]],
    session_policy: str | None,
    permission: Permission,
    variables: Mapping[str, str],
) -> Explanation:
    """Explain one permission. `documents` are (name, JSON text) of the identity policies.

    Raises MalformedPolicyDocumentError when a policy cannot be read: then nothing is allowed.
    """
    identity = [_read(text, name) for name, text in documents]
    session = None if session_policy is None else _read(session_policy, "session policy")
    policies = join(compiled for compiled, _ in identity)
    decision = evaluate(policies, session[0] if session else None, permission, variables)
    considered = [
        _consider(statement, text, "identity", permission, variables)
        for compiled, texts in identity
        for statement, text in zip(compiled.statements, texts, strict=True)
    ]
    if session is not None:
        considered += [
            _consider(statement, text, "session", permission, variables)
            for statement, text in zip(session[0].statements, session[1], strict=True)
        ]
    return Explanation(decision, tuple(considered))


def _read(text: str, name: str) -> tuple[Policies, Sequence[str]]:
    """Return a policy compiled, and its statements as they were written."""
    written = [json.dumps(statement, ensure_ascii=False) for _, statement in statements_of(parse_document(text))]
    return compile_policy(text, name), written


def _consider(
    statement: Statement, text: str, kind: PolicyKind, permission: Permission, variables: Mapping[str, str]
) -> Considered:
    anywhere = dataclasses.replace(statement, resources=_ANYTHING, resources_negated=False)
    conditions = tuple(
        ConditionAnswer(
            condition.key, applies(dataclasses.replace(anywhere, conditions=(condition,)), permission, variables)
        )
        for condition in statement.conditions
    )
    action_matches = statement.covers_action(permission.action.lower())
    resource_matches = applies(dataclasses.replace(statement, conditions=()), permission, variables)
    return Considered(
        statement.label,
        kind,
        statement.allows,
        text,
        action_matches,
        resource_matches,
        conditions,
        action_matches and resource_matches and all(answer.holds for answer in conditions),
    )
