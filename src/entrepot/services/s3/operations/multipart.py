"""Operations of multipart uploads."""

from dataclasses import replace
from typing import Any

from entrepot import clock
from entrepot.blobs import Blob
from entrepot.database import Reader, Transaction
from entrepot.errors import AwsError
from entrepot.operations import (
    AsyncOperation,
    Call,
    Operation,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.s3 import buckets, checksums, multipart
from entrepot.services.s3.errors import (
    BadDigestError,
    InvalidArgumentError,
    InvalidRequestError,
    MalformedXmlError,
    NoSuchUploadError,
)
from entrepot.services.s3.multipart import NamedPart, Part, Upload
from entrepot.services.s3.objects import ObjectVersion
from entrepot.services.s3.operations.listings import KEYS_LIMIT, list_permission
from entrepot.services.s3.operations.parsing import (
    ATTRIBUTE_MEMBERS,
    CHECKSUM_MEMBERS,
    accept,
    attributes_of,
    copy_permissions,
    encoder,
    find_source,
    number,
    object_permission,
    owner,
    quoted,
    range_of,
    required,
    unquoted,
    version_member,
    write_conditions,
)
from entrepot.services.s3.operations.receiving import Received, discard, receive
from entrepot.services.s3.service import S3
from entrepot.services.s3.versions import check_key


def operations(service: S3) -> list[Operation]:
    """Return the operations of multipart uploads."""
    return [*_uploads(service), *_parts(service), *_completion(service)]


# ── uploads ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _uploads(service: S3) -> list[Operation]:
    account = service.account

    def create_multipart_upload(tx: Transaction, request: Request, call: Call) -> Response:
        accept(request, account, *ATTRIBUTE_MEMBERS, "ChecksumAlgorithm", "ChecksumType")
        bucket, key = required(request, "Bucket"), required(request, "Key")
        check_key(key)
        algorithm = str(request.get("ChecksumAlgorithm") or "")
        checksum_type = _checksum_type(algorithm, str(request.get("ChecksumType") or ""))
        upload = multipart.create(tx, bucket, key, attributes_of(request), algorithm, checksum_type)
        response: Response = {"Bucket": bucket, "Key": key, "UploadId": upload.upload_id}
        if algorithm:
            response.update(ChecksumAlgorithm=algorithm, ChecksumType=checksum_type)
        return response

    def abort_multipart_upload(tx: Transaction, request: Request, call: Call) -> Response:
        accept(request, account, "UploadId")
        multipart.remove(tx, _upload(tx, request).upload_id)
        return {}

    def list_multipart_uploads(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account, "Prefix", "KeyMarker", "UploadIdMarker", "MaxUploads", "EncodingType")
        encode = encoder(request)
        limit = number(request, "MaxUploads", KEYS_LIMIT, 1, KEYS_LIMIT)
        found = multipart.list_uploads(
            reader,
            required(request, "Bucket"),
            prefix=request.get("Prefix") or "",
            after_key=request.get("KeyMarker") or "",
            after_upload_id=request.get("UploadIdMarker") or "",
            limit=limit + 1,
        )
        response: Response = {
            "Bucket": request["Bucket"],
            "KeyMarker": encode(request.get("KeyMarker") or ""),
            "UploadIdMarker": request.get("UploadIdMarker") or "",
            "Prefix": encode(request.get("Prefix") or ""),
            "MaxUploads": limit,
            "IsTruncated": len(found) > limit,
            "Uploads": [
                {
                    "UploadId": one.upload_id,
                    "Key": encode(one.key),
                    "Initiated": clock.from_ms(one.initiated_at_ms),
                    "StorageClass": "STANDARD",
                    "Owner": owner(account),
                    "Initiator": owner(account),
                }
                for one in found[:limit]
            ],
        }
        if request.get("EncodingType"):
            response["EncodingType"] = request["EncodingType"]
        if len(found) > limit:
            response["NextKeyMarker"] = encode(found[limit - 1].key)
            response["NextUploadIdMarker"] = found[limit - 1].upload_id
        return response

    return [
        WriteOperation("CreateMultipartUpload", object_permission(account, "s3:PutObject"), create_multipart_upload),
        WriteOperation(
            "AbortMultipartUpload", object_permission(account, "s3:AbortMultipartUpload"), abort_multipart_upload
        ),
        ReadOperation(
            "ListMultipartUploads", list_permission(account, "s3:ListBucketMultipartUploads"), list_multipart_uploads
        ),
    ]


def _checksum_type(algorithm: str, wanted: str) -> str:
    if not algorithm:
        if wanted:
            raise InvalidRequestError("The x-amz-checksum-type header can only be used with x-amz-checksum-algorithm.")
        return ""
    if algorithm not in checksums.ALGORITHMS:
        raise InvalidRequestError(f"Checksum algorithm provided is unsupported here: {algorithm}")
    default = "FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE"
    chosen = wanted or default
    legal = (chosen == "FULL_OBJECT" and algorithm in checksums.FULL_OBJECT_ALGORITHMS) or (
        chosen == "COMPOSITE" and algorithm != "CRC64NVME"
    )
    if not legal:
        raise InvalidRequestError(
            f"The {chosen} checksum type cannot be used with the {algorithm.lower()} checksum algorithm."
        )
    return chosen


def _upload(reader: Reader, request: Request) -> Upload:
    return multipart.get(reader, required(request, "Bucket"), required(request, "Key"), required(request, "UploadId"))


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parts(service: S3) -> list[Operation]:
    account = service.account

    async def upload_part(request: Request, call: Call) -> Response:
        accept(request, account, *CHECKSUM_MEMBERS, "Body", "ContentLength", "ContentMD5", "PartNumber", "UploadId")
        part_number = _part_number(request)
        upload = await service.database.read(lambda reader: _upload(reader, request))
        if upload.checksum_algorithm and request.get("ChecksumAlgorithm") is None:
            request = {**request, "ChecksumAlgorithm": upload.checksum_algorithm} if not _given(request) else request
        received = await receive(service, request)
        await _record(service, request, part_number, received, _wanted_checksum(upload, received))
        return {"ETag": quoted(received.md5_hex), **received.members()}

    async def upload_part_copy(request: Request, call: Call) -> Response:
        accept(
            request,
            account,
            "CopySource",
            "CopySourceRange",
            "CopySourceIfMatch",
            "CopySourceIfNoneMatch",
            "CopySourceIfModifiedSince",
            "CopySourceIfUnmodifiedSince",
            "ExpectedSourceBucketOwner",
            "PartNumber",
            "UploadId",
        )
        part_number = _part_number(request)

        def look_up(reader: Reader) -> tuple[Upload, ObjectVersion]:
            return _upload(reader, request), find_source(service, reader, request)

        upload, source = await service.database.read(look_up)
        offset, length = _copied_range(request, source)
        body = {"Body": service.stream(source, offset, length), "ChecksumAlgorithm": upload.checksum_algorithm or None}
        received = await receive(service, body)
        part = await _record(service, request, part_number, received, _wanted_checksum(upload, received))
        result = {"ETag": quoted(part.etag), "LastModified": clock.from_ms(part.modified_at_ms), **received.members()}
        response: Response = {"CopyPartResult": result}
        if source.version_id is not None:
            response["CopySourceVersionId"] = source.version_id
        return response

    def list_parts(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account, "UploadId", "MaxParts", "PartNumberMarker")
        return _list_parts(service, reader, request)

    return [
        AsyncOperation("UploadPart", object_permission(account, "s3:PutObject"), upload_part),
        AsyncOperation("UploadPartCopy", copy_permissions(account), upload_part_copy),
        ReadOperation("ListParts", object_permission(account, "s3:ListMultipartUploadParts"), list_parts),
    ]


def _given(request: Request) -> bool:
    return any(request.get(f"Checksum{name}") is not None for name in checksums.ALGORITHMS)


def _part_number(request: Request) -> int:
    part_number = int(required(request, "PartNumber"))
    if not 1 <= part_number <= multipart.PART_LIMIT:
        raise InvalidArgumentError(
            f"Part number must be an integer between 1 and {multipart.PART_LIMIT}, inclusive",
            "partNumber",
            str(part_number),
        )
    return part_number


def _copied_range(request: Request, source: ObjectVersion) -> tuple[int, int]:
    header = request.get("CopySourceRange")
    if header is None:
        return 0, source.size_bytes
    span = range_of(header, source.size_bytes)
    if span is None or not header.startswith("bytes="):
        raise InvalidArgumentError(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
            "x-amz-copy-source-range",
            header,
        )
    return span


def _wanted_checksum(upload: Upload, received: Received) -> str:
    return received.checksum if received.algorithm == upload.checksum_algorithm else ""


async def _record(service: S3, request: Request, part_number: int, received: Received, checksum: str) -> Part:
    """Record a part that arrived, unless its upload was aborted or completed meanwhile."""

    def record(tx: Transaction) -> Part:
        upload = _upload(tx, request)
        content_id = service.sequence.next(tx)
        service.add_content(tx, upload.key, received.blob, content_id)
        part = Part(part_number, content_id, received.blob.size_bytes, received.md5_hex, clock.now_ms(), checksum)
        multipart.put_part(tx, upload.upload_id, part_number, part)
        return part

    try:
        return await service.database.write(record)
    except AwsError:
        await discard(service, received.blob)
        raise


def _list_parts(service: S3, reader: Reader, request: Request) -> Response:
    upload = _upload(reader, request)
    limit = number(request, "MaxParts", KEYS_LIMIT, 0, KEYS_LIMIT)
    marker = int(request.get("PartNumberMarker") or 0)
    found = multipart.list_parts(reader, upload.upload_id, after=marker, limit=limit + 1)
    response: Response = {
        "Bucket": upload.bucket,
        "Key": upload.key,
        "UploadId": upload.upload_id,
        "PartNumberMarker": marker,
        "MaxParts": limit,
        "IsTruncated": len(found) > limit,
        "StorageClass": "STANDARD",
        "Owner": owner(service.account),
        "Initiator": owner(service.account),
        "Parts": [_part_member(part, upload.checksum_algorithm) for part in found[:limit]],
    }
    if found[:limit]:
        response["NextPartNumberMarker"] = found[:limit][-1].number
    if upload.checksum_algorithm:
        response.update(ChecksumAlgorithm=upload.checksum_algorithm, ChecksumType=upload.checksum_type)
    return response


def _part_member(part: Part, algorithm: str) -> dict[str, Any]:
    member = {
        "PartNumber": part.number,
        "LastModified": clock.from_ms(part.modified_at_ms),
        "ETag": quoted(part.etag),
        "Size": part.size_bytes,
    }
    return {**member, f"Checksum{algorithm}": part.checksum} if part.checksum else member


# ── completion ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _completion(service: S3) -> list[Operation]:
    account = service.account

    async def complete_multipart_upload(request: Request, call: Call) -> Response:
        accept(
            request,
            account,
            *CHECKSUM_MEMBERS,
            "ChecksumType",
            "MultipartUpload",
            "UploadId",
            "MpuObjectSize",
            "IfMatch",
            "IfNoneMatch",
        )
        conditions = write_conditions(request)

        def look_up(reader: Reader) -> tuple[Upload, list[Part], list[Blob]]:
            upload = _upload(reader, request)
            present = multipart.list_parts(reader, upload.upload_id)
            chosen = multipart.chosen_parts(upload.upload_id, present, _named(request, upload.checksum_algorithm))
            service.check_conditions(reader, buckets.get(reader, upload.bucket), upload.key, **conditions)
            return upload, chosen, multipart.blobs_of(reader, upload.upload_id, chosen)

        upload, chosen, blobs = await service.database.scan(look_up)
        checksum = _object_checksum(request, upload, chosen)
        if request.get("MpuObjectSize") not in (None, sum(part.size_bytes for part in chosen)):
            raise InvalidRequestError("The provided 'x-amz-mp-object-size' header does not match what was computed.")
        shared = chosen[0].content_id if len(chosen) == 1 else None
        blob = blobs[0] if shared is not None else await service.blobs.concatenate(blobs)

        def publish(tx: Transaction) -> ObjectVersion:
            _upload(tx, request)
            if not multipart.parts_unchanged(tx, upload.upload_id, chosen):
                raise NoSuchUploadError(upload.upload_id)
            version = service.publish(
                tx,
                upload.bucket,
                upload.key,
                blob,
                call,
                etag=multipart.etag_of(chosen),
                attributes=replace(
                    upload.attributes, checksums=checksum, part_sizes=tuple(part.size_bytes for part in chosen)
                ),
                reason="CompleteMultipartUpload",
                content_id=shared,
                **conditions,
            )
            multipart.remove(tx, upload.upload_id)
            return version

        try:
            version = await service.database.write(publish)
        except AwsError:
            if shared is None:
                await discard(service, blob)
            raise
        return {
            "Location": f"/{upload.bucket}/{upload.key}",
            "Bucket": upload.bucket,
            "Key": upload.key,
            "ETag": quoted(version.etag),
            **checksum,
            **({"ChecksumType": upload.checksum_type} if checksum else {}),
            **version_member(version),
        }

    return [
        AsyncOperation("CompleteMultipartUpload", object_permission(account, "s3:PutObject"), complete_multipart_upload)
    ]


def _named(request: Request, algorithm: str) -> list[NamedPart]:
    parts = (request.get("MultipartUpload") or {}).get("Parts") or []
    try:
        return [
            NamedPart(
                int(one["PartNumber"]),
                unquoted(one["ETag"]),
                (one.get(f"Checksum{algorithm}") or "") if algorithm else "",
            )
            for one in parts
        ]
    except KeyError:
        raise MalformedXmlError from None


def _object_checksum(request: Request, upload: Upload, parts: list[Part]) -> dict[str, str]:
    """Return the object's checksum from its parts', checked against the caller's, as a member of the response."""
    algorithm = upload.checksum_algorithm
    if not algorithm or not all(part.checksum for part in parts):
        return {}
    if upload.checksum_type == "FULL_OBJECT":
        computed = checksums.combine(algorithm, [(part.checksum, part.size_bytes) for part in parts])
    else:
        computed = checksums.composite(algorithm, [part.checksum for part in parts])
    given = request.get(f"Checksum{algorithm}")
    if given is not None and given.partition("-")[0] != computed.partition("-")[0]:
        raise BadDigestError(algorithm)
    return {f"Checksum{algorithm}": computed}
