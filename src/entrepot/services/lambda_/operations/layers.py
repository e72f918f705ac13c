"""Layers: publishing, reading and deleting their versions."""

import asyncio
from collections.abc import Iterable

from entrepot.database import Reader, Transaction
from entrepot.operations import (
    AsyncOperation,
    Call,
    Operation,
    Permission,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.lambda_ import code, layers
from entrepot.services.lambda_.configuration import refuse
from entrepot.services.lambda_.errors import InvalidParameterValueError
from entrepot.services.lambda_.layers import LayerVersion
from entrepot.services.lambda_.operations.edge import PAGE_LIMIT, Edge, code_sha256, iso, page

COMPATIBLE_RUNTIMES_LIMIT = 15
"""Runtimes that a layer version may name. AWS's limit."""

_NEWEST = 10**18


class Layers:
    """The operations, each named as AWS's in snake case."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._lambda = edge.lambda_

    def operations(self) -> list[Operation]:
        get = self._on_version("GetLayerVersion")
        return [
            AsyncOperation("PublishLayerVersion", self._on_layer("PublishLayerVersion"), self.publish_layer_version),
            ReadOperation("GetLayerVersion", get, self.get_layer_version),
            ReadOperation(
                "GetLayerVersionByArn",
                lambda request: [Permission("lambda:GetLayerVersion", str(request.get("Arn", "")))],
                self.get_layer_version_by_arn,
            ),
            ReadOperation("ListLayers", self._edge.on_all("ListLayers"), self.list_layers),
            ReadOperation("ListLayerVersions", self._on_layer("ListLayerVersions"), self.list_layer_versions),
            WriteOperation("DeleteLayerVersion", self._on_version("DeleteLayerVersion"), self.delete_layer_version),
        ]

    def _on_layer(self, action: str) -> Permissions:
        def permissions(request: Request) -> Iterable[Permission]:
            yield Permission(f"lambda:{action}", layers.layer_arn(self._edge.account, self._name(request)))

        return permissions

    def _on_version(self, action: str) -> Permissions:
        def permissions(request: Request) -> Iterable[Permission]:
            arn = layers.layer_arn(self._edge.account, self._name(request), int(request.get("VersionNumber") or 0))
            yield Permission(f"lambda:{action}", arn)

        return permissions

    def _name(self, request: Request) -> str:
        return layers.layer_name(self._edge.account, str(request.get("LayerName", "")))

    async def publish_layer_version(self, request: Request, call: Call) -> Response:
        """Publish a version of a layer, from an archive in the request or in a bucket."""
        name, content = self._name(request), request.get("Content") or {}
        runtimes, architectures = request.get("CompatibleRuntimes") or [], request.get("CompatibleArchitectures") or []
        if len(runtimes) > COMPATIBLE_RUNTIMES_LIMIT:
            refuse(runtimes, "compatibleRuntimes", "have length less than or equal to 15")
        data, limit_bytes = content.get("ZipFile"), code.ZIP_LIMIT_BYTES
        if bool(data) == bool(content.get("S3Bucket")) or (content.get("S3Bucket") and not content.get("S3Key")):
            raise InvalidParameterValueError("Please provide a source for layer content.", Type="User")
        if not data:
            limit_bytes = code.CODE_LIMIT_BYTES
            data = await self._lambda.neighbours.read_object(
                call, content["S3Bucket"], content["S3Key"], content.get("S3ObjectVersion"), limit_bytes
            )
        sha256, size_bytes = await asyncio.get_running_loop().run_in_executor(
            None, code.install_zip, bytes(data), self._lambda.code, limit_bytes
        )
        published = await self._lambda.database.write(
            lambda tx: layers.publish(
                tx,
                name,
                sha256,
                size_bytes,
                description=request.get("Description") or "",
                license_info=request.get("LicenseInfo") or "",
                runtimes=runtimes,
                architectures=architectures,
            )
        )
        return self._with_content(published)

    def get_layer_version(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return a version of a layer with the place of its content."""
        return self._with_content(self._known(reader, self._name(request), request["VersionNumber"]))

    def get_layer_version_by_arn(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return a version of a layer by its ARN."""
        return self._with_content(self._known(reader, *layers.parse_version_arn(self._edge.account, request["Arn"])))

    @staticmethod
    def _known(reader: Reader, name: str, version: int) -> LayerVersion:
        if version < 1:
            raise InvalidParameterValueError("Layer Version Cannot be less than 1.", Type="User")
        layer = layers.find(reader, name, version)
        if layer is None:
            raise layers.no_such_layer()
        return layer

    def list_layers(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return layers by name, each with its newest version that suits."""
        return page(
            request,
            "Layers",
            PAGE_LIMIT,
            lambda limit: self._suiting(
                request, layers.listing(reader, after=str(request.get("Marker") or ""), limit=limit)
            ),
            lambda layer: {
                "LayerName": layer.name,
                "LayerArn": layers.layer_arn(self._edge.account, layer.name),
                "LatestMatchingVersion": self._shape(layer),
            },
            lambda layer: layer.name,
        )

    def list_layer_versions(self, reader: Reader, request: Request, call: Call) -> Response:
        """Return the versions of a layer that suit, newest first."""
        name, marker = self._name(request), str(request.get("Marker") or "")
        before = int(marker) if marker.isdigit() else _NEWEST
        return page(
            request,
            "LayerVersions",
            PAGE_LIMIT,
            lambda limit: self._suiting(request, layers.versions(reader, name, before=before, limit=limit)),
            self._shape,
            lambda layer: layer.version,
        )

    @staticmethod
    def _suiting(request: Request, found: list[LayerVersion]) -> list[LayerVersion]:
        runtime, architecture = request.get("CompatibleRuntime"), request.get("CompatibleArchitecture")
        return [
            layer
            for layer in found
            if runtime in (None, *layer.runtimes) and architecture in (None, *layer.architectures)
        ]

    def delete_layer_version(self, tx: Transaction, request: Request, call: Call) -> Response:
        """Delete a version of a layer; functions that use it keep it."""
        layers.delete(tx, self._name(request), request["VersionNumber"])
        return {}

    def _with_content(self, layer: LayerVersion) -> Response:
        content = {
            "Location": (self._lambda.code / layer.code_sha256).as_uri(),
            "CodeSha256": code_sha256(layer.code_sha256),
            "CodeSize": layer.code_size_bytes,
        }
        arn = layers.layer_arn(self._edge.account, layer.name)
        return {"Content": content, "LayerArn": arn, **self._shape(layer)}

    def _shape(self, layer: LayerVersion) -> Response:
        response: Response = {
            "LayerVersionArn": layers.layer_arn(self._edge.account, layer.name, layer.version),
            "Version": layer.version,
            "Description": layer.description,
            "CreatedDate": iso(layer.created_at_ms),
        }
        if layer.runtimes:
            response["CompatibleRuntimes"] = list(layer.runtimes)
        if layer.architectures:
            response["CompatibleArchitectures"] = list(layer.architectures)
        if layer.license_info:
            response["LicenseInfo"] = layer.license_info
        return response
