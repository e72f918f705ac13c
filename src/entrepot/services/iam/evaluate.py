"""The one evaluator: who may do what. Pure: the same arguments give the same decision.

An explicit Deny wins; without an Allow the answer is no; a session policy only narrows. Whatever goes wrong inside
denies. Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from collections.abc import Mapping

from entrepot.operations import Decision, Permission
from entrepot.services.iam.conditions import ContextValue
from entrepot.services.iam.policy import Policies, Statement


def evaluate(
    policies: Policies, session_policy: Policies | None, permission: Permission, variables: Mapping[str, str]
) -> Decision:
    """Decide one permission. Never raises.

    `variables` holds what policy variables and condition keys say about the principal (`aws:username`,
    `transfer:HomeDirectory`, `aws:PrincipalTag/team`); the permission's context holds what the request says, and comes
    first. Names are compared without regard to case.
    """
    try:
        return _decide(policies, session_policy, permission, _Context(permission.context, variables))
    except Exception as error:  # noqa: BLE001 - whatever goes wrong while deciding must deny
        return Decision(False, "", f"its policies could not be evaluated ({type(error).__name__}: {error})")


def _decide(
    policies: Policies, session_policy: Policies | None, permission: Permission, context: "_Context"
) -> Decision:
    action, resource = permission.action, permission.resource
    denying, allowing = policies.about(action)
    if (statement := _first(denying, resource, context)) is not None:
        return Decision(False, statement.label, "with an explicit deny in an identity-based policy")
    if session_policy is not None:
        session_denying, session_allowing = session_policy.about(action)
        if (statement := _first(session_denying, resource, context)) is not None:
            return Decision(False, statement.label, "with an explicit deny in a session policy")
    statement = _first(allowing, resource, context)
    if statement is None:
        return Decision(False, "", f"no identity-based policy allows the {action} action")
    if session_policy is not None and _first(session_allowing, resource, context) is None:
        return Decision(False, "", f"no session policy allows the {action} action")
    return statement.allowed


def applies(statement: Statement, permission: Permission, variables: Mapping[str, str]) -> bool:
    """Tell whether a statement that covers the action applies to a permission's resource and conditions."""
    return _first((statement,), permission.resource, _Context(permission.context, variables)) is not None


def _first(statements: tuple[Statement, ...], resource: str, context: "_Context") -> Statement | None:
    """Return the first statement that applies. What is unclear counts against the caller."""
    for statement in statements:
        unclear = not statement.allows
        unclear_resource = unclear != statement.resources_negated
        matched = False
        for pattern in statement.resources:
            if pattern.matches(resource, context.text, unclear_resource):
                matched = True
                break
        if matched == statement.resources_negated:
            continue
        if all(condition.holds(context.value, context.text, unclear) for condition in statement.conditions):
            return statement
    return None


class FoldedVariables(dict[str, str]):
    """Variables whose names are in lower case already."""


class _Context:
    """Names → values of one request; names without regard to case."""

    __slots__ = ("_request", "_variables")

    def __init__(self, request: Mapping[str, ContextValue], variables: Mapping[str, str]) -> None:
        self._request = request
        self._variables = variables

    def value(self, name: str) -> ContextValue | None:
        """Return a condition key's value; `name` is in lower case."""
        for key, value in self._request.items():
            if key.lower() == name:
                return value
        if not isinstance(self._variables, FoldedVariables):
            self._variables = fold(self._variables)
        return self._variables.get(name)

    def text(self, name: str) -> str | None:
        """Return a policy variable's value; a key that holds several values has none."""
        value = self.value(name)
        return value if isinstance(value, str) else None


def fold(variables: Mapping[str, str]) -> FoldedVariables:
    """Return variables with their names in lower case."""
    return FoldedVariables((name.lower(), value) for name, value in variables.items())
