"""Policies of layer versions. There is one account here, so they are kept and shown, and admit nobody."""

import json

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
from entrepot.services.lambda_ import functions, layers
from entrepot.services.lambda_.configuration import refuse
from entrepot.services.lambda_.errors import ResourceConflictError, ResourceNotFoundError
from entrepot.services.lambda_.operations.edge import Edge
from entrepot.services.lambda_.policies import Policy


class LayerPermissions:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> list[Operation]:
        on = self._on_version
        return [
            WriteOperation(
                "AddLayerVersionPermission", on("AddLayerVersionPermission"), self.add_layer_version_permission
            ),
            WriteOperation(
                "RemoveLayerVersionPermission", on("RemoveLayerVersionPermission"), self.remove_layer_version_permission
            ),
            ReadOperation("GetLayerVersionPolicy", on("GetLayerVersionPolicy"), self.get_layer_version_policy),
        ]

    def _on_version(self, action: str) -> Permissions:
        def permissions(request: Request) -> list[Permission]:
            name = layers.layer_name(self._edge.account, str(request.get("LayerName", "")))
            arn = layers.layer_arn(self._edge.account, name, int(request.get("VersionNumber") or 0))
            return [Permission(f"lambda:{action}", arn)]

        return permissions

    def add_layer_version_permission(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Let an account, or all, use a layer version."""
        if request["Action"] != "lambda:GetLayerVersion":
            refuse(request["Action"], "action", "satisfy regular expression pattern: lambda:GetLayerVersion")
        name, version = self._named(request)
        policy = self._policy(tx, name, version)
        functions.check_revision(request.get("RevisionId"), policy.revision_id)
        if any(one["Sid"] == request["StatementId"] for one in policy.statements):
            raise ResourceConflictError(
                f"The statement id ({request['StatementId']}) provided already exists. Please provide a new statement id, "
                "or remove the existing statement.",
                Type="User",
            )
        principal = request["Principal"]
        statement = {
            "Sid": request["StatementId"],
            "Effect": "Allow",
            "Principal": "*" if principal == "*" else {"AWS": f"arn:aws:iam::{principal}:root"},
            "Action": request["Action"],
            "Resource": layers.layer_arn(self._edge.account, name, version),
        }
        revision_id = layers.put_statements(tx, name, version, [*policy.statements, statement])
        return {"Statement": json.dumps(statement, separators=(",", ":")), "RevisionId": revision_id}

    def remove_layer_version_permission(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Take a statement back."""
        name, version = self._named(request)
        policy = self._policy(tx, name, version)
        functions.check_revision(request.get("RevisionId"), policy.revision_id)
        kept = [one for one in policy.statements if one["Sid"] != request["StatementId"]]
        if len(kept) == len(policy.statements):
            raise ResourceNotFoundError(
                f"Statement {request['StatementId']} is not found in resource policy.", Type="User"
            )
        layers.put_statements(tx, name, version, kept)
        return {}

    def get_layer_version_policy(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the policy of a layer version."""
        policy = self._policy(reader, *self._named(request))
        if not policy.statements:
            raise ResourceNotFoundError("No policy is associated with the given resource.", Type="User")
        return {"Policy": policy.text, "RevisionId": policy.revision_id}

    def _named(self, request: Request) -> tuple[str, int]:
        return layers.layer_name(self._edge.account, str(request["LayerName"])), request["VersionNumber"]

    @staticmethod
    def _policy(reader: Reader, name: str, version: int) -> Policy:
        policy = layers.find_policy(reader, name, version)
        if policy is None:
            raise layers.no_such_layer()
        return policy
