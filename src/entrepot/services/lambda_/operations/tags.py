"""Tags of functions."""

import re
from collections.abc import Mapping

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
from entrepot.services.lambda_.configuration import refuse
from entrepot.services.lambda_.errors import InvalidParameterValueError
from entrepot.services.lambda_.operations.edge import Edge

TAGS_LIMIT = 50
"""Tags of one resource. AWS's limit."""

_FUNCTION_ARN = re.compile(r"arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:\d{12}:function:[a-zA-Z0-9-_]+", re.ASCII)


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
        return {"Tags": functions.tags(reader, self._function(reader, request))}

    def tag_resource(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Add tags, or change them."""
        name = self._function(tx, request)
        tags = {**functions.tags(tx, name), **request["Tags"]}
        check_tags(tags)
        functions.write_tags(tx, name, tags)
        return {}

    def untag_resource(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Remove tags by their keys."""
        name, gone = self._function(tx, request), set(request["TagKeys"])
        kept = {key: value for key, value in functions.tags(tx, name).items() if key not in gone}
        functions.write_tags(tx, name, kept)
        return {}

    def _function(self, reader: Reader, request: Request) -> str:
        arn = request["Resource"]
        if not _FUNCTION_ARN.fullmatch(arn):
            refuse(arn, "resource", "satisfy regular expression pattern: arn:(aws[a-zA-Z-]*):lambda:[a-z]{2}"
                   "((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:\\d{12}:function:[a-zA-Z0-9-_]+")  # fmt: skip
        return self._edge.latest(reader, self._edge.unqualified({"FunctionName": arn})).name


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise InvalidParameterValueError for tags that AWS would refuse."""
    if len(tags) > TAGS_LIMIT:
        raise InvalidParameterValueError("Number of tags exceeds function tag limit.", Type="User")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise InvalidParameterValueError(f"The tag {key[:128]!r} is not valid.", Type="User")
