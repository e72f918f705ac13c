"""Operations that list objects and versions."""

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Any

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Reader
from entrepot.operations import Call, Operation, Permission, Permissions, ReadOperation, Request, Response
from entrepot.services.s3 import listing
from entrepot.services.s3.errors import InvalidArgumentError
from entrepot.services.s3.objects import sequence_of, version_id
from entrepot.services.s3.operations.parsing import accept, encoder, number, owner, quoted, required
from entrepot.services.s3.service import S3

KEYS_LIMIT = 1000
"""AWS's most entries in a page."""


def operations(service: S3) -> list[Operation]:
    """Return the operations that list."""
    account = service.account
    in_bucket = list_permission(account, "s3:ListBucket")
    common = ("Prefix", "Delimiter", "EncodingType", "MaxKeys", "OptionalObjectAttributes")

    def list_objects(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account, *common, "Marker")
        encode, marker = encoder(request), request.get("Marker") or ""
        page, response = _page(reader, request, marker, encode)
        response["Marker"] = encode(marker)
        response["Contents"] = [{**_entry(one, encode), "Owner": owner(account)} for one in page.objects]
        if page.next_after is not None and request.get("Delimiter"):
            response["NextMarker"] = encode(page.next_after)
        return response

    def list_objects_v2(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account, *common, "ContinuationToken", "FetchOwner", "StartAfter")
        encode = encoder(request)
        token, start_after = request.get("ContinuationToken"), request.get("StartAfter")
        after = _decoded(token) if token else start_after or ""
        page, response = _page(reader, request, after, encode)
        extra: dict[str, Any] = {"Owner": owner(account)} if request.get("FetchOwner") else {}
        response["Contents"] = [{**_entry(one, encode), **extra} for one in page.objects]
        response["KeyCount"] = len(page)
        if start_after:
            response["StartAfter"] = encode(start_after)
        if token:
            response["ContinuationToken"] = token
        if page.next_after is not None:
            response["NextContinuationToken"] = base64.urlsafe_b64encode(page.next_after.encode()).decode()
        return response

    def list_object_versions(reader: Reader, request: Request, call: Call) -> Response:
        accept(request, account, *common, "KeyMarker", "VersionIdMarker")
        return _list_versions(reader, request, account)

    return [
        ReadOperation("ListObjects", in_bucket, list_objects),
        ReadOperation("ListObjectsV2", in_bucket, list_objects_v2),
        ReadOperation("ListObjectVersions", list_permission(account, "s3:ListBucketVersions"), list_object_versions),
    ]


def list_permission(account: Account, action: str) -> Permissions:
    """Return what a listing needs, with the condition keys that policies narrow it by."""

    def permissions(request: Request) -> Iterable[Permission]:
        context = {"s3:prefix": str(request.get("Prefix") or ""), "s3:delimiter": str(request.get("Delimiter") or "")}
        if request.get("MaxKeys") is not None:
            context["s3:max-keys"] = str(request["MaxKeys"])
        return (Permission(action, account.s3_arn(str(request.get("Bucket", ""))), context),)

    return permissions


def _page(reader: Reader, request: Request, after: str, encode: Callable[[str], str]) -> tuple[listing.Page, Response]:
    prefix, delimiter = request.get("Prefix") or "", request.get("Delimiter") or ""
    limit = number(request, "MaxKeys", KEYS_LIMIT, 0, KEYS_LIMIT)
    page = listing.list_objects(
        reader, required(request, "Bucket"), prefix=prefix, delimiter=delimiter, after=after, limit=limit
    )
    response = _frame(request, limit, encode)
    response["IsTruncated"] = page.next_after is not None
    response["CommonPrefixes"] = [{"Prefix": encode(one)} for one in page.common_prefixes]
    return page, response


def _frame(request: Request, limit: int, encode: Callable[[str], str]) -> Response:
    response: Response = {
        "Name": request["Bucket"],
        "Prefix": encode(request.get("Prefix") or ""),
        "MaxKeys": limit,
    }
    if request.get("Delimiter"):
        response["Delimiter"] = encode(request["Delimiter"])
    if request.get("EncodingType"):
        response["EncodingType"] = request["EncodingType"]
    return response


def _entry(entry: listing.Entry, encode: Callable[[str], str]) -> dict[str, Any]:
    return {
        "Key": encode(entry.key),
        "LastModified": clock.from_ms(entry.modified_at_ms),
        "ETag": quoted(entry.etag),
        "Size": entry.size_bytes,
        "StorageClass": "STANDARD",
    }


def _list_versions(reader: Reader, request: Request, account: Account) -> Response:
    encode = encoder(request)
    limit = number(request, "MaxKeys", KEYS_LIMIT, 0, KEYS_LIMIT)
    key_marker, version_marker = request.get("KeyMarker") or "", request.get("VersionIdMarker")
    bucket = required(request, "Bucket")
    page = listing.list_versions(
        reader,
        bucket,
        prefix=request.get("Prefix") or "",
        delimiter=request.get("Delimiter") or "",
        after_key=key_marker,
        after_sequence=_marker_sequence(reader, bucket, key_marker, version_marker),
        limit=limit,
    )
    response = _frame(request, limit, encode)
    response["IsTruncated"] = page.next_key is not None
    response["KeyMarker"] = encode(key_marker)
    response["VersionIdMarker"] = version_marker or ""
    response["CommonPrefixes"] = [{"Prefix": encode(one)} for one in page.common_prefixes]
    response["Versions"] = [
        {
            **_version_entry(one, encode, account),
            "ETag": quoted(one.etag),
            "Size": one.size_bytes,
            "StorageClass": "STANDARD",
        }
        for one in page.versions
        if not one.is_delete_marker
    ]
    response["DeleteMarkers"] = [_version_entry(one, encode, account) for one in page.versions if one.is_delete_marker]
    if page.next_key is not None:
        response["NextKeyMarker"] = encode(page.next_key)
        if page.next_sequence is not None:
            last = page.versions[-1]
            response["NextVersionIdMarker"] = version_id(last.sequence) if last.versioned else "null"
    return response


def _version_entry(entry: listing.VersionEntry, encode: Callable[[str], str], account: Account) -> dict[str, Any]:
    return {
        "Key": encode(entry.key),
        "VersionId": version_id(entry.sequence) if entry.versioned else "null",
        "IsLatest": entry.is_latest,
        "LastModified": clock.from_ms(entry.modified_at_ms),
        "Owner": owner(account),
    }


def _marker_sequence(reader: Reader, bucket: str, key: str, marker: str | None) -> int | None:
    if not marker:
        return None
    if not key:
        raise InvalidArgumentError(
            "A version-id marker cannot be specified without a key marker.", "version-id-marker", marker
        )
    if marker == "null":
        return listing.null_sequence(reader, bucket, key)
    sequence = sequence_of(marker)
    if sequence is None:
        raise InvalidArgumentError("Invalid version id specified", "version-id-marker", marker)
    return sequence


def _decoded(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode()
    except (binascii.Error, ValueError):
        raise InvalidArgumentError(
            "The continuation token provided is incorrect", "continuation-token", token
        ) from None
