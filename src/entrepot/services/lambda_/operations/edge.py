"""What all subjects of Lambda's edge need: names, permissions, paging, and the shape of a function."""

import base64
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from entrepot import clock
from entrepot.database import Reader
from entrepot.operations import Permission, Permissions, Request, Response
from entrepot.services.lambda_ import functions
from entrepot.services.lambda_.configuration import (
    LATEST,
    FunctionConfiguration,
    Reference,
    function_arn,
    reference,
    refuse,
)
from entrepot.services.lambda_.errors import InvalidParameterValueError
from entrepot.services.lambda_.service import Lambda

PAGE_LIMIT = 50
"""Entries of a page. AWS's limit for most listings."""

_T = TypeVar("_T")


class Edge:
    """The service, and what its operations have in common."""

    def __init__(self, lambda_: Lambda) -> None:
        self.lambda_ = lambda_
        self.account = lambda_.account

    # ── permissions ──────────────────────────────────────────────────────────────────────────────────────────────

    def on_function(self, action: str) -> Permissions:
        """Return the permission that an action on a function (or the version or alias that is named) needs."""

        def permissions(request: Request) -> Iterable[Permission]:
            named = self.reference(request)
            yield Permission(f"lambda:{action}", function_arn(self.account, named.name, named.qualifier))

        return permissions

    def on_role(self, action: str) -> Permissions:
        """Return what an action needs that may give a function a role: also to pass that role."""
        on_function = self.on_function(action)

        def permissions(request: Request) -> Iterable[Permission]:
            yield from on_function(request)
            if request.get("Role"):
                yield Permission("iam:PassRole", request["Role"], {"iam:PassedToService": "lambda.amazonaws.com"})
            for layer in request.get("Layers") or ():
                yield Permission("lambda:GetLayerVersion", layer)
            if request.get("Tags") and action == "CreateFunction":
                yield Permission("lambda:TagResource", function_arn(self.account, self.reference(request).name))

        return permissions

    @staticmethod
    def on_all(action: str) -> Permissions:
        """Return the permission that a listing needs."""
        return lambda request: [Permission(f"lambda:{action}", "*")]

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────

    def reference(self, request: Request) -> Reference:
        """Return the function, version or alias that a request names."""
        return reference(self.account, str(request.get("FunctionName", "")), request.get("Qualifier"))

    def unqualified(self, request: Request) -> str:
        """Return the name of the function; refuse a version or an alias."""
        named = self.reference(request)
        if not named.is_latest:
            raise InvalidParameterValueError(
                "This operation is permitted on Lambda functions only. Aliases and versions do not support this "
                "operation. Please specify either a function name or an unqualified function ARN.",
                Type="User",
            )
        return named.name

    def latest(self, reader: Reader, name: str) -> FunctionConfiguration:
        """Return $LATEST; ResourceNotFoundError when there is no such function."""
        return self.lambda_.function(reader, Reference(name))

    def latest_at(self, reader: Reader, request: Request) -> FunctionConfiguration:
        """Return $LATEST of the function if it is at the revision that the request asks for."""
        configuration = self.latest(reader, self.unqualified(request))
        functions.check_revision(request.get("RevisionId"), configuration.revision_id)
        return configuration

    def known(self, reader: Reader, named: Reference) -> Reference:
        """Return the reference; ResourceNotFoundError when the function, version or alias does not exist."""
        self.lambda_.function(reader, named)
        return named

    def arn(self, named: Reference) -> str:
        """Return the ARN as it was named."""
        return function_arn(self.account, named.name, named.qualifier)

    # ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def describe(self, configuration: FunctionConfiguration, qualifier: str | None = None) -> Response:
        """Return a FunctionConfiguration; its ARN ends with the qualifier, by default a published version's number."""
        if qualifier is None:
            qualifier = "" if configuration.version == LATEST else configuration.version
        response: Response = {
            "FunctionName": configuration.name,
            "FunctionArn": function_arn(self.account, configuration.name, qualifier),
            "Runtime": configuration.runtime,
            "Role": configuration.role_arn,
            "Handler": configuration.handler,
            "CodeSize": configuration.code_size_bytes,
            "Description": configuration.description,
            "Timeout": configuration.timeout_s,
            "MemorySize": configuration.memory_size_mb,
            "LastModified": iso(configuration.modified_at_ms),
            "CodeSha256": code_sha256(configuration.code_sha256),
            "Version": configuration.version,
            "TracingConfig": {"Mode": "PassThrough"},
            "RevisionId": configuration.revision_id,
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "PackageType": "Zip",
            "Architectures": list(configuration.architectures),
            "EphemeralStorage": {"Size": configuration.ephemeral_storage_mb},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "LoggingConfig": {"LogFormat": "Text", "LogGroup": configuration.log_group_name},
        }
        if configuration.environment:
            response["Environment"] = {"Variables": dict(configuration.environment)}
        if configuration.dead_letter_arn:
            response["DeadLetterConfig"] = {"TargetArn": configuration.dead_letter_arn}
        if configuration.layers:
            pairs = zip(configuration.layers, configuration.layer_sizes_bytes, strict=True)
            response["Layers"] = [{"Arn": arn, "CodeSize": size_bytes} for arn, size_bytes in pairs]
        return response


def code_sha256(digest: str) -> str:
    """Return a digest in hex as AWS shows it: in base64."""
    return base64.b64encode(bytes.fromhex(digest)).decode()


def iso(at_ms: int) -> str:
    """Return a time as Lambda writes it: `2026-11-23T20:00:00.000+0000`."""
    return clock.iso(at_ms).replace("Z", "+0000")


def timestamp(at_ms: int) -> datetime:
    """Return a time for a member of type timestamp: whole seconds, as AWS."""
    return clock.from_ms(at_ms - at_ms % 1000)


def page(
    request: Request, member: str, limit: int, found: Callable[[int], Sequence[_T]], shape: Callable[[_T], object],
    marker: Callable[[_T], object],
) -> Response:  # fmt: skip
    """Return one page: `found(n)` gives the next n entries, `marker` is what the page after the last one begins with."""
    asked = request.get("MaxItems")
    if asked is not None and asked < 1:
        refuse(asked, "maxItems", "have value greater than or equal to 1")
    size = min(asked or limit, limit)
    entries = found(size + 1)
    response: Response = {member: [shape(entry) for entry in entries[:size]]}
    if len(entries) > size:
        response["NextMarker"] = str(marker(entries[size - 1]))
    return response


__all__ = ["Edge", "code_sha256", "iso", "page", "timestamp"]
