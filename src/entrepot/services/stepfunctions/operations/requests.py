"""What the operations share: members of requests, pages, and the permissions of a resource.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_Operations.html
"""

import base64
import json
from collections.abc import Callable
from typing import Any

from entrepot.arns import Account
from entrepot.database import Reader
from entrepot.operations import Permission, Permissions, Request, Response
from entrepot.services.stepfunctions import machines
from entrepot.services.stepfunctions.errors import (
    InvalidArn,
    InvalidEncryptionConfiguration,
    InvalidToken,
    ValidationException,
)
from entrepot.services.stepfunctions.machines import Machine

PAGE_LIMIT = 1_000
"""Most entries of a page. Source: the maxResults of ListExecutions, GetExecutionHistory."""

PAGE_DEFAULT = 100
"""Entries of a page when maxResults is absent or 0."""


def on(action: str, member: str) -> Permissions:
    """Return the permission for an action on the resource that a member of the request names."""
    return lambda request: [Permission(f"states:{action}", str(request.get(member) or "*"))]


def on_machine(action: str, member: str = "stateMachineArn") -> Permissions:
    """Return the permission for an action on a state machine.

    The ARN of a version or alias counts as the state machine's, the rest is the condition key for qualifiers.
    """

    def permissions(request: Request) -> list[Permission]:
        arn = str(request.get(member) or "*")
        unqualified = ":".join(arn.split(":")[:7])
        context = {} if unqualified == arn else {"states:StateMachineQualifier": arn[len(unqualified) + 1 :]}
        return [Permission(f"states:{action}", unqualified, context)]

    return permissions


def on_every(action: str) -> Permissions:
    """Return the permission for an action that has no resource."""
    return lambda _: [Permission(f"states:{action}", "*")]


def refuse_keys(request: Request) -> None:
    """Raise InvalidEncryptionConfiguration for a customer managed key: there is no KMS here."""
    if (request.get("encryptionConfiguration") or {}).get("type", "AWS_OWNED_KEY") != "AWS_OWNED_KEY":
        raise InvalidEncryptionConfiguration(
            "Invalid Encryption Configuration: customer managed keys are not supported here: there is no KMS."
        )


def text(request: Request, member: str) -> str:
    """Return a required string. Raises InvalidArn, ValidationException."""
    value = request.get(member)
    if not isinstance(value, str) or not value:
        if member.endswith("Arn"):
            raise InvalidArn(f"Invalid Arn: '{value or ''}'")
        raise ValidationException(
            f"1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
        )
    return value


def standard_arn(request: Request, *, children: bool = False) -> str:
    """Return executionArn; raise InvalidArn for an execution of an EXPRESS state machine: these have logs, no history.

    `children`: those that a map run dispatched are allowed.
    """
    arn = text(request, "executionArn")
    _, express, name = arn.partition(":express:")
    if express and not (children and "/" in name.partition(":")[0]):
        raise InvalidArn("Invalid Arn: 'Resource type not valid in this context: express'")
    return arn


def machine_of(reader: Reader, account: Account, request: Request) -> Machine:
    """Return the state machine of stateMachineArn. Raises InvalidArn, StateMachineDoesNotExist."""
    return machines.get(reader, account, text(request, "stateMachineArn"))


def task_token(request: Request) -> str:
    """Return the token of a task. Raises InvalidToken."""
    token = request.get("taskToken")
    if not isinstance(token, str) or not token:
        raise InvalidToken("Invalid Token: 'Invalid token'")
    return token


def limit_of(request: Request) -> int:
    """Return how many entries a page may have. Raises ValidationException."""
    wanted = int(request.get("maxResults") or PAGE_DEFAULT)
    if not 0 < wanted <= PAGE_LIMIT:
        raise ValidationException(f"maxResults must be between 0 and {PAGE_LIMIT}, not {wanted}.")
    return wanted


def token(request: Request, kind: type[Any], absent: Any) -> Any:
    """Return the place that nextToken holds, or `absent`. Raises InvalidToken."""
    token = request.get("nextToken")
    if token is None:
        return absent
    try:
        value = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        value = None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidToken(f"Invalid Token: '{token}'")
    return value


def next_page(found: list[Any], limit: int, position: Callable[[Any], Any]) -> Response:
    """Return the token of the next page, when there is one."""
    if len(found) <= limit:
        return {}
    return {"nextToken": base64.urlsafe_b64encode(json.dumps(position(found[limit - 1])).encode()).decode()}
