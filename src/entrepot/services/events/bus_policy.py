"""The resource policy of an event bus: who else may put events on it; and the edge of it (service `events`).

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-bus-permissions.html
"""

import json
import re
from typing import Any

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.errors import AwsError
from entrepot.operations import Call, Operation, Permission, Permissions, Request, Response
from entrepot.services.events import edge
from entrepot.services.events.edge import bus_arn, bus_name_of
from entrepot.services.events.errors import PolicyLengthExceededError, ResourceNotFoundError, ValidationError
from entrepot.services.events.service import Events

POLICY_LIMIT_BYTES = 10_240
"""Bytes of a bus's policy."""

_STATEMENT_ID = re.compile(r"[a-zA-Z0-9\-_]{1,64}")
_ACCOUNT_ID = re.compile(r"[0-9]{12}")


def policy_operations(events: Events) -> list[Operation]:
    """Return the operations on bus policies."""
    write = edge.writes(events)

    def on_bus(action: str) -> Permissions:
        def of(request: Request) -> list[Permission]:
            return [Permission(f"events:{action}", bus_arn(events, bus_name_of(request.get("EventBusName"))))]

        return of

    return [
        write("PutPermission", on_bus("PutPermission"), put_permission),
        write("RemovePermission", on_bus("RemovePermission"), remove_permission),
    ]


def _policy(events: Events, reader: Reader, bus_name: str) -> str:
    policy = events.bus_policy(reader, bus_name)
    if policy is None:
        raise ResourceNotFoundError(f"Event bus {bus_name} does not exist.")
    return policy


def put_permission(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Add one statement to a bus's policy, or replace the whole policy."""
    bus_name = bus_name_of(request.get("EventBusName"))
    policy = _policy(events, tx, bus_name)
    parts = [name for name in ("Action", "Principal", "StatementId", "Condition") if request.get(name)]
    if request.get("Policy"):
        if parts:
            raise ValidationError("Policy cannot be given together with Action, Principal, StatementId or Condition.")
        _store(events, tx, bus_name, request["Policy"])
        return {}
    statement = _statement(events, bus_name, request)
    document: dict[str, Any] = json.loads(policy) if policy else {"Version": "2012-10-17", "Statement": []}
    others = [one for one in _statements(document) if one.get("Sid") != statement["Sid"]]
    _store(events, tx, bus_name, json.dumps({**document, "Statement": [*others, statement]}))
    return {}


def _statements(document: dict[str, Any]) -> list[dict[str, Any]]:
    statements = document["Statement"]
    return statements if isinstance(statements, list) else [statements]


def _statement(events: Events, bus_name: str, request: Request) -> dict[str, Any]:
    for name in ("Action", "Principal", "StatementId"):
        if not request.get(name):
            raise ValidationError(f"Parameter {name} must be specified.")
    if request["Action"] != "events:PutEvents":
        raise ValidationError("Provided value in parameter 'action' is not supported.")
    principal, statement_id = request["Principal"], request["StatementId"]
    if principal != "*" and not _ACCOUNT_ID.fullmatch(principal):
        raise ValidationError("Provided value in parameter 'principal' is not valid.")
    if not _STATEMENT_ID.fullmatch(statement_id):
        raise ValidationError("StatementId must match ^[a-zA-Z0-9-_]{1,64}$.")
    named = "*" if principal == "*" else {"AWS": f"arn:{events.account.partition}:iam::{principal}:root"}
    statement: dict[str, Any] = {
        "Sid": statement_id,
        "Effect": "Allow",
        "Principal": named,
        "Action": "events:PutEvents",
        "Resource": bus_arn(events, bus_name),
    }
    condition = request.get("Condition")
    if condition:
        if condition["Type"] != "StringEquals" or condition["Key"] != "aws:PrincipalOrgID":
            raise ValidationError("A Condition must have Type StringEquals and Key aws:PrincipalOrgID.")
        statement["Condition"] = {condition["Type"]: {condition["Key"]: condition["Value"]}}
    return statement


def _store(events: Events, tx: Transaction, bus_name: str, policy: str) -> None:
    try:
        size_bytes = len(policy.encode())
    except UnicodeEncodeError:
        raise ValidationError("The request has text that is not valid Unicode.") from None
    if size_bytes > POLICY_LIMIT_BYTES:
        raise PolicyLengthExceededError(
            f"The policy of event bus {bus_name} would be longer than {POLICY_LIMIT_BYTES} bytes."
        )
    if policy:
        try:
            events.check_policy(policy)
        except AwsError as error:
            raise ValidationError(f"The policy is not valid: {error.message}") from None
    tx.execute(
        "UPDATE events_bus SET policy = ?, modified_at_ms = ? WHERE name = ?", (policy, clock.now_ms(), bus_name)
    )


def remove_permission(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Remove one statement of a bus's policy, or all."""
    bus_name = bus_name_of(request.get("EventBusName"))
    policy = _policy(events, tx, bus_name)
    if request.get("RemoveAllPermissions"):
        _store(events, tx, bus_name, "")
        return {}
    if not request.get("StatementId"):
        raise ValidationError("Parameter StatementId must be specified.")
    if not policy:
        raise ResourceNotFoundError("EventBus does not have a policy.")
    document = json.loads(policy)
    rest = [one for one in _statements(document) if one.get("Sid") != request["StatementId"]]
    if len(rest) == len(_statements(document)):
        raise ResourceNotFoundError("Statement with the provided id does not exist.")
    _store(events, tx, bus_name, json.dumps({**document, "Statement": rest}) if rest else "")
    return {}
