"""The `detail` of S3's events in EventBridge, in AWS's exact shape.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
"""

from typing import Any

from entrepot.operations import Call
from entrepot.services.s3.objects import ObjectCreated, ObjectDeleted

OBJECT_CREATED = "Object Created"
OBJECT_DELETED = "Object Deleted"
SOURCE = "aws.s3"


def detail_type(event: ObjectCreated | ObjectDeleted) -> str:
    """Return the event's `detail-type`."""
    return OBJECT_CREATED if isinstance(event, ObjectCreated) else OBJECT_DELETED


def event_detail(event: ObjectCreated | ObjectDeleted, call: Call) -> dict[str, Any]:
    """Return the event's `detail`. The event's `source` is `aws.s3`, its `resources` the bucket's ARN."""
    described: dict[str, Any] = {"key": event.key}
    if isinstance(event, ObjectCreated):
        described["size"] = event.size_bytes
        described["etag"] = event.etag
    if event.version_id is not None:
        described["version-id"] = event.version_id
    described["sequencer"] = event.sequencer
    detail: dict[str, Any] = {
        "version": "0",
        "bucket": {"name": event.bucket},
        "object": described,
        "request-id": call.request_id,
        "requester": _requester(call),
        "source-ip-address": call.source_ip,
        "reason": event.reason,
    }
    if isinstance(event, ObjectDeleted):
        detail["deletion-type"] = event.deletion_type
    return detail


def _requester(call: Call) -> str:
    """Return the account id of who asked; a service by its name, as AWS has it (`transfer.amazonaws.com`)."""
    if call.principal.kind == "service":
        return call.principal.name
    parts = call.principal.arn.split(":")
    return parts[4] if len(parts) > 4 and parts[4] else call.principal.name
