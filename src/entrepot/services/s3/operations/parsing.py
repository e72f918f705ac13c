"""What several operations of S3 read from a request or write into a response."""

import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Reader
from entrepot.errors import AwsError
from entrepot.operations import Permission, Permissions, Request, Response
from entrepot.services.s3 import checksums
from entrepot.services.s3.errors import (
    InvalidArgumentError,
    InvalidCopySourceError,
    InvalidRangeError,
    InvalidRequestError,
    InvalidTagError,
    MetadataTooLargeError,
    NotImplementedHereError,
    NotModifiedError,
    PreconditionFailedError,
)
from entrepot.services.s3.objects import DEFAULT_CONTENT_TYPE, Attributes, ObjectVersion

METADATA_LIMIT_BYTES = 2048
"""AWS's limit for a version's user metadata, names and values together."""

TAG_LIMIT = 10
"""AWS's limit for the tags of an object."""

HEADER_MEMBERS = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "Expires",
    "WebsiteRedirectLocation",
)
"""System headers that are stored and come back."""

ATTRIBUTE_MEMBERS = (*HEADER_MEMBERS, "ContentType", "Metadata", "Tagging", "StorageClass", "ACL")
CHECKSUM_MEMBERS = ("ChecksumAlgorithm", *(f"Checksum{name}" for name in checksums.ALGORITHMS))
_ALWAYS = ("Bucket", "Key", "ExpectedBucketOwner", "RequestPayer")


# ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────────────


class ExpectedOwnerError(AwsError):
    """The bucket belongs to another account than the caller expects."""

    code = "AccessDenied"
    status = 403


def accept(request: Request, account: Account, *members: str) -> None:
    """Refuse a request that asks for more than `members`, instead of ignoring the rest.

    Raises NotImplementedHereError, or ExpectedOwnerError where the bucket's owner is not the one expected.
    """
    for name, value in request.items():
        if value is not None and value is not False and name not in members and name not in _ALWAYS:
            raise NotImplementedHereError(
                f"A header you provided implies functionality that is not implemented: {name}", Header=name
            )
    for name in ("ExpectedBucketOwner", "ExpectedSourceBucketOwner"):
        if request.get(name, account.account_id) != account.account_id:
            raise ExpectedOwnerError("Access Denied")
    if request.get("StorageClass", "STANDARD") != "STANDARD":
        raise NotImplementedHereError("Only the storage class STANDARD is implemented.", Header="StorageClass")
    if request.get("ACL", "private") not in ("private", "bucket-owner-full-control"):
        raise NotImplementedHereError("Access control lists are not implemented; use policies.", Header="ACL")


def required(request: Request, name: str) -> Any:
    """Return a member that must be there."""
    value = request.get(name)
    if value is None or value == "":
        raise InvalidRequestError(f"Missing required parameter: {name}")
    return value


def number(request: Request, name: str, default: int, lowest: int, highest: int) -> int:
    """Return an integer member, cut down to `highest`; raise InvalidArgumentError below `lowest`."""
    value = request.get(name)
    if value is None:
        return default
    if value < lowest:
        raise InvalidArgumentError(
            f"Argument {name} must be an integer between {lowest} and 2147483647", name, str(value)
        )
    return int(min(value, highest))


def bucket_permission(account: Account, action: str) -> Permissions:
    """Return what a bucket's operation needs."""

    def permissions(request: Request) -> Iterable[Permission]:
        return (Permission(action, account.s3_arn(str(request.get("Bucket", "")))),)

    return permissions


def object_permission(account: Account, action: str, versioned_action: str | None = None) -> Permissions:
    """Return what an object's operation needs; another action where a version is named."""

    def permissions(request: Request) -> Iterable[Permission]:
        by_version = versioned_action is not None and request.get("VersionId") is not None
        resource = account.s3_arn(str(request.get("Bucket", "")), str(request.get("Key", "")))
        needed = [Permission(versioned_action if by_version and versioned_action else action, resource)]
        if action == "s3:PutObject" and request.get("Tagging"):
            needed.append(Permission("s3:PutObjectTagging", resource))
        return needed

    return permissions


# ── attributes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def attributes_of(request: Request, checksum: Mapping[str, str] | None = None) -> Attributes:
    """Return what a new version carries; raise MetadataTooLargeError or InvalidTagError."""
    metadata = {str(name).lower(): str(value) for name, value in (request.get("Metadata") or {}).items()}
    size_bytes = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if size_bytes > METADATA_LIMIT_BYTES:
        raise MetadataTooLargeError(size_bytes)
    headers = {}
    for member in HEADER_MEMBERS:
        value = request.get(member)
        if value is not None:
            headers[member] = _http_date(value) if isinstance(value, datetime) else str(value)
    return Attributes(
        content_type=request.get("ContentType") or DEFAULT_CONTENT_TYPE,
        metadata=metadata,
        headers=headers,
        tags=tags_of_header(request.get("Tagging")),
        checksums=checksum or {},
    )


def tags_of_header(text: str | None) -> dict[str, str]:
    """Return the tags of the x-amz-tagging header (`a=b&c=d`)."""
    pairs = urllib.parse.parse_qsl(text or "", keep_blank_values=True)
    return checked_tags(
        pairs,
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters "
        "without tag name duplicates.",
    )


def checked_tags(pairs: list[tuple[str, str]], duplicate: str) -> dict[str, str]:
    """Return the tags as a dict; raise InvalidTagError or InvalidRequestError."""
    tags = dict(pairs)
    if len(tags) != len(pairs):
        raise InvalidTagError(duplicate)
    if len(tags) > TAG_LIMIT:
        raise InvalidRequestError("Object tags cannot be greater than 10")
    for name, value in pairs:
        if not 1 <= len(name) <= 128 or name.startswith("aws:"):
            raise InvalidTagError("The TagKey you have provided is invalid")
        if len(value) > 256:
            raise InvalidTagError("The TagValue you have provided is invalid")
    return tags


def _http_date(at: datetime) -> str:
    return at.strftime("%a, %d %b %Y %H:%M:%S GMT")


def describe(version: ObjectVersion) -> Response:
    """Return the members that GetObject and HeadObject have in common, without the content's length."""
    attributes = version.attributes
    response: Response = {
        "AcceptRanges": "bytes",
        "LastModified": clock.from_ms(version.modified_at_ms),
        "ETag": quoted(version.etag),
        "ContentType": attributes.content_type,
        "Metadata": dict(attributes.metadata),
        **attributes.headers,
        **version_member(version),
    }
    if attributes.part_sizes:
        response["PartsCount"] = len(attributes.part_sizes)
    if attributes.tags:
        response["TagCount"] = len(attributes.tags)
    return response


def version_member(version: ObjectVersion) -> Response:
    """Return `VersionId` where the version has one."""
    return {} if version.version_id is None else {"VersionId": version.version_id}


def quoted(etag: str) -> str:
    """Return an ETag as the wire has it."""
    return f'"{etag}"'


def unquoted(etag: str) -> str:
    """Return an ETag without its quotes."""
    return etag.strip().removeprefix("W/").strip('"')


# ── conditions ───────────────────────────────────────────────────────────────────────────────────────────────────────


def write_conditions(request: Request) -> dict[str, Any]:
    """Return the conditions of a write as keyword arguments of `publish` and `copy_object`."""
    if_none_match = request.get("IfNoneMatch")
    if if_none_match is not None and if_none_match.strip() != "*":
        raise NotImplementedHereError("If-None-Match takes only * here, as in AWS.", Header="If-None-Match")
    if_match = request.get("IfMatch")
    return {
        "if_none_match": if_none_match is not None,
        "if_match": None if if_match is None else unquoted(if_match),
    }


def check_read_conditions(request: Request, version: ObjectVersion) -> None:
    """Raise PreconditionFailedError or NotModifiedError as RFC 9110 section 13.2.2 orders the four conditions."""
    modified = clock.from_ms(version.modified_at_ms).replace(microsecond=0)
    if (wanted := request.get("IfMatch")) is not None:
        if not _matches(wanted, version.etag):
            raise PreconditionFailedError("If-Match")
    elif (since := request.get("IfUnmodifiedSince")) is not None and modified > since:
        raise PreconditionFailedError("If-Unmodified-Since")
    if (unwanted := request.get("IfNoneMatch")) is not None:
        if _matches(unwanted, version.etag):
            raise NotModifiedError
    elif (since := request.get("IfModifiedSince")) is not None and modified <= since:
        raise NotModifiedError


def check_source_conditions(request: Request, version: ObjectVersion) -> None:
    """Raise PreconditionFailedError unless the conditions on a copy's source hold."""
    conditions = {
        name: request.get(f"CopySource{name}")
        for name in ("IfMatch", "IfNoneMatch", "IfModifiedSince", "IfUnmodifiedSince")
    }
    try:
        check_read_conditions(conditions, version)
    except NotModifiedError:
        raise PreconditionFailedError("x-amz-copy-source-If-None-Match") from None


def _matches(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in (unquoted(one) for one in header.split(","))


# ── ranges ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def range_of(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Return (offset, length) of a Range header, None where the whole is meant (none, malformed, or several ranges).

    Raises InvalidRangeError when nothing of it lies inside. Source: RFC 9110 section 14.1.2.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if header is None or match is None or len(header) > 64:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        length = min(int(last), size_bytes)
        if length == 0:
            raise InvalidRangeError(header, size_bytes)
        return size_bytes - length, length
    offset = int(first)
    if last and int(last) < offset:
        return None
    if offset >= size_bytes:
        raise InvalidRangeError(header, size_bytes)
    end = min(int(last) + 1, size_bytes) if last else size_bytes
    return offset, end - offset


# ── copy sources ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CopySource:
    """What a copy takes its content from."""

    bucket: str
    key: str
    version_id: str | None


def copy_source_of(request: Request) -> CopySource:
    """Return the source of a copy: `bucket/key?versionId=…` URL-encoded, or a dict; raise InvalidCopySourceError."""
    source = request.get("CopySource")
    if isinstance(source, Mapping):
        bucket, key = str(source.get("Bucket", "")), str(source.get("Key", ""))
        version_id = source.get("VersionId")
    else:
        text = str(source or "")
        path, mark, query = text.partition("?versionId=")
        version_id = urllib.parse.unquote(query) if mark else None
        bucket, _, key = urllib.parse.unquote(path).removeprefix("/").partition("/")
        if bucket.startswith("arn:aws:s3:::"):
            bucket = bucket.removeprefix("arn:aws:s3:::")
    if not bucket or not key:
        raise InvalidCopySourceError(str(source))
    return CopySource(bucket, key, version_id)


def copy_permissions(account: Account) -> Permissions:
    """Return what a copy needs: reading the source and writing the destination."""
    destination = object_permission(account, "s3:PutObject")

    def permissions(request: Request) -> Iterable[Permission]:
        source = copy_source_of(request)
        action = "s3:GetObject" if source.version_id is None else "s3:GetObjectVersion"
        return (Permission(action, account.s3_arn(source.bucket, source.key)), *destination(request))

    return permissions


def find_source(service: Any, reader: Reader, request: Request) -> ObjectVersion:
    """Look up a copy's source and check the conditions on it."""
    source = copy_source_of(request)
    version: ObjectVersion = service.get(reader, source.bucket, source.key, version_id=source.version_id)
    check_source_conditions(request, version)
    return version


# ── names in listings ────────────────────────────────────────────────────────────────────────────────────────────────


def encoder(request: Request) -> Callable[[str], str]:
    """Return how names are written: as they are, or URL-encoded where the caller asks (XML cannot carry every key)."""
    encoding = request.get("EncodingType")
    if encoding is None:
        return str
    if encoding != "url":
        raise InvalidArgumentError("Invalid Encoding Method specified in Request", "encoding-type", encoding)
    return lambda text: urllib.parse.quote(text, safe="/")


def owner(account: Account) -> dict[str, str]:
    """Return the owner of everything: the account, with a canonical id that is derived from it."""
    return {"DisplayName": account.account_id, "ID": account.account_id.rjust(64, "0")}
