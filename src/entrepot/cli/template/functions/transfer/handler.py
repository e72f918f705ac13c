"""Copies one file from the source bucket to the destination bucket under the same key, and accounts for it.

This is plain AWS Lambda code: it runs unchanged on AWS.
"""

from datetime import UTC, datetime

import boto3

s3 = boto3.client("s3")
table = boto3.resource("dynamodb").Table("FileTransferMetadata")


def now():
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lambda_handler(event, context):
    """`event`: file_id, source_bucket, destination_bucket, key. Raises what S3 raises; the state machine retries."""
    file_id = event["file_id"]
    source_bucket, destination_bucket, key = event["source_bucket"], event["destination_bucket"], event["key"]

    table.update_item(
        Key={"file_id": file_id},
        UpdateExpression="SET #s = :s, #k = :k, source_bucket = :sb, destination_bucket = :db REMOVE error_message",
        ExpressionAttributeNames={"#s": "status", "#k": "key"},
        ExpressionAttributeValues={
            ":s": "transferring",
            ":k": key,
            ":sb": source_bucket,
            ":db": destination_bucket,
        },
    )
    try:
        s3.copy_object(Bucket=destination_bucket, Key=key, CopySource={"Bucket": source_bucket, "Key": key})
    except Exception as error:
        table.update_item(
            Key={"file_id": file_id},
            UpdateExpression="SET error_message = :e, #s = :s",
            ExpressionAttributeNames={"#s": "status"},
            ExpressionAttributeValues={":e": str(error), ":s": "failed"},
        )
        raise
    table.update_item(
        Key={"file_id": file_id},
        UpdateExpression="SET transfer_timestamp = :t, #s = :s",
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={":t": now(), ":s": "transferred"},
    )
    return {"status": "Success", "message": f"File {key} copied successfully", "file_id": file_id}
