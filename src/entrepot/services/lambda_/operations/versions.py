"""Versions: publishing $LATEST, and listing what was published."""

from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, ReadOperation, Request, Response, WriteOperation
from entrepot.services.lambda_ import functions
from entrepot.services.lambda_.configuration import FunctionConfiguration
from entrepot.services.lambda_.errors import InvalidParameterValueError
from entrepot.services.lambda_.operations.edge import PAGE_LIMIT, Edge, code_sha256, page


class Versions:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> list[Operation]:
        on = self._edge.on_function
        return [
            WriteOperation("PublishVersion", on("PublishVersion"), self.publish_version),
            ReadOperation("ListVersionsByFunction", on("ListVersionsByFunction"), self.list_versions_by_function),
        ]

    def publish_version(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Make a version of $LATEST that never changes."""
        latest = self._edge.latest_at(tx, request)
        expected, actual = request.get("CodeSha256"), code_sha256(latest.code_sha256)
        if expected and expected != actual:
            raise InvalidParameterValueError(
                f"CodeSHA256 ({expected}) is different from current CodeSHA256 in $LATEST ({actual}). Please try again "
                "with the CodeSHA256 in $LATEST.",
                Type="User",
            )
        if request.get("PublishTo"):
            raise InvalidParameterValueError("PublishTo is not supported here.")
        published = functions.publish(tx, latest, request.get("Description"))
        self._edge.lambda_.follow(tx, latest.name)
        return self._edge.describe(published)

    def list_versions_by_function(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return $LATEST and the published versions in order."""
        latest = self._edge.latest(reader, self._edge.unqualified(request))
        marker = str(request.get("Marker") or "")

        def found(limit: int) -> list[FunctionConfiguration]:
            first = [] if marker else [latest]
            after = int(marker) if marker.isdigit() else 0
            return [*first, *functions.versions(reader, latest.name, after=after, limit=limit)][:limit]

        return page(
            request,
            "Versions",
            PAGE_LIMIT,
            found,
            lambda version: self._edge.describe(version, version.version),
            lambda version: version.version,
        )
