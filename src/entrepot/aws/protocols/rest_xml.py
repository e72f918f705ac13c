"""restXml, as S3 speaks it.

Source: https://smithy.io/2.0/aws/protocols/aws-restxml-protocol.html and S3's API reference for the names of root elements.
"""

from collections.abc import Mapping
from typing import Any

from botocore.model import OperationModel, ServiceModel

from entrepot.aws.errors import MalformedXmlError
from entrepot.aws.http import HttpResponse
from entrepot.aws.protocols import Incoming
from entrepot.aws.protocols.rest import RestInput, RestOutput
from entrepot.aws.protocols.xml_body import XmlReaders, XmlWriters, escape, local_name, parse
from entrepot.errors import AwsError

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

_ROOTS = {
    "ListBuckets": "ListAllMyBucketsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListParts": "ListPartsResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketAcl": "AccessControlPolicy",
    "GetObjectAcl": "AccessControlPolicy",
    "GetBucketCors": "CORSConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketTagging": "Tagging",
    "GetObjectTagging": "Tagging",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketWebsite": "WebsiteConfiguration",
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetObjectAttributes": "GetObjectAttributesResponse",
}
"""Names of root elements, which the models do not carry but clients other than botocore look at."""


class RestXml:
    """restXml for one service."""

    def __init__(self, model: ServiceModel) -> None:
        self._readers = XmlReaders()
        self._writers = XmlWriters()
        self._inputs: dict[str, RestInput] = {}
        self._outputs: dict[str, RestOutput] = {}

    def read(self, operation: OperationModel, incoming: Incoming) -> dict[str, Any]:
        """See WireProtocol."""
        layout = self._inputs.get(operation.name)
        if layout is None:
            layout = self._inputs[operation.name] = RestInput(operation)
        values = layout.read(incoming.request, incoming.labels, incoming.pairs)
        if layout.payload is None and not layout.body_members:
            return values
        member = layout.shape if layout.payload is None else layout.shape.members[layout.payload]
        body = incoming.body
        if member.type_name == "blob" or not isinstance(body, bytes):
            values[layout.payload or ""] = body
        elif member.type_name == "string":
            values[layout.payload or ""] = _text(body)
        elif body:
            value = self._read_root(member, body)
            if layout.payload is None:
                values.update(value)
            else:
                values[layout.payload] = value
        return values

    def _read_root(self, shape: Any, body: bytes) -> Any:
        root = parse(body)
        wanted = shape.serialization.get("name", shape.name)
        if local_name(root.tag) != wanted:
            raise MalformedXmlError(f"the root element is {local_name(root.tag)[:64]}, not {wanted}")
        return self._readers.reader(shape)(root)

    def write(self, operation: OperationModel, response: Mapping[str, Any], request_id: str) -> HttpResponse:
        """See WireProtocol."""
        layout = self._outputs.get(operation.name)
        if layout is None:
            layout = self._outputs[operation.name] = RestOutput(operation)
        headers = {"x-amz-request-id": request_id, "x-amz-id-2": request_id}
        status, rest = layout.write(response, headers)
        if "ContentRange" in response:
            status = 206
        if layout.payload is not None:
            member = layout.shape.members[layout.payload]
            value = rest.get(layout.payload)
            if member.type_name in ("blob", "string"):
                return HttpResponse(status, headers, value.encode() if isinstance(value, str) else value or b"")
            if value is None:
                return HttpResponse(status, headers)
            return self._document(status, headers, member, member.serialization.get("name", layout.payload), value)
        if not layout.body_members or status == 204 or operation.http["method"] == "HEAD":
            return HttpResponse(status, headers)
        if operation.name == "GetBucketLocation":
            return _location(headers, rest.get("LocationConstraint") or "")
        return self._document(
            status, headers, layout.shape, _ROOTS.get(operation.name, operation.name + "Result"), rest
        )

    def _document(self, status: int, headers: dict[str, str], shape: Any, root: str, value: Any) -> HttpResponse:
        out = [_DECLARATION, f'<{root} xmlns="{NAMESPACE}">']
        self._writers.members(shape)(out, value)
        out.append(f"</{root}>")
        headers["Content-Type"] = "application/xml"
        return HttpResponse(status, headers, "".join(out).encode("utf-8", "replace"))

    def fail(self, error: AwsError, code: str, status: int, request_id: str) -> HttpResponse:
        """See WireProtocol."""
        out = [_DECLARATION, f"<Error><Code>{escape(code)}</Code><Message>{escape(error.message)}</Message>"]
        for name, value in error.members.items():
            out.append(f"<{name}>{escape(str(value))}</{name}>")
        out.append(f"<RequestId>{request_id}</RequestId><HostId>{request_id}</HostId></Error>")
        headers = {"x-amz-request-id": request_id, "x-amz-id-2": request_id, "Content-Type": "application/xml"}
        return HttpResponse(status, headers, "".join(out).encode("utf-8", "replace"))


def _location(headers: dict[str, str], constraint: str) -> HttpResponse:
    headers["Content-Type"] = "application/xml"
    body = f'{_DECLARATION}<LocationConstraint xmlns="{NAMESPACE}">{escape(constraint)}</LocationConstraint>'
    return HttpResponse(200, headers, body.encode())


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise MalformedXmlError("the body is not UTF-8 text") from None
