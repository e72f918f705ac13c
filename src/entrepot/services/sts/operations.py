"""The edge of STS: AWS's operations in botocore's shapes (service `sts`).

GetCallerIdentity and GetSessionToken need no permission, as in AWS; AssumeRole needs `sts:AssumeRole` on the role and
the consent of the role's trust policy.
"""

from typing import Any

from entrepot import clock
from entrepot.credentials import Credentials
from entrepot.errors import AwsError
from entrepot.operations import AsyncOperation, Call, Operation, Permission, Request, Response
from entrepot.services.sts.sts import STS

ASSUME_ROLE_DURATION_S = 3_600
"""How long AssumeRole's credentials live when the caller does not say."""

SESSION_TOKEN_DURATION_S = 43_200
"""How long GetSessionToken's credentials live when the caller does not say."""


class ValidationError(AwsError):
    """A parameter is not supported or not valid."""

    code = "ValidationError"
    status = 400


def operations(sts: STS) -> list[Operation]:
    """Return STS's operations."""

    async def get_caller_identity(request: Request, call: Call) -> Response:
        return {"UserId": _user_id(sts, call), "Account": sts.account.account_id, "Arn": call.principal.arn}

    async def assume_role(request: Request, call: Call) -> Response:
        for name in ("PolicyArns", "Tags", "TransitiveTagKeys", "SerialNumber", "TokenCode", "SourceIdentity"):
            if request.get(name):
                raise ValidationError(f"The parameter {name} is not supported here.")
        role_arn, session_name = request["RoleArn"], request["RoleSessionName"]
        duration_s = request.get("DurationSeconds", ASSUME_ROLE_DURATION_S)
        credentials = sts.assume_role(call.principal, role_arn, session_name, duration_s, request.get("Policy"))
        user = {
            "AssumedRoleId": f"{sts.role_id(role_arn)}:{session_name}",
            "Arn": credentials.principal.arn,
        }
        return {"Credentials": _shape(credentials), "AssumedRoleUser": user}

    async def get_session_token(request: Request, call: Call) -> Response:
        for name in ("SerialNumber", "TokenCode"):
            if request.get(name):
                raise ValidationError(f"The parameter {name} is not supported here.")
        duration_s = request.get("DurationSeconds", SESSION_TOKEN_DURATION_S)
        return {"Credentials": _shape(sts.issue_session_token(call.principal, duration_s))}

    return [
        AsyncOperation("GetCallerIdentity", lambda request: [], get_caller_identity),
        AsyncOperation(
            "AssumeRole",
            lambda request: [Permission("sts:AssumeRole", str(request.get("RoleArn", "*")))],
            assume_role,
        ),
        AsyncOperation("GetSessionToken", lambda request: [], get_session_token),
    ]


def _user_id(sts: STS, call: Call) -> str:
    principal = call.principal
    if principal.kind == "root":
        return sts.account.account_id
    if principal.kind == "role" and principal.role_arn is not None:
        return f"{sts.role_id(principal.role_arn)}:{principal.name}"
    return principal.name


def _shape(credentials: Credentials) -> dict[str, Any]:
    assert credentials.expires_at_ms is not None
    return {
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "SessionToken": credentials.session_token,
        "Expiration": clock.from_ms(credentials.expires_at_ms),
    }
