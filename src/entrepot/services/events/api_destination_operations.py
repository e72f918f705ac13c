"""The edge of API destinations: AWS's operations in botocore's shapes (service `events`)."""

import dataclasses

from entrepot import clock, ids
from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, Permission, Permissions, Request, Response
from entrepot.services.events import api_destinations, edge
from entrepot.services.events.api_destinations import METHODS, RATE_DEFAULT_PER_S, ApiDestination
from entrepot.services.events.connection_operations import check_endpoint
from entrepot.services.events.edge import check_name, page
from entrepot.services.events.errors import (
    LimitExceededError,
    ResourceAlreadyExistsError,
    ResourceNotFoundError,
    ValidationError,
)
from entrepot.services.events.service import Events

DESTINATIONS_LIMIT = 3000
"""API destinations of one account. Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html"""


def api_destination_operations(events: Events) -> list[Operation]:
    """Return the operations on API destinations."""
    read, write = edge.reads(events), edge.writes(events)

    def on_destination(action: str) -> Permissions:
        def of(request: Request) -> list[Permission]:
            arn = events.account.arn("events", f"api-destination/{request.get('Name', '')}")
            return [Permission(f"events:{action}", arn)]

        return of

    def with_connection(action: str) -> Permissions:
        """Who lets a destination use a connection's secrets must be allowed so for that connection, as on AWS."""

        def of(request: Request) -> list[Permission]:
            needed = list(on_destination(action)(request))
            if request.get("ConnectionArn"):
                needed.append(Permission(f"events:{action}", request["ConnectionArn"]))
            return needed

        return of

    return [
        write("CreateApiDestination", with_connection("CreateApiDestination"), create_api_destination),
        read("DescribeApiDestination", on_destination("DescribeApiDestination"), describe_api_destination),
        read("ListApiDestinations", lambda _: [Permission("events:ListApiDestinations", "*")], list_api_destinations),
        write("UpdateApiDestination", with_connection("UpdateApiDestination"), update_api_destination),
        write("DeleteApiDestination", on_destination("DeleteApiDestination"), delete_api_destination),
    ]


def _destination(reader: Reader, name: str) -> ApiDestination:
    destination = api_destinations.find(reader, name)
    if destination is None:
        raise ResourceNotFoundError(
            f"Failed to describe the api-destination(s). An api-destination '{name}' does not exist."
        )
    return destination


def _check(events: Events, reader: Reader, destination: ApiDestination) -> None:
    if destination.http_method not in METHODS:
        raise edge.not_in_enumeration("httpMethod", destination.http_method, METHODS)
    check_endpoint("InvocationEndpoint", destination.invocation_endpoint)
    if "*" in destination.invocation_endpoint.split("/")[2]:
        raise ValidationError(
            "Parameter InvocationEndpoint is not valid. Reason: only the path can have parameters (*)."
        )
    if destination.rate_limit_per_s < 1:
        raise ValidationError("InvocationRateLimitPerSecond must be at least 1.")
    if events.connections.find_by_arn(reader, destination.connection_arn) is None:
        raise ResourceNotFoundError(f"Connection '{destination.connection_arn[:300]}' does not exist.")


def create_api_destination(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Create an API destination."""
    name = request["Name"]
    check_name(name, "name", 64)
    edge.check_description(request)
    edge.check_text(request)
    if api_destinations.find(tx, name) is not None:
        raise ResourceAlreadyExistsError(f"An api-destination '{name}' already exists.")
    count = tx.one("SELECT count(*) FROM events_api_destination")
    if count is not None and count[0] >= DESTINATIONS_LIMIT:
        raise LimitExceededError(
            f"The requested resource exceeds the maximum number allowed: {DESTINATIONS_LIMIT} API destinations."
        )
    at_ms = clock.now_ms()
    rate_limit_per_s = request.get("InvocationRateLimitPerSecond")
    destination = ApiDestination(
        name, ids.random_uuid(), request.get("Description") or "", request["ConnectionArn"],
        request["InvocationEndpoint"], request["HttpMethod"],
        RATE_DEFAULT_PER_S if rate_limit_per_s is None else rate_limit_per_s, at_ms, at_ms,
    )  # fmt: skip
    _check(events, tx, destination)
    api_destinations.put(tx, destination)
    return _changed_shape(events, tx, destination)


def _changed_shape(events: Events, reader: Reader, destination: ApiDestination) -> Response:
    connection = events.connections.find_by_arn(reader, destination.connection_arn)
    usable = connection is not None and connection.state in ("AUTHORIZED", "AUTHORIZING")
    return {
        "ApiDestinationArn": events.account.arn("events", destination.resource),
        "ApiDestinationState": "ACTIVE" if usable else "INACTIVE",
        "CreationTime": clock.from_ms(destination.created_at_ms),
        "LastModifiedTime": clock.from_ms(destination.modified_at_ms),
    }


def _shape(events: Events, reader: Reader, destination: ApiDestination) -> Response:
    """Return what ListApiDestinations tells of one."""
    return {
        **_changed_shape(events, reader, destination),
        "Name": destination.name,
        "ConnectionArn": destination.connection_arn,
        "InvocationEndpoint": destination.invocation_endpoint,
        "HttpMethod": destination.http_method,
        "InvocationRateLimitPerSecond": destination.rate_limit_per_s,
    }


def describe_api_destination(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return one API destination."""
    destination = _destination(reader, request["Name"])
    description = {"Description": destination.description} if destination.description else {}
    return {**_shape(events, reader, destination), **description}


def list_api_destinations(events: Events, reader: Reader, request: Request, call: Call) -> Response:
    """Return API destinations by name."""
    found = {
        destination.name: destination
        for destination in api_destinations.all_destinations(reader, DESTINATIONS_LIMIT)
        if destination.name.startswith(request.get("NamePrefix") or "")
        and request.get("ConnectionArn") in (None, "", destination.connection_arn)
    }
    names, token = page(list(found), request)
    return {"ApiDestinations": [_shape(events, reader, found[name]) for name in names], **token}


def update_api_destination(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Change an API destination. What is not given stays."""
    edge.check_description(request)
    edge.check_text(request)
    changed = {
        field: request[member]
        for field, member in (
            ("description", "Description"), ("connection_arn", "ConnectionArn"),
            ("invocation_endpoint", "InvocationEndpoint"), ("http_method", "HttpMethod"),
            ("rate_limit_per_s", "InvocationRateLimitPerSecond"),
        )
        if request.get(member) is not None
    }  # fmt: skip
    destination = dataclasses.replace(_destination(tx, request["Name"]), modified_at_ms=clock.now_ms(), **changed)
    _check(events, tx, destination)
    api_destinations.put(tx, destination)
    return _changed_shape(events, tx, destination)


def delete_api_destination(events: Events, tx: Transaction, request: Request, call: Call) -> Response:
    """Delete an API destination; what waits for it becomes dead letters."""
    api_destinations.delete(tx, _destination(tx, request["Name"]).name)
    return {}
