"""Aliases: names for versions, with a share of the invocations for a second one."""

from collections.abc import Iterable
from dataclasses import replace

from entrepot.database import Reader, Transaction
from entrepot.operations import (
    Call,
    Operation,
    Permission,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.lambda_ import functions
from entrepot.services.lambda_.configuration import LATEST, function_arn, not_found
from entrepot.services.lambda_.errors import InvalidParameterValueError, ResourceConflictError, ResourceNotFoundError
from entrepot.services.lambda_.functions import Alias
from entrepot.services.lambda_.operations.edge import PAGE_LIMIT, Edge, page


class Aliases:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._lambda = edge.lambda_

    def operations(self) -> list[Operation]:
        on = self._on_alias
        return [
            WriteOperation("CreateAlias", on("CreateAlias"), self.create_alias),
            ReadOperation("GetAlias", on("GetAlias"), self.get_alias),
            WriteOperation("UpdateAlias", on("UpdateAlias"), self.update_alias),
            WriteOperation("DeleteAlias", on("DeleteAlias"), self.delete_alias),
            ReadOperation("ListAliases", self._edge.on_function("ListAliases"), self.list_aliases),
        ]

    def _on_alias(self, action: str) -> Permissions:
        """Return the permission on an alias: the function's ARN, as AWS documents it."""

        def permissions(request: Request) -> Iterable[Permission]:
            name = self._edge.reference(request).name
            yield Permission(f"lambda:{action}", function_arn(self._edge.account, name))

        return permissions

    def create_alias(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Make an alias."""
        name = self._edge.latest(tx, self._edge.unqualified(request)).name
        alias = Alias(
            name, request["Name"], request["FunctionVersion"], _weights(request), request.get("Description") or ""
        )
        if functions.find_alias(tx, name, alias.name) is not None:
            raise ResourceConflictError(f"Alias already exists: {self._arn(alias)}", Type="User")
        return self._put(tx, alias)

    def _put(self, tx: Transaction, alias: Alias) -> Response:
        stored = functions.put_alias(tx, alias)
        for version in (alias.version, *alias.weights):
            if functions.find(tx, alias.function_name, version) is None:
                raise not_found(function_arn(self._edge.account, alias.function_name, version))
        self._lambda.follow(tx, alias.function_name)
        return self._shape(stored)

    def get_alias(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return an alias."""
        return self._shape(self._known(reader, request))

    def update_alias(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Let an alias stand for another version, or share differently."""
        alias = self._known(tx, request)
        functions.check_revision(request.get("RevisionId"), alias.revision_id)
        if request.get("FunctionVersion"):
            alias = replace(alias, version=request["FunctionVersion"])
        if request.get("RoutingConfig") is not None:
            alias = replace(alias, weights=_weights(request))
        if request.get("Description") is not None:
            alias = replace(alias, description=request["Description"])
        return self._put(tx, alias)

    def delete_alias(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Delete an alias; no error when it is not there, as AWS."""
        name = self._edge.latest(tx, self._edge.unqualified(request)).name
        functions.delete_alias(tx, name, request["Name"])
        self._lambda.follow(tx, name)
        return {}

    def list_aliases(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the aliases of a function, or of one version of it."""
        name = self._edge.latest(reader, self._edge.unqualified(request)).name
        after, version = str(request.get("Marker") or ""), request.get("FunctionVersion")
        return page(
            request,
            "Aliases",
            PAGE_LIMIT,
            lambda limit: functions.aliases(reader, name, version=version, after=after, limit=limit),
            self._shape,
            lambda alias: alias.name,
        )

    def _known(self, reader: Reader, request: Request) -> Alias:
        name = self._edge.latest(reader, self._edge.unqualified(request)).name
        alias = functions.find_alias(reader, name, request["Name"])
        if alias is None:
            arn = function_arn(self._edge.account, name, request["Name"])
            raise ResourceNotFoundError(f"Cannot find alias arn: {arn}", Type="User")
        return alias

    def _arn(self, alias: Alias) -> str:
        return function_arn(self._edge.account, alias.function_name, alias.name)

    def _shape(self, alias: Alias) -> Response:
        response: Response = {
            "AliasArn": self._arn(alias),
            "Name": alias.name,
            "FunctionVersion": alias.version,
            "Description": alias.description,
            "RevisionId": alias.revision_id,
        }
        if alias.weights:
            response["RoutingConfig"] = {"AdditionalVersionWeights": dict(alias.weights)}
        return response


def _weights(request: Request) -> dict[str, float]:
    weights = (request.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    if request.get("Name") == LATEST:
        raise InvalidParameterValueError("$LATEST is no name for an alias.")
    return {version: float(weight) for version, weight in weights.items()}
