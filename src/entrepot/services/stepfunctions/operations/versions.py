"""The operations on versions and aliases of state machines.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_PublishStateMachineVersion.html
"""

from typing import Any

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, ReadOperation, Request, Response, WriteOperation
from entrepot.services.stepfunctions import machines, versions
from entrepot.services.stepfunctions.errors import InvalidName, MissingRequiredParameter
from entrepot.services.stepfunctions.operations.requests import (
    limit_of,
    machine_of,
    next_page,
    on_machine,
    text,
    token,
)
from entrepot.services.stepfunctions.service import StepFunctions

_LAST = 1 << 62


def operations(service: StepFunctions) -> list[Operation]:
    """Return the operations on versions and aliases."""
    edge = _Versions(service)
    version, alias = "stateMachineVersionArn", "stateMachineAliasArn"
    return [
        WriteOperation("PublishStateMachineVersion", on_machine("PublishStateMachineVersion"), edge.publish),
        ReadOperation("ListStateMachineVersions", on_machine("ListStateMachineVersions"), edge.list_versions),
        WriteOperation(
            "DeleteStateMachineVersion", on_machine("DeleteStateMachineVersion", version), edge.delete_version
        ),
        WriteOperation("CreateStateMachineAlias", _on_new_alias, edge.create_alias),
        WriteOperation("UpdateStateMachineAlias", on_machine("UpdateStateMachineAlias", alias), edge.update_alias),
        ReadOperation("DescribeStateMachineAlias", on_machine("DescribeStateMachineAlias", alias), edge.describe_alias),
        WriteOperation("DeleteStateMachineAlias", on_machine("DeleteStateMachineAlias", alias), edge.delete_alias),
        ReadOperation("ListStateMachineAliases", on_machine("ListStateMachineAliases"), edge.list_aliases),
    ]


def _on_new_alias(request: Request) -> Any:
    routing = request.get("routingConfiguration") or [{}]
    return on_machine("CreateStateMachineAlias", "stateMachineVersionArn")(routing[0])


class _Versions:
    def __init__(self, service: StepFunctions) -> None:
        self._account = service.account

    def publish(self, tx: Transaction, request: Request, call: Call) -> Response:
        machine = machine_of(tx, self._account, request)
        version = versions.publish(
            tx, self._account, machine, request.get("description") or "", request.get("revisionId")
        )
        return {"stateMachineVersionArn": version.arn, "creationDate": clock.from_ms(version.created_at_ms)}

    def list_versions(self, reader: Reader, request: Request, call: Call) -> Response:
        machine = machine_of(reader, self._account, request)
        limit = limit_of(request)
        found = versions.page(reader, machine, token(request, int, _LAST), limit + 1)
        shown = [
            {"stateMachineVersionArn": version.arn, "creationDate": clock.from_ms(version.created_at_ms)}
            for version in found[:limit]
        ]
        return {"stateMachineVersions": shown, **next_page(found, limit, lambda version: version.number)}

    def delete_version(self, tx: Transaction, request: Request, call: Call) -> Response:
        versions.delete(tx, self._account, text(request, "stateMachineVersionArn"))
        return {}

    def create_alias(self, tx: Transaction, request: Request, call: Call) -> Response:
        name = request.get("name")
        if not name:
            raise InvalidName("Invalid Name: ''")
        alias = versions.create_alias(
            tx, self._account, name, request.get("description") or "", _routing(request) or []
        )
        return {"stateMachineAliasArn": alias.arn, "creationDate": clock.from_ms(alias.created_at_ms)}

    def update_alias(self, tx: Transaction, request: Request, call: Call) -> Response:
        description, routing = request.get("description"), _routing(request)
        if description is None and routing is None:
            raise MissingRequiredParameter("Either the description or the routing configuration must be given.")
        arn = text(request, "stateMachineAliasArn")
        updated_at_ms = versions.update_alias(tx, self._account, arn, description, routing)
        return {"updateDate": clock.from_ms(updated_at_ms)}

    def describe_alias(self, reader: Reader, request: Request, call: Call) -> Response:
        machine, alias = versions.get_alias(reader, self._account, text(request, "stateMachineAliasArn"))
        return {
            "stateMachineAliasArn": alias.arn,
            "name": alias.name,
            "description": alias.description,
            "routingConfiguration": [
                {"stateMachineVersionArn": f"{machine.arn}:{route.version}", "weight": route.weight}
                for route in alias.routes
            ],
            "creationDate": clock.from_ms(alias.created_at_ms),
            "updateDate": clock.from_ms(alias.updated_at_ms),
        }

    def delete_alias(self, tx: Transaction, request: Request, call: Call) -> Response:
        versions.delete_alias(tx, self._account, text(request, "stateMachineAliasArn"))
        return {}

    def list_aliases(self, reader: Reader, request: Request, call: Call) -> Response:
        arn = text(request, "stateMachineArn")
        machine = versions.resolve(reader, self._account, arn, 0.0).machine
        qualifier = machines.split_arn(arn)[1]
        number = int(qualifier) if qualifier.isdecimal() else None
        limit, after = limit_of(request), token(request, str, "")
        found = [
            alias
            for alias in versions.aliases(reader, machine)
            if alias.name > after and (number is None or any(route.version == number for route in alias.routes))
        ]
        shown = [
            {"stateMachineAliasArn": alias.arn, "creationDate": clock.from_ms(alias.created_at_ms)}
            for alias in found[:limit]
        ]
        return {"stateMachineAliases": shown, **next_page(found, limit, lambda alias: alias.name)}


def _routing(request: Request) -> list[tuple[str, int]] | None:
    given = request.get("routingConfiguration")
    if given is None:
        return None
    return [(str(route.get("stateMachineVersionArn") or ""), int(route.get("weight") or 0)) for route in given]
