"""Resource policies of functions: who else may invoke them."""

import json
import re
from typing import Any

from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, ReadOperation, Request, Response, WriteOperation
from entrepot.services.lambda_ import functions, policies
from entrepot.services.lambda_.configuration import LATEST, Reference, refuse
from entrepot.services.lambda_.errors import InvalidParameterValueError, ResourceConflictError, ResourceNotFoundError
from entrepot.services.lambda_.operations.edge import Edge

_STATEMENT_ID = re.compile(r"[a-zA-Z0-9-_]{1,100}", re.ASCII)
_ACTION = re.compile(r"lambda:[*]|lambda:[a-zA-Z]+|[*]", re.ASCII)
_SERVICE = re.compile(r"[a-z0-9.-]+\.amazonaws\.com(\.cn)?|[a-z0-9-]+\.alexa\.com", re.ASCII)
_PRINCIPAL_ARN = re.compile(r"arn:aws[a-zA-Z-]*:(iam|sts)::\d{12}:[a-zA-Z0-9+=,.@_/:-]+", re.ASCII)

_REFUSED = ("FunctionUrlAuthType", "InvokedViaFunctionUrl", "EventSourceToken", "PrincipalOrgID")
"""Conditions that nothing here can fulfil; refused, never ignored."""


class Policies:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> list[Operation]:
        on = self._edge.on_function
        return [
            WriteOperation("AddPermission", on("AddPermission"), self.add_permission),
            WriteOperation("RemovePermission", on("RemovePermission"), self.remove_permission),
            ReadOperation("GetPolicy", on("GetPolicy"), self.get_policy),
        ]

    def add_permission(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Let a service, an account or a role do something with a function."""
        named = self._named(tx, request)
        if named.qualifier == LATEST:
            raise InvalidParameterValueError("We currently do not support adding policies for $LATEST.", Type="User")
        statement = self._statement(named, request)
        found = policies.find(tx, named.name, named.qualifier)
        statements = found.statements if found else ()
        self._check_revision(found, request)
        if any(one["Sid"] == statement["Sid"] for one in statements):
            raise ResourceConflictError(
                f"The statement id ({statement['Sid']}) provided already exists. Please provide a new statement id, or "
                "remove the existing statement.",
                Type="User",
            )
        policies.put(tx, named.name, named.qualifier, [*statements, statement])
        self._edge.lambda_.follow(tx, named.name)
        return {"Statement": json.dumps(statement, separators=(",", ":"))}

    def _statement(self, named: Reference, request: Request) -> dict[str, Any]:
        for member in _REFUSED:
            if request.get(member):
                raise InvalidParameterValueError(f"{member} is not supported here.")
        statement_id, action = request["StatementId"], request["Action"]
        if not _STATEMENT_ID.fullmatch(statement_id):
            refuse(statement_id, "statementId", "satisfy regular expression pattern: ([a-zA-Z0-9-_]+)")
        if not _ACTION.fullmatch(action):
            refuse(action, "action", "satisfy regular expression pattern: (lambda:[*]|lambda:[a-zA-Z]+|[*])")
        statement: dict[str, Any] = {
            "Sid": statement_id,
            "Effect": "Allow",
            "Principal": self._principal(str(request["Principal"])),
            "Action": action,
            "Resource": self._edge.arn(named),
        }
        condition: dict[str, Any] = {}
        if request.get("SourceAccount"):
            condition["StringEquals"] = {"AWS:SourceAccount": request["SourceAccount"]}
        if request.get("SourceArn"):
            condition["ArnLike"] = {"AWS:SourceArn": request["SourceArn"]}
        if condition:
            statement["Condition"] = condition
        return statement

    @staticmethod
    def _principal(principal: str) -> Any:
        if principal == "*":
            return "*"
        if _SERVICE.fullmatch(principal):
            return {"Service": principal}
        if re.fullmatch(r"\d{12}", principal, re.ASCII):
            return {"AWS": f"arn:aws:iam::{principal}:root"}
        if _PRINCIPAL_ARN.fullmatch(principal):
            return {"AWS": principal}
        raise InvalidParameterValueError(
            "The provided principal was invalid. Please check the principal and try again.", Type="User"
        )

    def remove_permission(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Take a statement back."""
        named = self._named(tx, request)
        found = policies.find(tx, named.name, named.qualifier)
        if found is None:
            raise ResourceNotFoundError("No policy is associated with the given resource.", Type="User")
        self._check_revision(found, request)
        kept = [one for one in found.statements if one["Sid"] != request["StatementId"]]
        if len(kept) == len(found.statements):
            raise ResourceNotFoundError(
                f"Statement {request['StatementId']} is not found in resource policy.", Type="User"
            )
        policies.put(tx, named.name, named.qualifier, kept)
        self._edge.lambda_.follow(tx, named.name)
        return {}

    def get_policy(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the policy of a function, version or alias."""
        named = self._named(reader, request)
        found = policies.find(reader, named.name, named.qualifier)
        if found is None:
            raise ResourceNotFoundError("The resource you requested does not exist.", Type="User")
        return {"Policy": found.text, "RevisionId": found.revision_id}

    def _named(self, reader: Reader, request: Request) -> Reference:
        return self._edge.known(reader, self._edge.reference(request))

    @staticmethod
    def _check_revision(found: policies.Policy | None, request: Request) -> None:
        functions.check_revision(request.get("RevisionId"), found.revision_id if found else "")
