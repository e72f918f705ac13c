"""The event of a file, rebuilt from its record for a redrive: the same id and detail as when it arrived."""

from typing import Any

from entrepot import clock
from entrepot.arns import Account
from entrepot.services.files.record import FileRecord


def object_created_event(account: Account, file: FileRecord) -> dict[str, Any]:
    """Return the `Object Created` event in AWS's shape.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
    """
    described: dict[str, Any] = {"key": file.key, "size": file.size_bytes, "etag": file.etag}
    if file.version_id is not None:
        described["version-id"] = file.version_id
    described["sequencer"] = f"{file.sequence:018X}"
    bucket = file.pipeline.source_bucket
    return {
        "version": "0",
        "id": file.event_id,
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": account.account_id,
        "time": clock.iso(file.uploaded_at_ms)[:19] + "Z",
        "region": account.region,
        "resources": [account.s3_arn(bucket)],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket},
            "object": described,
            "request-id": file.request_id,
            "requester": account.account_id,
            "source-ip-address": file.source_ip,
            "reason": file.reason,
        },
    }
