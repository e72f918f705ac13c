"""Trust policies: who may assume a role.

Understood are statements on sts:AssumeRole whose principal is an account, a role, a service or `*`. A condition in a
trust policy is refused, because a condition that is stored and not checked would let in whom it should keep out.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html
"""

from dataclasses import dataclass
from typing import Any

from entrepot.operations import Principal
from entrepot.services.iam.globs import Matcher
from entrepot.services.iam.policy import compile_actions, malformed, parse_document, statements_of

_KEYS = {"Sid", "Effect", "Principal", "Action"}
_ASSUME = "sts:assumerole"


@dataclass(frozen=True, slots=True)
class TrustStatement:
    """One statement; `principals` holds (kind, name): `("Service", "lambda.amazonaws.com")`."""

    allows: bool
    actions: tuple[Matcher, ...]
    principals: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """A compiled trust policy."""

    statements: tuple[TrustStatement, ...]

    def trusts(self, principal: Principal) -> bool:
        """Tell whether the principal may assume the role: no Deny names it, and an Allow does."""
        names = names_of(principal)
        effects = [
            statement.allows
            for statement in self.statements
            if any(match(_ASSUME) for match in statement.actions)
            and any(trusted in names for trusted in statement.principals)
        ]
        return bool(effects) and all(effects)


def names_of(principal: Principal) -> set[tuple[str, str]]:
    """Return all names under which a policy's Principal may mention the principal."""
    if principal.kind == "service":
        return {("Service", principal.name), ("Service", "*"), ("*", "*")}
    account_id = (principal.arn.split(":", 5) + [""] * 5)[4]
    names = {principal.arn, account_id, f"arn:aws:iam::{account_id}:root", "*"}
    if principal.role_arn:
        names.add(principal.role_arn)
    return {("AWS", name) for name in names} | {("*", "*")}


def compile_trust_policy(text: str) -> TrustPolicy:
    """Raise MalformedPolicyDocumentError with place and reason."""
    return TrustPolicy(tuple(_statement(*item) for item in statements_of(parse_document(text))))


def _statement(place: str, statement: dict[str, Any]) -> TrustStatement:
    for key in ("Resource", "NotResource"):
        if key in statement:
            raise malformed(f"{place}.{key}", "a trust policy names no resource: it belongs to one")
    for key in ("Condition", "NotPrincipal", "NotAction"):
        if key in statement:
            raise malformed(f"{place}.{key}", "is not supported here in a trust policy")
    if unknown := sorted(set(statement) - _KEYS):
        raise malformed(f"{place}.{unknown[0]}", "is not an element of a statement")
    if "Principal" not in statement:
        raise malformed(f"{place}.Principal", "is missing")
    if "Action" not in statement:
        raise malformed(f"{place}.Action", "is missing")
    return TrustStatement(
        allows=statement["Effect"] == "Allow",
        actions=compile_actions(statement["Action"], f"{place}.Action"),
        principals=tuple(principals_of(statement["Principal"], f"{place}.Principal")),
    )


def principals_of(value: Any, place: str) -> list[tuple[str, str]]:
    """Return (kind, name) of whom a Principal element names. Raise MalformedPolicyDocumentError."""
    if value == "*":
        return [("*", "*")]
    if not isinstance(value, dict) or not value:
        raise malformed(place, 'must be "*" or an object such as {"Service": "lambda.amazonaws.com"}')
    result = []
    for kind, names in value.items():
        if kind not in ("AWS", "Service"):
            raise malformed(f"{place}.{kind}", "only AWS and Service principals are supported here")
        for name in names if isinstance(names, list) else [names]:
            if not isinstance(name, str) or not name:
                raise malformed(f"{place}.{kind}", "must be a string or a list of strings")
            result.append((kind, name))
    if not result:
        raise malformed(place, "must not be empty")
    return result
