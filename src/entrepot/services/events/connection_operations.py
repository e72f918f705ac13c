"""The edge of connections: AWS's operations in botocore's shapes (service `events`). What goes out has no secret."""

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from entrepot import clock, ids
from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, Permission, Permissions, Request, Response
from entrepot.outbound import OutboundError
from entrepot.outbound import url as urls
from entrepot.services.events import connections, edge
from entrepot.services.events.connections import API_KEY, BASIC, OAUTH, Connection
from entrepot.services.events.edge import check_name, page
from entrepot.services.events.errors import (
    LimitExceededError,
    ResourceAlreadyExistsError,
    ResourceNotFoundError,
    TargetError,
    ValidationError,
)
from entrepot.services.events.service import Events

CONNECTIONS_LIMIT = 3000
"""Connections of one account. Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html"""

PARAMETERS_LIMIT = 100
"""Header, query string or body parameters of one connection, each."""

VALUE_LIMIT = 512
"""Characters of a key, user name, password or parameter."""

ENDPOINT_LIMIT = 2048
"""Characters of an endpoint's URL."""

_NEEDED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    API_KEY: ("ApiKeyAuthParameters", ("ApiKeyName", "ApiKeyValue")),
    BASIC: ("BasicAuthParameters", ("Username", "Password")),
    OAUTH: ("OAuthParameters", ("ClientParameters", "AuthorizationEndpoint", "HttpMethod")),
}
_KINDS = ("HeaderParameters", "QueryStringParameters", "BodyParameters")


def connection_operations(events: Events) -> list[Operation]:
    """Return the operations on connections."""
    read, write = edge.reads(events), edge.writes(events)

    def on_connection(action: str) -> Permissions:
        def of(request: Request) -> list[Permission]:
            arn = events.account.arn("events", f"connection/{request.get('Name', '')}")
            return [Permission(f"events:{action}", arn)]

        return of

    return [
        write("CreateConnection", on_connection("CreateConnection"), create_connection),
        read("DescribeConnection", on_connection("DescribeConnection"), describe_connection),
        read("ListConnections", lambda _: [Permission("events:ListConnections", "*")], list_connections),
        write("UpdateConnection", on_connection("UpdateConnection"), update_connection),
        write("DeauthorizeConnection", on_connection("DeauthorizeConnection"), deauthorize_connection),
        write("DeleteConnection", on_connection("DeleteConnection"), delete_connection),
    ]


def _connection(reader: Reader, name: str) -> Connection:
    connection = connections.find(reader, name)
    if connection is None:
        raise ResourceNotFoundError(f"Failed to describe the connection(s). Connection '{name}' does not exist.")
    return connection


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def check_endpoint(member: str, endpoint: str) -> None:
    """Raise ValidationError unless an endpoint is a URL that can be called at all."""
    try:
        if len(endpoint) > ENDPOINT_LIMIT:
            raise ValidationError(f"Parameter {member} is not valid. Reason: longer than {ENDPOINT_LIMIT} characters.")
        urls.parse(endpoint)
    except OutboundError as error:
        raise ValidationError(f"Parameter {member} is not valid. Reason: {error}") from None


def _check(request: Request, authorization_type: str, given: Mapping[str, Any]) -> None:
    for member in ("KmsKeyIdentifier", "InvocationConnectivityParameters"):
        if request.get(member):
            raise ValidationError(f"Parameter {member} is not supported here.")
    if given.get("ConnectivityParameters"):
        raise ValidationError("Parameter AuthParameters.ConnectivityParameters is not supported here.")
    edge.check_description(request)
    edge.check_text(request)
    if authorization_type not in _NEEDED:
        raise edge.not_in_enumeration("authorizationType", authorization_type, _NEEDED)
    member, needed = _NEEDED[authorization_type]
    chosen = given.get(member) or {}
    missing = [name for name in needed if not chosen.get(name)]
    if missing:
        raise ValidationError(
            f"Parameter AuthParameters.{member}.{missing[0]} must be specified for {authorization_type}."
        )
    if authorization_type == OAUTH:
        _check_oauth(chosen)
    else:
        _check_values([str(chosen[name]) for name in needed])
    _check_parameters("InvocationHttpParameters", given.get("InvocationHttpParameters") or {})


def _check_oauth(chosen: Mapping[str, Any]) -> None:
    client = chosen["ClientParameters"]
    if not client.get("ClientID") or not client.get("ClientSecret"):
        raise ValidationError("Parameter OAuthParameters.ClientParameters must have a ClientID and a ClientSecret.")
    _check_values([client["ClientID"], client["ClientSecret"]])
    if chosen["HttpMethod"] not in ("GET", "POST", "PUT"):
        raise edge.not_in_enumeration("httpMethod", chosen["HttpMethod"], ("GET", "POST", "PUT"))
    check_endpoint("AuthorizationEndpoint", chosen["AuthorizationEndpoint"])
    _check_parameters("OAuthHttpParameters", chosen.get("OAuthHttpParameters") or {})


def _check_values(values: list[str]) -> None:
    for value in values:
        if len(value) > VALUE_LIMIT or any(ord(character) < 32 for character in value):
            raise ValidationError(
                f"AuthParameters are not valid. Reason: a value has control characters or more than {VALUE_LIMIT} characters."
            )


def _check_parameters(member: str, given: Mapping[str, Any]) -> None:
    for kind in _KINDS:
        entries = given.get(kind) or ()
        if len(entries) > PARAMETERS_LIMIT:
            raise ValidationError(f"{member}.{kind} must not have more than {PARAMETERS_LIMIT} entries.")
        _check_values([text for entry in entries for text in (entry.get("Key") or "", entry.get("Value") or "")])


# ── the operations ───────────────────────────────────────────────────────────────────────────────────────────────────


def create_connection(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Create a connection; one with OAuth is authorised in the background."""
    name, kind, given = request["Name"], request["AuthorizationType"], request["AuthParameters"]
    check_name(name, "name", 64)
    _check(request, kind, given)
    if connections.find(tx, name) is not None:
        raise ResourceAlreadyExistsError(f"Connection {name} already exists.")
    count = tx.one("SELECT count(*) FROM events_connection")
    if count is not None and count[0] >= CONNECTIONS_LIMIT:
        raise LimitExceededError(
            f"The requested resource exceeds the maximum number allowed: {CONNECTIONS_LIMIT} connections."
        )
    at_ms = clock.now_ms()
    connection = Connection(
        name, ids.random_uuid(), request.get("Description") or "", kind, "", "", "", None, at_ms, at_ms, None
    )
    return _store(events, tx, connection, given, at_ms)


def _store(events: Events, tx: Transaction, connection: Connection, given: Mapping[str, Any], at_ms: int) -> Response:
    """Put a connection with its parameters; return what create and update answer."""
    oauth = connection.authorization_type == OAUTH
    kept = (_NEEDED[connection.authorization_type][0], "InvocationHttpParameters")
    given = {name: given[name] for name in kept if given.get(name)}
    connection = dataclasses.replace(
        connection,
        state="AUTHORIZING" if oauth else "AUTHORIZED",
        state_reason="",
        parameters=json.dumps(connections.without_secrets(connection.authorization_type, given)),
        secret=events.connections.sealed(connection.connection_id, given),
        authorized_at_ms=connection.authorized_at_ms if oauth else at_ms,
    )
    connections.put(tx, connection)
    tx.after_commit(events.connection_changed)
    return _changed_shape(events, connection)


def _changed_shape(events: Events, connection: Connection) -> Response:
    shape: Response = {
        "ConnectionArn": events.connections.arn(connection),
        "ConnectionState": connection.state,
        "CreationTime": clock.from_ms(connection.created_at_ms),
        "LastModifiedTime": clock.from_ms(connection.modified_at_ms),
    }
    if connection.authorized_at_ms is not None:
        shape["LastAuthorizedTime"] = clock.from_ms(connection.authorized_at_ms)
    return shape


def _shape(events: Events, connection: Connection) -> Response:
    """Return what ListConnections tells of a connection."""
    shape = {
        **_changed_shape(events, connection),
        "Name": connection.name,
        "AuthorizationType": connection.authorization_type,
    }
    if connection.state_reason:
        shape["StateReason"] = connection.state_reason
    return shape


def describe_connection(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return one connection, without its secrets."""
    connection = _connection(reader, request["Name"])
    shape = {**_shape(events, connection), "AuthParameters": json.loads(connection.parameters)}
    if connection.secret is not None:
        shape["SecretArn"] = events.connections.secret_arn(connection)
    if connection.description:
        shape["Description"] = connection.description
    return shape


def list_connections(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return connections by name."""
    found = {
        connection.name: connection
        for connection in connections.all_connections(reader, CONNECTIONS_LIMIT)
        if connection.name.startswith(request.get("NamePrefix") or "")
        and request.get("ConnectionState") in (None, "", connection.state)
    }
    names, token = page(list(found), request)
    return {"Connections": [_shape(events, found[name]) for name in names], **token}


def update_connection(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Change a connection; parameters that are not given stay, unless the kind of authorization changes."""
    connection = _connection(tx, request["Name"])
    kind = request.get("AuthorizationType") or connection.authorization_type
    kept: dict[str, Any] = {}
    with suppress(TargetError):  # Without secrets, or with such that cannot be opened, all has to be given anew.
        kept = events.connections.opened(connection)
        if kind != connection.authorization_type:
            kept = {name: value for name, value in kept.items() if name == "InvocationHttpParameters"}
    given = _merged(kept, request.get("AuthParameters") or {})
    _check(request, kind, given)
    at_ms = max(clock.now_ms(), connection.modified_at_ms + 1)
    description = request.get("Description")
    connection = dataclasses.replace(
        connection,
        authorization_type=kind,
        description=connection.description if description is None else description,
        modified_at_ms=at_ms,
    )
    return _store(events, tx, connection, given, at_ms)


def _merged(kept: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `kept` with what is given; objects are merged, lists replaced."""
    merged = dict(kept)
    for name, value in given.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def deauthorize_connection(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Drop a connection's secrets."""
    connection = _connection(tx, request["Name"])
    at_ms = max(clock.now_ms(), connection.modified_at_ms + 1)
    connection = dataclasses.replace(
        connection, state="DEAUTHORIZED", state_reason="Deauthorized by DeauthorizeConnection.", secret=None,
        modified_at_ms=at_ms,
    )  # fmt: skip
    connections.put(tx, connection)
    return {**_changed_shape(events, connection), "ConnectionState": "DEAUTHORIZING"}


def delete_connection(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Delete a connection with its secrets. API destinations that use it cannot be called any more."""
    connection = _connection(tx, request["Name"])
    connections.delete(tx, connection.name)
    return {**_changed_shape(events, connection), "ConnectionState": "DELETING"}
