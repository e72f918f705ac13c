"""Policies of resources: who may do what to this one thing (a topic), beside what the caller's own policies say.

Within one account an Allow of either suffices, and a Deny of either wins. A principal that is an account stands for those
whom the account's own policies allow, so it allows nobody by itself; a session policy is never widened.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-basics-req-resource.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from entrepot.operations import Decision, Permission, Principal
from entrepot.services.iam.evaluate import applies
from entrepot.services.iam.policy import Statement, compile_statement, malformed, parse_document, statements_of
from entrepot.services.iam.trust import names_of, principals_of

CACHED = 1_024
"""Compiled policies that are remembered."""

MAX_LENGTH = 30_720
"""Characters of a resource's policy (SNS's limit)."""


@dataclass(frozen=True, slots=True)
class ResourceStatement:
    """A statement and the principals that it names: (kind, name)."""

    statement: Statement
    principals: frozenset[tuple[str, str]]


@lru_cache(maxsize=CACHED)
def compile_resource_policy(text: str) -> tuple[ResourceStatement, ...]:
    """Compile a resource's policy. Raise MalformedPolicyDocumentError with place and reason."""
    document = parse_document(text, max_length=MAX_LENGTH)
    variables = document.get("Version", "2008-10-17") == "2012-10-17"
    compiled = []
    for index, (place, statement) in enumerate(statements_of(document)):
        if "Principal" not in statement:
            raise malformed(f"{place}.Principal", "is missing")
        principals = frozenset(principals_of(statement["Principal"], f"{place}.Principal"))
        rest = {key: value for key, value in statement.items() if key != "Principal"}
        inner = compile_statement(rest, place, "resource policy", index, variables=variables)
        compiled.append(ResourceStatement(inner, _with_any(principals)))
    return tuple(compiled)


def check_resource_policy(text: str) -> None:
    """Raise MalformedPolicyDocumentError unless the text is a policy of a resource."""
    compile_resource_policy(text)


def _with_any(principals: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    """Return the principals, `{"AWS": "*"}` also as `"*"`: both mean everybody."""
    return principals | {("*", "*")} if ("AWS", "*") in principals else principals


def beside_resource_policy(
    decision: Decision, principal: Principal, permission: Permission, variables: Mapping[str, str]
) -> Decision:
    """Return the decision on a permission whose resource has a policy, from that of the caller's own policies."""
    if _is_explicit_deny(decision):
        return decision
    names = names_of(principal)
    account_id = (principal.arn.split(":", 5) + [""] * 5)[4]
    delegated = {("AWS", account_id), ("AWS", f"arn:aws:iam::{account_id}:root")} if principal.kind != "root" else set()
    allowed: Decision | None = None
    for one in compile_resource_policy(permission.resource_policy):
        statement = one.statement
        if not statement.covers_action(permission.action.lower()):
            continue
        if not one.principals & (names - delegated if statement.allows else names):
            continue
        if not applies(statement, permission, variables):
            continue
        if not statement.allows:
            return Decision(False, statement.label, "with an explicit deny in a resource-based policy")
        allowed = allowed or statement.allowed
    if decision.allowed or allowed is None or principal.session_policy is not None:
        return decision
    return allowed


def admits(principal: Principal, permission: Permission) -> bool:
    """Tell whether the resource's policy allows the permission by itself: what a service needs that acts without a role."""
    nobody = Decision(False, "", "no policy allows it")
    return beside_resource_policy(nobody, principal, permission, {}).allowed


def _is_explicit_deny(decision: Decision) -> bool:
    return not decision.allowed and decision.reason.startswith("with an explicit deny")
