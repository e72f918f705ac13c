"""Operations on objects: put, get, head, copy, delete."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.errors import AccessDeniedError, AwsError
from entrepot.operations import (
    AsyncOperation,
    Call,
    Operation,
    Permission,
    ReadOperation,
    Request,
    Require,
    Response,
    WriteOperation,
)
from entrepot.services.s3 import buckets
from entrepot.services.s3.errors import (
    InvalidRangeError,
    InvalidRequestError,
    MalformedXmlError,
    NoSuchBucketError,
    NoSuchKeyError,
    NoSuchVersionError,
    NotFoundError,
    NotImplementedHereError,
)
from entrepot.services.s3.objects import Attributes, ObjectVersion, sequence_of
from entrepot.services.s3.operations.parsing import (
    ATTRIBUTE_MEMBERS,
    CHECKSUM_MEMBERS,
    accept,
    attributes_of,
    check_read_conditions,
    copy_permissions,
    describe,
    find_source,
    object_permission,
    quoted,
    range_of,
    required,
    unquoted,
    version_member,
    write_conditions,
)
from entrepot.services.s3.operations.receiving import discard, receive
from entrepot.services.s3.service import S3
from entrepot.services.s3.versions import check_key

DELETE_LIMIT = 1000
"""AWS's limit for the keys of one DeleteObjects."""

_READ_MEMBERS = (
    "VersionId",
    "Range",
    "PartNumber",
    "ChecksumMode",
    "IfMatch",
    "IfNoneMatch",
    "IfModifiedSince",
    "IfUnmodifiedSince",
    "ResponseCacheControl",
    "ResponseContentDisposition",
    "ResponseContentEncoding",
    "ResponseContentLanguage",
    "ResponseContentType",
    "ResponseExpires",
)
_OVERRIDES = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Expires")


def operations(service: S3, require: Require) -> list[Operation]:
    """Return the operations on objects; `require` decides about each key of DeleteObjects."""
    return [*_writing(service), *_reading(service), *_deleting(service, require)]


# ── put and copy ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _writing(service: S3) -> list[Operation]:
    account = service.account

    async def put_object(request: Request, call: Call) -> Response:
        accept(
            request,
            account,
            *ATTRIBUTE_MEMBERS,
            *CHECKSUM_MEMBERS,
            "Body",
            "ContentLength",
            "ContentMD5",
            "IfMatch",
            "IfNoneMatch",
        )
        bucket, key = required(request, "Bucket"), required(request, "Key")
        check_key(key)
        attributes_of(request)  # Refuse before the body is read.
        conditions = write_conditions(request)

        def check(reader: Reader) -> None:
            service.check_conditions(reader, buckets.get(reader, bucket), key, **conditions)

        await service.database.read(check)
        received = await receive(service, request)
        attributes = attributes_of(request, received.members())

        def publish(tx: Transaction) -> ObjectVersion:
            return service.publish(
                tx, bucket, key, received.blob, call, etag=received.md5_hex, attributes=attributes, **conditions
            )

        try:
            version = await service.database.write(publish)
        except AwsError:
            await discard(service, received.blob)
            raise
        response = {"ETag": quoted(version.etag), **received.members(), **version_member(version)}
        if received.algorithm:
            response["ChecksumType"] = "FULL_OBJECT"
        return response

    def copy_object(tx: Transaction, request: Request, call: Call) -> Response:
        accept(
            request,
            account,
            *ATTRIBUTE_MEMBERS,
            "CopySource",
            "MetadataDirective",
            "TaggingDirective",
            "CopySourceIfMatch",
            "CopySourceIfNoneMatch",
            "CopySourceIfModifiedSince",
            "CopySourceIfUnmodifiedSince",
            "ExpectedSourceBucketOwner",
            "IfMatch",
            "IfNoneMatch",
        )
        source = find_source(service, tx, request)
        attributes = _copied_attributes(request, source)
        version = service.copy_object(
            tx,
            source,
            required(request, "Bucket"),
            required(request, "Key"),
            call,
            attributes=attributes,
            **write_conditions(request),
        )
        response = {
            "CopyObjectResult": {
                "ETag": quoted(version.etag),
                "LastModified": clock.from_ms(version.modified_at_ms),
                **version.attributes.checksums,
            },
            **version_member(version),
        }
        if source.version_id is not None:
            response["CopySourceVersionId"] = source.version_id
        return response

    return [
        AsyncOperation("PutObject", object_permission(account, "s3:PutObject"), put_object),
        WriteOperation("CopyObject", copy_permissions(account), copy_object),
    ]


def _copied_attributes(request: Request, source: ObjectVersion) -> Attributes | None:
    """Return the new version's attributes, None where it keeps all of the source's."""
    metadata, tagging = request.get("MetadataDirective") or "COPY", request.get("TaggingDirective") or "COPY"
    for directive, name in ((metadata, "metadata"), (tagging, "tagging")):
        if directive not in ("COPY", "REPLACE"):
            raise InvalidRequestError(f"Unknown {name} directive.")
    if metadata == "COPY" and tagging == "COPY":
        return None
    given, kept = attributes_of(request), source.attributes
    return replace(
        given if metadata == "REPLACE" else kept,
        tags=given.tags if tagging == "REPLACE" else kept.tags,
        checksums=kept.checksums,
        part_sizes=kept.part_sizes,
    )


# ── get and head ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _reading(service: S3) -> list[Operation]:
    account = service.account
    permission = object_permission(account, "s3:GetObject", "s3:GetObjectVersion")

    async def get_object(request: Request, call: Call) -> Response:
        accept(request, account, *_READ_MEMBERS)
        version = await service.database.read(lambda reader: _find(service, reader, request, content=True))
        check_read_conditions(request, version)
        response, offset, length = _described(request, version)
        if version.inline is not None:
            response["Body"] = version.inline[offset : offset + length]
        else:
            response["Body"] = _body(service, version, offset, length)
        return response

    def head_object(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account, *_READ_MEMBERS)
        try:
            version = _find(service, reader, request)
        except (NoSuchKeyError, NoSuchBucketError, NoSuchVersionError):
            raise NotFoundError from None
        check_read_conditions(request, version)
        return _described(request, version)[0]

    def get_object_attributes(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account, "VersionId", "ObjectAttributes", "MaxParts", "PartNumberMarker")
        version = _find(service, reader, request)
        wanted = required(request, "ObjectAttributes")
        response: Response = {
            "LastModified": clock.from_ms(version.modified_at_ms),
            **version_member(version),
        }
        if "ETag" in wanted:
            response["ETag"] = version.etag
        if "ObjectSize" in wanted:
            response["ObjectSize"] = version.size_bytes
        if "StorageClass" in wanted:
            response["StorageClass"] = "STANDARD"
        if "Checksum" in wanted and version.attributes.checksums:
            response["Checksum"] = dict(version.attributes.checksums)
        if "ObjectParts" in wanted and version.attributes.part_sizes:
            response["ObjectParts"] = {"TotalPartsCount": len(version.attributes.part_sizes)}
        return response

    def attributes_permission(request: Request) -> Iterable[Permission]:
        suffix = "" if request.get("VersionId") is None else "Version"
        resource = account.s3_arn(str(request.get("Bucket", "")), str(request.get("Key", "")))
        return (
            Permission(f"s3:GetObject{suffix}", resource),
            Permission(f"s3:GetObject{suffix}Attributes", resource),
        )

    return [
        AsyncOperation("GetObject", permission, get_object),
        ReadOperation("HeadObject", permission, head_object),
        ReadOperation("GetObjectAttributes", attributes_permission, get_object_attributes),
    ]


def _find(service: S3, reader: Reader, request: Request, *, content: bool = False) -> ObjectVersion:
    bucket, key = required(request, "Bucket"), required(request, "Key")
    return service.get(reader, bucket, key, version_id=request.get("VersionId"), content=content)


def _described(request: Request, version: ObjectVersion) -> tuple[Response, int, int]:
    """Return the response without its body, and which bytes are asked for."""
    response = describe(version)
    span = _span(request, version)
    offset, length = (0, version.size_bytes) if span is None else span
    response["ContentLength"] = length
    if span is not None:
        response["ContentRange"] = f"bytes {offset}-{offset + length - 1}/{version.size_bytes}"
    elif request.get("ChecksumMode") == "ENABLED" and version.attributes.checksums:
        response.update(version.attributes.checksums)
        composite = any("-" in value for value in version.attributes.checksums.values())
        response["ChecksumType"] = "COMPOSITE" if composite else "FULL_OBJECT"
    for member in _OVERRIDES:
        override = request.get(f"Response{member}")
        if override is not None:
            response[member] = override
    return response, offset, length


def _span(request: Request, version: ObjectVersion) -> tuple[int, int] | None:
    part = request.get("PartNumber")
    if part is None:
        return range_of(request.get("Range"), version.size_bytes)
    if request.get("Range") is not None:
        raise InvalidRequestError("Cannot specify both Range header and partNumber query parameter")
    sizes = version.attributes.part_sizes or (version.size_bytes,)
    if not 1 <= part <= len(sizes):
        raise InvalidRangeError(f"partNumber={part}", version.size_bytes)
    return (sum(sizes[: part - 1]), sizes[part - 1]) if sizes[part - 1] else None


def _body(service: S3, version: ObjectVersion, offset: int, length: int) -> AsyncIterator[bytes]:
    return service.stream(version, offset, length)


# ── delete ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _deleting(service: S3, require: Require) -> list[Operation]:
    account = service.account

    def delete_object(tx: Transaction, request: Request, call: Call) -> Response:
        accept(request, account, "VersionId", "IfMatch")
        bucket, key = required(request, "Bucket"), required(request, "Key")
        if request.get("IfMatch") is not None:
            service.check_conditions(
                tx, buckets.get(tx, bucket), key, if_none_match=False, if_match=unquoted(request["IfMatch"])
            )
        return _delete(service, tx, bucket, key, request.get("VersionId"), call)

    def delete_objects(tx: Transaction, request: Request, call: Call) -> Response:
        accept(request, account, "Delete", *CHECKSUM_MEMBERS, "ContentMD5")
        document = required(request, "Delete")
        named = document.get("Objects") or []
        if not 1 <= len(named) <= DELETE_LIMIT:
            raise MalformedXmlError
        bucket = buckets.get(tx, required(request, "Bucket")).name
        deleted, errors = [], []
        for one in named:
            entry = {name: one[name] for name in ("Key", "VersionId") if one.get(name) is not None}
            try:
                if any(one.get(name) is not None for name in ("ETag", "LastModifiedTime", "Size")):
                    raise NotImplementedHereError("Conditional deletion is not implemented in DeleteObjects.")
                key, version_id = required(one, "Key"), one.get("VersionId")
                action = "s3:DeleteObject" if version_id is None else "s3:DeleteObjectVersion"
                require(Permission(action, account.s3_arn(bucket, key)), call)
                done = _delete(service, tx, bucket, key, version_id, call)
            except AccessDeniedError as error:
                errors.append({**entry, "Code": "AccessDenied", "Message": error.message})
                continue
            except AwsError as error:
                errors.append({**entry, "Code": error.code, "Message": error.message})
                continue
            if done.get("DeleteMarker"):
                entry["DeleteMarker"] = True
                if (marker := done.get("VersionId")) is not None:
                    entry["DeleteMarkerVersionId"] = marker
            deleted.append(entry)
        response: Response = {} if document.get("Quiet") else {"Deleted": deleted}
        return {**response, "Errors": errors} if errors else response

    return [
        WriteOperation(
            "DeleteObject", object_permission(account, "s3:DeleteObject", "s3:DeleteObjectVersion"), delete_object
        ),
        # AWS decides about each key by itself, and so does `delete_objects`.
        WriteOperation("DeleteObjects", lambda request: (), delete_objects),
    ]


def _delete(service: S3, tx: Transaction, bucket: str, key: str, version_id: str | None, call: Call) -> Response:
    """Delete an object or version; return DeleteObject's response."""
    if version_id is not None:
        if version_id != "null" and sequence_of(version_id) is None:
            raise InvalidRequestError("Invalid version id specified")
        version = service.head(tx, bucket, key, version_id=version_id)
        service.delete_object(tx, bucket, key, call, version_id=version_id)
        response: Response = {"VersionId": version_id}
        return {**response, "DeleteMarker": True} if version is not None and version.is_delete_marker else response
    deleted = service.delete_object(tx, bucket, key, call)
    if deleted is None or deleted.deletion_type != "Delete Marker Created":
        return {}
    return {"DeleteMarker": True, "VersionId": deleted.version_id or "null"}
