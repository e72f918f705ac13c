"""Operations on buckets."""

import base64

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, Permission, ReadOperation, Request, Response, WriteOperation
from entrepot.services.s3 import buckets, multipart
from entrepot.services.s3.errors import (
    BucketAlreadyOwnedByYouError,
    IllegalLocationConstraintError,
    MalformedXmlError,
    NoSuchBucketError,
    NotFoundError,
    NotImplementedHereError,
)
from entrepot.services.s3.operations.parsing import accept, bucket_permission, number, owner, required
from entrepot.services.s3.service import S3

BUCKETS_LIMIT = 10_000
"""AWS's highest MaxBuckets."""


def operations(service: S3) -> list[Operation]:
    """Return the operations on buckets."""
    return [*_buckets(service), *_configuration(service)]


def _buckets(service: S3) -> list[Operation]:
    account = service.account

    def create_bucket(tx: Transaction, request: Request, call: Call) -> Response:
        accept(request, account, "CreateBucketConfiguration", "ObjectOwnership", "ACL")
        name = required(request, "Bucket")
        configuration = request.get("CreateBucketConfiguration") or {}
        region = configuration.get("LocationConstraint") or "us-east-1"
        if region != account.region and not (region == "EU" and account.region == "eu-west-1"):
            raise IllegalLocationConstraintError(
                f"The {region} location constraint is incompatible for the region specific endpoint this request was "
                f"sent to ({account.region})."
            )
        try:
            buckets.create(tx, name)
        except BucketAlreadyOwnedByYouError:
            if account.region != "us-east-1":  # Which answers 200 again, as ever.
                raise
        return {"Location": f"/{name}"}

    def delete_bucket(tx: Transaction, request: Request, call: Call) -> Response:
        accept(request, account)
        bucket = buckets.get(tx, required(request, "Bucket"))
        buckets.delete(tx, bucket.name)
        multipart.remove_all(tx, bucket.bucket_id)
        return {}

    def head_bucket(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account)
        try:
            bucket = buckets.get(reader, required(request, "Bucket"))
        except NoSuchBucketError:
            raise NotFoundError from None
        return {"BucketRegion": account.region, "BucketArn": account.s3_arn(bucket.name)}

    def list_buckets(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account, "MaxBuckets", "ContinuationToken", "Prefix", "BucketRegion")
        limit = number(request, "MaxBuckets", BUCKETS_LIMIT, 1, BUCKETS_LIMIT)
        token = request.get("ContinuationToken")
        after = base64.b64decode(token).decode() if token else ""
        found = buckets.list_all(reader, prefix=request.get("Prefix") or "", after=after, limit=limit + 1)
        response: Response = {
            "Buckets": [
                {"Name": one.name, "CreationDate": clock.from_ms(one.created_at_ms), "BucketRegion": account.region}
                for one in found[:limit]
            ],
            "Owner": owner(account),
        }
        if len(found) > limit:
            response["ContinuationToken"] = base64.b64encode(found[limit - 1].name.encode()).decode()
        return response

    def get_bucket_location(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account)
        buckets.get(reader, required(request, "Bucket"))
        return {} if account.region == "us-east-1" else {"LocationConstraint": account.region}

    return [
        WriteOperation("CreateBucket", bucket_permission(account, "s3:CreateBucket"), create_bucket),
        WriteOperation("DeleteBucket", bucket_permission(account, "s3:DeleteBucket"), delete_bucket),
        ReadOperation("HeadBucket", bucket_permission(account, "s3:ListBucket"), head_bucket),
        ReadOperation(
            "ListBuckets", lambda request: (Permission("s3:ListAllMyBuckets", account.s3_arn("*")),), list_buckets
        ),
        ReadOperation("GetBucketLocation", bucket_permission(account, "s3:GetBucketLocation"), get_bucket_location),
    ]


def _configuration(service: S3) -> list[Operation]:
    account = service.account

    def get_bucket_versioning(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account)
        bucket = buckets.get(reader, required(request, "Bucket"))
        return {"Status": bucket.versioning} if bucket.versioning else {}

    def put_bucket_versioning(tx: Transaction, request: Request, call: Call) -> Response:
        accept(request, account, "VersioningConfiguration", "ContentMD5", "ChecksumAlgorithm")
        configuration = request.get("VersioningConfiguration") or {}
        if configuration.get("MFADelete") == "Enabled":
            raise NotImplementedHereError("MFA delete is not implemented.", Header="MFADelete")
        status = configuration.get("Status")
        if status not in ("Enabled", "Suspended"):
            raise MalformedXmlError
        buckets.set_versioning(tx, required(request, "Bucket"), status)
        return {}

    def get_bucket_notification(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account)
        bucket = buckets.get(reader, required(request, "Bucket"))
        return {"EventBridgeConfiguration": {}} if bucket.event_bridge else {}

    def put_bucket_notification(tx: Transaction, request: Request, call: Call) -> Response:
        accept(request, account, "NotificationConfiguration", "SkipDestinationValidation")
        configuration = request.get("NotificationConfiguration") or {}
        for member in ("TopicConfigurations", "QueueConfigurations", "LambdaFunctionConfigurations"):
            if configuration.get(member):
                raise NotImplementedHereError(
                    f"{member} is not implemented: send the bucket's events to EventBridge "
                    "(EventBridgeConfiguration) and write a rule.",
                    Header=member,
                )
        enabled = configuration.get("EventBridgeConfiguration") is not None
        buckets.set_event_bridge(tx, required(request, "Bucket"), enabled=enabled)
        return {}

    return [
        ReadOperation(
            "GetBucketVersioning", bucket_permission(account, "s3:GetBucketVersioning"), get_bucket_versioning
        ),
        WriteOperation(
            "PutBucketVersioning", bucket_permission(account, "s3:PutBucketVersioning"), put_bucket_versioning
        ),
        ReadOperation(
            "GetBucketNotificationConfiguration",
            bucket_permission(account, "s3:GetBucketNotification"),
            get_bucket_notification,
        ),
        WriteOperation(
            "PutBucketNotificationConfiguration",
            bucket_permission(account, "s3:PutBucketNotification"),
            put_bucket_notification,
        ),
    ]
