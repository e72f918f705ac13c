"""The edge of IAM: AWS's operations in botocore's shapes (service `iam`)."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.operations import (
    Call,
    Operation,
    Permission,
    Permissions,
    Principal,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.iam import roles
from entrepot.services.iam.errors import InvalidInputError, NoSuchEntityError
from entrepot.services.iam.evaluate import evaluate
from entrepot.services.iam.iam import IAM, time_variables
from entrepot.services.iam.policy import Policies, compile_policy, join
from entrepot.services.iam.roles import ManagedPolicy, Role

PAGE = 100
"""Entries of a listing when the caller does not say how many (AWS's default)."""

MAX_PAGE = 1_000
"""Entries of a listing at most (AWS's limit)."""

MAX_SIMULATED = 1_000
"""Actions times resources of one simulation."""


def operations(iam: IAM) -> list[Operation]:
    """Return IAM's operations."""
    return [*_role_operations(iam), *_inline_operations(iam), *_managed_operations(iam), *_simulations(iam)]


def _on_new_role(iam: IAM) -> Permissions:
    def permissions(request: Request) -> Iterable[Permission]:
        resource = roles.role_arn(iam.account, str(request.get("RoleName", "*")), str(request.get("Path", "/")))
        return [Permission("iam:CreateRole", resource)]

    return permissions


def _on_role(iam: IAM, action: str) -> Permissions:
    """What an action on a role needs: on its ARN with the path that it has, whatever the request says."""

    def permissions(request: Request) -> Iterable[Permission]:
        context = {"iam:PolicyARN": str(request["PolicyArn"])} if "PolicyArn" in request else {}
        return [Permission(f"iam:{action}", iam.arn_of_role(str(request.get("RoleName", "*"))), context)]

    return permissions


def _on_policy(action: str) -> Permissions:
    return lambda request: [Permission(f"iam:{action}", str(request.get("PolicyArn", "*")))]


def _on_all(action: str, resource: str = "*") -> Permissions:
    return lambda request: [Permission(f"iam:{action}", resource)]


def _role_shape(role: Role) -> dict[str, Any]:
    shape = {
        "Path": role.path,
        "RoleName": role.role_name,
        "RoleId": role.role_id,
        "Arn": role.arn,
        "CreateDate": clock.from_ms(role.created_at_ms),
        "AssumeRolePolicyDocument": quote(role.trust_policy, safe=""),
        "MaxSessionDuration": role.max_session_duration_s,
    }
    return shape | ({"Description": role.description} if role.description else {})


def _refuse(request: Request, *unsupported: str) -> None:
    """Refuse parameters that would otherwise be ignored in silence."""
    for name in unsupported:
        if request.get(name):
            raise InvalidInputError(f"The parameter {name} is not supported here.")


def _page(request: Request) -> tuple[str, int]:
    """Return (marker, number of entries)."""
    return str(request.get("Marker", "")), max(1, min(int(request.get("MaxItems", PAGE)), MAX_PAGE))


def _paged(
    key: str, entries: list[Any], limit: int, marker_of: Callable[[Any], str], shape: Callable[[Any], Any]
) -> Response:
    """Return one page of a listing of which `limit` + 1 entries were asked for."""
    response: Response = {key: [shape(entry) for entry in entries[:limit]], "IsTruncated": len(entries) > limit}
    if len(entries) > limit:
        response["Marker"] = marker_of(entries[limit - 1])
    return response


def _role_operations(iam: IAM) -> list[Operation]:
    account = iam.account

    def create_role(tx: Transaction, request: Request, call: Call) -> Response:
        _refuse(request, "PermissionsBoundary", "Tags")
        role = roles.insert_role(
            tx,
            account,
            request["RoleName"],
            request["AssumeRolePolicyDocument"],
            path=request.get("Path", "/"),
            description=request.get("Description", ""),
            max_session_duration_s=request.get("MaxSessionDuration", roles.MIN_SESSION_DURATION_S),
        )
        iam.role_changed(tx, role.role_name)
        return {"Role": _role_shape(role)}

    def get_role(reader: Reader, request: Request, call: Call) -> Response:
        return {"Role": _role_shape(roles.get_role(reader, account, request["RoleName"]))}

    def list_roles(reader: Reader, request: Request, call: Call) -> Response:
        marker, limit = _page(request)
        found = roles.list_roles(reader, account, request.get("PathPrefix", "/"), marker, limit + 1)
        return _paged("Roles", found, limit, lambda role: role.role_name, _role_shape)

    def update_assume_role_policy(tx: Transaction, request: Request, call: Call) -> Response:
        roles.update_trust_policy(tx, account, request["RoleName"], request["PolicyDocument"])
        iam.role_changed(tx, request["RoleName"])
        return {}

    def delete_role(tx: Transaction, request: Request, call: Call) -> Response:
        role = roles.delete_role(tx, account, request["RoleName"])
        iam.role_changed(tx, role.role_name, role.arn)
        return {}

    return [
        WriteOperation("CreateRole", _on_new_role(iam), create_role),
        ReadOperation("GetRole", _on_role(iam, "GetRole"), get_role),
        ReadOperation("ListRoles", _on_all("ListRoles", account.iam_arn("role/")), list_roles),
        WriteOperation("UpdateAssumeRolePolicy", _on_role(iam, "UpdateAssumeRolePolicy"), update_assume_role_policy),
        WriteOperation("DeleteRole", _on_role(iam, "DeleteRole"), delete_role),
    ]


def _inline_operations(iam: IAM) -> list[Operation]:
    account = iam.account

    def put_role_policy(tx: Transaction, request: Request, call: Call) -> Response:
        roles.put_role_policy(tx, account, request["RoleName"], request["PolicyName"], request["PolicyDocument"])
        iam.role_changed(tx, request["RoleName"])
        return {}

    def get_role_policy(reader: Reader, request: Request, call: Call) -> Response:
        document = roles.get_role_policy(reader, account, request["RoleName"], request["PolicyName"])
        names = {"RoleName": request["RoleName"], "PolicyName": request["PolicyName"]}
        return names | {"PolicyDocument": quote(document, safe="")}

    def delete_role_policy(tx: Transaction, request: Request, call: Call) -> Response:
        roles.delete_role_policy(tx, account, request["RoleName"], request["PolicyName"])
        iam.role_changed(tx, request["RoleName"])
        return {}

    def list_role_policies(reader: Reader, request: Request, call: Call) -> Response:
        roles.get_role(reader, account, request["RoleName"])
        marker, limit = _page(request)
        names = [name for name in roles.list_role_policies(reader, request["RoleName"]) if name > marker]
        return _paged("PolicyNames", names[: limit + 1], limit, str, str)

    return [
        WriteOperation("PutRolePolicy", _on_role(iam, "PutRolePolicy"), put_role_policy),
        ReadOperation("GetRolePolicy", _on_role(iam, "GetRolePolicy"), get_role_policy),
        WriteOperation("DeleteRolePolicy", _on_role(iam, "DeleteRolePolicy"), delete_role_policy),
        ReadOperation("ListRolePolicies", _on_role(iam, "ListRolePolicies"), list_role_policies),
    ]


def _managed_operations(iam: IAM) -> list[Operation]:
    account = iam.account

    def shape(reader: Reader, policy: ManagedPolicy) -> dict[str, Any]:
        created = clock.from_ms(policy.created_at_ms)
        return {
            "PolicyName": policy.policy_name,
            "PolicyId": policy.policy_id,
            "Arn": policy.arn,
            "Path": policy.path,
            "DefaultVersionId": "v1",
            "AttachmentCount": roles.attachment_count(reader, policy.arn),
            "PermissionsBoundaryUsageCount": 0,
            "IsAttachable": True,
            "CreateDate": created,
            "UpdateDate": created,
        } | ({"Description": policy.description} if policy.description else {})

    def create_policy(tx: Transaction, request: Request, call: Call) -> Response:
        _refuse(request, "Tags")
        policy = roles.insert_policy(
            tx,
            account,
            request["PolicyName"],
            request["PolicyDocument"],
            path=request.get("Path", "/"),
            description=request.get("Description", ""),
        )
        return {"Policy": shape(tx, policy)}

    def get_policy(reader: Reader, request: Request, call: Call) -> Response:
        return {"Policy": shape(reader, roles.get_policy(reader, request["PolicyArn"]))}

    def get_policy_version(reader: Reader, request: Request, call: Call) -> Response:
        policy = roles.get_policy(reader, request["PolicyArn"])
        if request["VersionId"] != "v1":
            raise NoSuchEntityError(f"Policy {policy.arn} version {request['VersionId']} does not exist.")
        version = {"VersionId": "v1", "IsDefaultVersion": True, "CreateDate": clock.from_ms(policy.created_at_ms)}
        return {"PolicyVersion": version | {"Document": quote(policy.document, safe="")}}

    def list_policies(reader: Reader, request: Request, call: Call) -> Response:
        marker, limit = _page(request)
        found = roles.list_policies(reader, marker, limit + 1)
        return _paged("Policies", found, limit, lambda policy: policy.arn, lambda policy: shape(reader, policy))

    def delete_policy(tx: Transaction, request: Request, call: Call) -> Response:
        roles.delete_policy(tx, request["PolicyArn"])
        return {}

    def attach_role_policy(tx: Transaction, request: Request, call: Call) -> Response:
        roles.attach_role_policy(tx, account, request["RoleName"], request["PolicyArn"])
        iam.role_changed(tx, request["RoleName"])
        return {}

    def detach_role_policy(tx: Transaction, request: Request, call: Call) -> Response:
        roles.detach_role_policy(tx, account, request["RoleName"], request["PolicyArn"])
        iam.role_changed(tx, request["RoleName"])
        return {}

    def list_attached_role_policies(reader: Reader, request: Request, call: Call) -> Response:
        roles.get_role(reader, account, request["RoleName"])
        attached = roles.attached_policies(reader, request["RoleName"])
        shapes = [{"PolicyName": name, "PolicyArn": arn} for name, arn, _ in attached]
        return {"AttachedPolicies": shapes, "IsTruncated": False}

    def new_policy(request: Request) -> Iterable[Permission]:
        name = f"policy{request.get('Path', '/')}{request.get('PolicyName', '*')}"
        return [Permission("iam:CreatePolicy", account.iam_arn(name))]

    return [
        WriteOperation("CreatePolicy", new_policy, create_policy),
        ReadOperation("GetPolicy", _on_policy("GetPolicy"), get_policy),
        ReadOperation("GetPolicyVersion", _on_policy("GetPolicyVersion"), get_policy_version),
        ReadOperation("ListPolicies", _on_all("ListPolicies"), list_policies),
        WriteOperation("DeletePolicy", _on_policy("DeletePolicy"), delete_policy),
        WriteOperation("AttachRolePolicy", _on_role(iam, "AttachRolePolicy"), attach_role_policy),
        WriteOperation("DetachRolePolicy", _on_role(iam, "DetachRolePolicy"), detach_role_policy),
        ReadOperation(
            "ListAttachedRolePolicies", _on_role(iam, "ListAttachedRolePolicies"), list_attached_role_policies
        ),
    ]


def _simulations(iam: IAM) -> list[Operation]:
    def simulate_principal_policy(reader: Reader, request: Request, call: Call) -> Response:
        _refuse(request, "PermissionsBoundaryPolicyInputList", "ResourcePolicy")
        arn = request["PolicySourceArn"]
        compiled = roles.compile_role(reader, iam.account, arn.rsplit("/", 1)[-1]) if ":role/" in arn else None
        if compiled is None or compiled.role.arn != arn:
            raise NoSuchEntityError(f"The role {arn} cannot be found.")
        policies = join([compiled.policies, _inputs(request)])
        return _simulate(iam, policies, iam.principal_for_role(arn, "simulation"), request)

    def simulate_custom_policy(reader: Reader, request: Request, call: Call) -> Response:
        _refuse(request, "PermissionsBoundaryPolicyInputList", "ResourcePolicy")
        return _simulate(iam, _inputs(request), call.principal, request)

    return [
        ReadOperation(
            "SimulatePrincipalPolicy",
            lambda request: [Permission("iam:SimulatePrincipalPolicy", str(request.get("PolicySourceArn", "*")))],
            simulate_principal_policy,
        ),
        ReadOperation("SimulateCustomPolicy", _on_all("SimulateCustomPolicy"), simulate_custom_policy),
    ]


def _inputs(request: Request) -> Policies:
    texts = request.get("PolicyInputList", [])
    return join(compile_policy(text, f"PolicyInputList.{index}") for index, text in enumerate(texts, 1))


def _simulate(iam: IAM, policies: Policies, principal: Principal, request: Request) -> Response:
    actions, resources = request["ActionNames"], request.get("ResourceArns") or ["*"]
    if len(actions) * len(resources) > MAX_SIMULATED:
        raise InvalidInputError(f"More than {MAX_SIMULATED} pairs of action and resource in one simulation.")
    context: dict[str, Any] = {}
    for entry in request.get("ContextEntries", []):
        values = tuple(entry.get("ContextKeyValues", ()))
        context[entry["ContextKeyName"]] = values[0] if len(values) == 1 else values
    variables = iam.variables_of(principal) | time_variables()
    results = []
    for action in actions:
        for resource in resources:
            decision = evaluate(policies, None, Permission(action, resource, context), variables)
            results.append(_result(action, resource, decision.allowed, decision.statement))
    return {"EvaluationResults": results, "IsTruncated": False}


def _result(action: str, resource: str, allowed: bool, statement: str) -> dict[str, Any]:
    outcome = "allowed" if allowed else "explicitDeny" if statement else "implicitDeny"
    matched = [{"SourcePolicyId": statement, "SourcePolicyType": "IAM Policy"}] if statement else []
    return {
        "EvalActionName": action,
        "EvalResourceName": resource,
        "EvalDecision": outcome,
        "MatchedStatements": matched,
        "MissingContextValues": [],
    }
