"""The protocols in which AWS services speak, driven by botocore's models.

Each protocol reads a request's members, writes a response and writes an error; it knows no operation and no service
beyond what the model says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from botocore.model import OperationModel

from entrepot.aws.http import Body, HttpRequest, HttpResponse
from entrepot.errors import AwsError

Pairs: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Incoming:
    """What a protocol reads a request from: the head, the path's labels, the decoded query, and the body.

    `body` is a stream only for operations whose payload streams.
    """

    request: HttpRequest
    labels: Mapping[str, str]
    pairs: Pairs
    body: bytes | Body


class WireProtocol(Protocol):
    """One protocol of one service."""

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        """Return the request as botocore's users would pass it; raise AwsError when it cannot be read."""
        ...

    def write(self, operation: OperationModel, response: Mapping[str, Any], request_id: str) -> HttpResponse:
        """Return the response for an operation's result."""
        ...

    def fail(self, error: AwsError, code: str, status: int, request_id: str) -> HttpResponse:
        """Return the response for an error under this service's code and status."""
        ...
