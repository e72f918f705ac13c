"""Operations on the tags of objects."""

from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, ReadOperation, Request, Response, WriteOperation
from entrepot.services.s3.errors import MalformedXmlError
from entrepot.services.s3.objects import ObjectVersion
from entrepot.services.s3.operations.parsing import accept, checked_tags, object_permission, required, version_member
from entrepot.services.s3.service import S3


def operations(service: S3) -> list[Operation]:
    """Return the operations on tags."""
    account = service.account

    def find(reader: Reader, request: Request) -> ObjectVersion:
        bucket, key = required(request, "Bucket"), required(request, "Key")
        return service.get(reader, bucket, key, version_id=request.get("VersionId"))

    def get_object_tagging(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account, "VersionId")
        version = find(reader, request)
        tags = [{"Key": name, "Value": value} for name, value in sorted(version.attributes.tags.items())]
        return {"TagSet": tags, **version_member(version)}

    def put_object_tagging(tx: Transaction, request: Request, call: Call) -> Response:
        accept(request, account, "VersionId", "Tagging", "ContentMD5", "ChecksumAlgorithm")
        tag_set = (request.get("Tagging") or {}).get("TagSet")
        if tag_set is None or any("Key" not in tag or "Value" not in tag for tag in tag_set):
            raise MalformedXmlError
        pairs = [(tag["Key"], tag["Value"]) for tag in tag_set]
        tags = checked_tags(pairs, "Cannot provide multiple Tags with the same key")
        version = find(tx, request)
        service.set_tags(tx, version, tags)
        return version_member(version)

    def delete_object_tagging(tx: Transaction, request: Request, call: Call) -> Response:
        accept(request, account, "VersionId")
        version = find(tx, request)
        service.set_tags(tx, version, {})
        return version_member(version)

    return [
        ReadOperation(
            "GetObjectTagging",
            object_permission(account, "s3:GetObjectTagging", "s3:GetObjectVersionTagging"),
            get_object_tagging,
        ),
        WriteOperation(
            "PutObjectTagging",
            object_permission(account, "s3:PutObjectTagging", "s3:PutObjectVersionTagging"),
            put_object_tagging,
        ),
        WriteOperation(
            "DeleteObjectTagging",
            object_permission(account, "s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging"),
            delete_object_tagging,
        ),
    ]
