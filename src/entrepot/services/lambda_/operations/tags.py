"""Tags of functions and event source mappings."""

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

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
from entrepot.services.lambda_ import event_source_mappings, functions
from entrepot.services.lambda_.configuration import refuse
from entrepot.services.lambda_.errors import InvalidParameterValueError, ResourceNotFoundError
from entrepot.services.lambda_.operations.edge import Edge

TAGS_LIMIT = 50
"""Tags of one resource. AWS's limit."""

_Kind: TypeAlias = Literal["function", "event-source-mapping"]

_RESOURCE_ARN = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:\d{12}:(?P<kind>function|event-source-mapping):(?P<name>[a-zA-Z0-9-_]+)",
    re.ASCII,
)


class Tags:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> list[Operation]:
        on = self._on_resource
        return [
            ReadOperation("ListTags", on("ListTags"), self.list_tags),
            WriteOperation("TagResource", on("TagResource"), self.tag_resource),
            WriteOperation("UntagResource", on("UntagResource"), self.untag_resource),
        ]

    @staticmethod
    def _on_resource(action: str) -> Permissions:
        return lambda request: [Permission(f"lambda:{action}", str(request.get("Resource", "")))]

    def list_tags(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the tags of a resource."""
        return {"Tags": self._read(reader, self._named(reader, request))}

    def tag_resource(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Add tags, or change them."""
        named = self._named(tx, request)
        tags = {**self._read(tx, named), **request["Tags"]}
        check_tags(tags)
        self._write(tx, named, tags)
        return {}

    def untag_resource(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Remove tags by their keys."""
        named, gone = self._named(tx, request), set(request["TagKeys"])
        self._write(tx, named, {key: value for key, value in self._read(tx, named).items() if key not in gone})
        return {}

    def _named(self, reader: Reader, request: Request) -> tuple[_Kind, str]:
        """Return what a resource's ARN names: a function by name, or an event source mapping by uuid."""
        arn = request["Resource"]
        match = _RESOURCE_ARN.fullmatch(arn)
        account = self._edge.account
        if match is None:
            refuse(arn, "resource", "satisfy regular expression pattern: arn:(aws[a-zA-Z-]*):lambda:[a-z]{2}"
                   "((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:\\d{12}:(function:[a-zA-Z0-9-_]+|event-source-mapping:…)")  # fmt: skip
        kind: _Kind = "function" if match["kind"] == "function" else "event-source-mapping"
        ours = arn == account.arn("lambda", f"{kind}:{match['name']}")
        if kind == "function" and ours:
            return kind, self._edge.latest(reader, match["name"]).name
        if not ours or event_source_mappings.find(reader, match["name"]) is None:
            raise ResourceNotFoundError("The resource you requested does not exist.", Type="User")
        return kind, match["name"]

    @staticmethod
    def _read(reader: Reader, named: tuple[_Kind, str]) -> dict[str, str]:
        kind, name = named
        return functions.tags(reader, name) if kind == "function" else event_source_mappings.tags(reader, name)

    @staticmethod
    def _write(tx: Transaction, named: tuple[_Kind, str], tags: Mapping[str, str]) -> None:
        kind, name = named
        write = functions.write_tags if kind == "function" else event_source_mappings.write_tags
        write(tx, name, tags)


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise InvalidParameterValueError for tags that AWS would refuse."""
    if len(tags) > TAGS_LIMIT:
        raise InvalidParameterValueError("Number of tags exceeds function tag limit.", Type="User")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise InvalidParameterValueError(f"The tag {key[:128]!r} is not valid.", Type="User")
