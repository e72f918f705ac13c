"""S3's operations as callers use them: AWS's requests, responses and errors."""

import base64
import hashlib
import os
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from entrepot.errors import AwsError
from entrepot.operations import Decision, Operations
from entrepot.services.s3 import S3, operations
from entrepot.services.s3.operations.parsing import range_of
from tests.unit.s3_site import CALL, opened

Perform = Callable[..., Any]
MIB = 1024 * 1024


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[S3, Perform]]:
    async with opened(tmp_path) as (s3, _):
        gate = Operations(s3.database, lambda principal, permission: Decision(True, "", ""))
        gate.add("s3", operations(s3, gate.require))

        async def perform(name: str, **request: Any) -> Any:
            return await gate.perform("s3", name, {"Bucket": "bucket", **request}, CALL)

        yield s3, perform


async def body(response: dict[str, Any]) -> bytes:
    content = response["Body"]
    return content if isinstance(content, bytes) else b"".join([piece async for piece in content])


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for offset in range(0, len(data), 1000):
        yield data[offset : offset + 1000]


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("size", [0, 5, 50_000])
async def test_put_and_get(site: tuple[S3, Perform], size: int) -> None:
    _, do = site
    data = os.urandom(size)
    put = await do(
        "PutObject", Key="k", Body=pieces(data), ContentType="text/csv", Metadata={"Who": "me"},
        CacheControl="no-store", Tagging="a=1&b=2", ChecksumCRC32=crc32(data), ContentLength=size,
        ContentMD5=base64.b64encode(hashlib.md5(data).digest()).decode(),
    )  # fmt: skip
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = await do("GetObject", Key="k", ChecksumMode="ENABLED")
    assert await body(got) == data
    head = await do("HeadObject", Key="k", ChecksumMode="ENABLED")
    assert {**head, "Body": got["Body"]} == got
    assert (head["ContentType"], head["Metadata"], head["CacheControl"], head["TagCount"], head["ContentLength"]) == (
        "text/csv", {"who": "me"}, "no-store", 2, size)  # fmt: skip
    assert head["ChecksumCRC32"] == crc32(data)
    if size:
        part = await do("GetObject", Key="k", Range="bytes=1-3")
        assert (await body(part), part["ContentRange"], part["ContentLength"]) == (data[1:4], f"bytes 1-3/{size}", 3)
    assert (await do("GetObjectTagging", Key="k"))["TagSet"] == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]


@pytest.mark.parametrize(
    ("code", "request_"),
    [
        ("BadDigest", {"ContentMD5": base64.b64encode(bytes(16)).decode()}),
        ("InvalidDigest", {"ContentMD5": "nonsense"}),
        *(
            ("BadDigest", {f"Checksum{name}": "AAAAAA=="})
            for name in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
        ),
        ("IncompleteBody", {"ContentLength": 4000}),
        ("EntityTooLarge", {"ContentLength": 6 * 1024**3}),
        ("MetadataTooLarge", {"Metadata": {"a": "x" * 2048}}),
        ("InvalidTag", {"Tagging": "a=1&a=2"}),
        ("KeyTooLongError", {"Key": "x" * 1025}),
        ("NoSuchBucket", {"Bucket": "nowhere"}),
        ("PreconditionFailed", {"IfNoneMatch": "*", "Key": "there"}),
        ("NotImplemented", {"ServerSideEncryption": "aws:kms"}),
        ("NotImplemented", {"StorageClass": "GLACIER"}),
        ("AccessDenied", {"ExpectedBucketOwner": "111111111111"}),
    ],
)
async def test_a_refused_put_leaves_nothing(
    site: tuple[S3, Perform], tmp_path: Path, code: str, request_: dict[str, Any]
) -> None:
    s3, do = site
    await do("PutObject", Key="there", Body=b"x")
    with pytest.raises(AwsError) as raised:
        await do("PutObject", **{"Key": "k", "Body": pieces(os.urandom(5000)), **request_})
    assert raised.value.code == code
    left = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []
    assert await s3.database.read(lambda reader: reader.one("SELECT COUNT(*) FROM s3_content")) == (1,)


@pytest.mark.parametrize("algorithm", [None, "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
async def test_multipart(site: tuple[S3, Perform], algorithm: str | None) -> None:
    s3, do = site
    named = {} if algorithm is None else {"ChecksumAlgorithm": algorithm}
    upload = {
        "Key": "m",
        "UploadId": (await do("CreateMultipartUpload", Key="m", Metadata={"a": "b"}, **named))["UploadId"],
    }
    data = [os.urandom(5 * MIB), os.urandom(5 * MIB + 1), b"tail"]
    parts = [
        {"PartNumber": number, **(await do("UploadPart", PartNumber=number, Body=piece, **upload))}
        for number, piece in enumerate(data, 1)
    ]
    await do("UploadPart", PartNumber=7, Body=b"not named", **upload)
    listed = await do("ListParts", MaxParts=2, **upload)
    assert [one["PartNumber"] for one in listed["Parts"]] == [1, 2] and listed["IsTruncated"]
    assert [one["Key"] for one in (await do("ListMultipartUploads"))["Uploads"]] == ["m"]
    for code, wrong in (
        ("InvalidPartOrder", [parts[1], parts[0]]),
        ("InvalidPart", [{"PartNumber": 9, "ETag": "x"}]),
        ("InvalidPart", [{"PartNumber": 1, "ETag": "x"}]),
        ("EntityTooSmall", [parts[2], {"PartNumber": 7, "ETag": f'"{hashlib.md5(b"not named").hexdigest()}"'}]),
        ("MalformedXML", []),
    ):
        with pytest.raises(AwsError) as raised:
            await do("CompleteMultipartUpload", MultipartUpload={"Parts": wrong}, **upload)
        assert raised.value.code == code
    done = await do("CompleteMultipartUpload", MultipartUpload={"Parts": parts}, **upload)
    etag = hashlib.md5(b"".join(hashlib.md5(piece).digest() for piece in data)).hexdigest()
    assert done["ETag"] == f'"{etag}-3"'
    assert algorithm is None or f"Checksum{algorithm}" in done
    got = await do("GetObject", Key="m")
    assert await body(got) == b"".join(data) and got["Metadata"] == {"a": "b"} and got["PartsCount"] == 3
    assert await body(await do("GetObject", Key="m", PartNumber=2)) == data[1]
    with pytest.raises(AwsError) as raised:
        await do("UploadPart", PartNumber=1, Body=b"late", **upload)
    assert raised.value.code == "NoSuchUpload"
    assert await s3.database.read(lambda reader: reader.one("SELECT COUNT(*) FROM s3_part")) == (0,)


async def test_abort_and_parts_from_copies(site: tuple[S3, Perform], tmp_path: Path) -> None:
    s3, do = site
    data = os.urandom(6000)
    await do("PutObject", Key="source", Body=data)
    upload = {"Key": "m", "UploadId": (await do("CreateMultipartUpload", Key="m"))["UploadId"]}
    copied = await do(
        "UploadPartCopy", PartNumber=1, CopySource="bucket/source", CopySourceRange="bytes=1000-4999", **upload
    )
    part = {"PartNumber": 1, "ETag": copied["CopyPartResult"]["ETag"]}
    await do("CompleteMultipartUpload", MultipartUpload={"Parts": [part]}, **upload)
    assert await body(await do("GetObject", Key="m")) == data[1000:5000]
    again = {"Key": "n", "UploadId": (await do("CreateMultipartUpload", Key="n"))["UploadId"]}
    await do("UploadPart", PartNumber=1, Body=data, **again)
    await do("AbortMultipartUpload", **again)
    with pytest.raises(AwsError) as raised:
        await do("AbortMultipartUpload", **again)
    assert raised.value.code == "NoSuchUpload"
    assert await s3.database.read(lambda reader: reader.one("SELECT COUNT(*) FROM s3_garbage")) == (1,)


async def test_copies(site: tuple[S3, Perform]) -> None:
    _, do = site
    await do("PutObject", Key="a b/ä+%", Body=b"x", Metadata={"a": "b"}, Tagging="t=1")
    for source in ("bucket/a%20b/%C3%A4%2B%25", "/bucket/a%20b/%C3%A4%2B%25", {"Bucket": "bucket", "Key": "a b/ä+%"}):
        copied = await do("CopyObject", Key="copy", CopySource=source)
        assert copied["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(b"x").hexdigest()}"'
        assert (await do("HeadObject", Key="copy"))["Metadata"] == {"a": "b"}
    await do("CopyObject", Key="copy", CopySource="bucket/copy", MetadataDirective="REPLACE", Metadata={"c": "d"})
    head = await do("HeadObject", Key="copy")
    assert (head["Metadata"], head["TagCount"]) == ({"c": "d"}, 1)
    for code, request in (
        ("InvalidRequest", {"CopySource": "bucket/copy"}),
        ("NoSuchKey", {"CopySource": "bucket/none"}),
        ("NoSuchBucket", {"CopySource": "nowhere/none"}),
        ("InvalidArgument", {"CopySource": "nothing"}),
        ("PreconditionFailed", {"CopySource": "bucket/a b/ä%2B%25", "CopySourceIfMatch": '"x"'}),
        ("PreconditionFailed", {"CopySource": "bucket/a b/ä%2B%25", "IfNoneMatch": "*"}),
    ):
        with pytest.raises(AwsError) as raised:
            await do("CopyObject", Key="copy", **request)
        assert raised.value.code == code


async def test_listings(site: tuple[S3, Perform]) -> None:
    _, do = site
    for key in ("a/1", "a/2", "b", "c d", "e/1"):
        await do("PutObject", Key=key, Body=b"x")
    found, token = [], {}
    while True:
        page = await do("ListObjectsV2", Delimiter="/", MaxKeys=2, EncodingType="url", **token)
        found += [one["Key"] for one in page["Contents"]] + [one["Prefix"] for one in page["CommonPrefixes"]]
        assert page["KeyCount"] <= 2
        if not page["IsTruncated"]:
            break
        token = {"ContinuationToken": page["NextContinuationToken"]}
    assert sorted(found) == ["a/", "b", "c%20d", "e/"]
    first = await do("ListObjects", Delimiter="/", MaxKeys=1)
    assert first["NextMarker"] == "a/"
    second = await do("ListObjects", Delimiter="/", Marker="a/")
    assert [one["Key"] for one in second["Contents"]] == ["b", "c d"]
    assert (await do("ListObjectsV2", MaxKeys=0))["IsTruncated"] is False
    with pytest.raises(AwsError):
        await do("ListObjectsV2", ContinuationToken="ä")


async def test_deletes_and_versions(site: tuple[S3, Perform]) -> None:
    _, do = site
    await do("PutBucketVersioning", VersioningConfiguration={"Status": "Enabled"})
    first = await do("PutObject", Key="k", Body=b"1")
    await do("PutObject", Key="k", Body=b"2")
    marker = await do("DeleteObject", Key="k")
    assert marker["DeleteMarker"]
    for name in ("GetObject", "HeadObject"):
        with pytest.raises(AwsError) as raised:
            await do(name, Key="k")
        assert raised.value.status == 404
    with pytest.raises(AwsError) as raised:
        await do("GetObject", Key="k", VersionId=marker["VersionId"])
    assert raised.value.code == "MethodNotAllowed"
    assert await body(await do("GetObject", Key="k", VersionId=first["VersionId"])) == b"1"
    listed = await do("ListObjectVersions", MaxKeys=2)
    assert (len(listed["Versions"]), len(listed["DeleteMarkers"]), listed["IsTruncated"]) == (1, 1, True)
    rest = await do(
        "ListObjectVersions", KeyMarker=listed["NextKeyMarker"], VersionIdMarker=listed["NextVersionIdMarker"]
    )
    assert [one["VersionId"] for one in rest["Versions"]] == [first["VersionId"]]
    with pytest.raises(AwsError) as raised:
        await do("DeleteBucket")
    assert raised.value.code == "BucketNotEmpty"
    versions = [*listed["Versions"], *listed["DeleteMarkers"], *rest["Versions"]]
    gone = await do("DeleteObjects", Delete={"Objects": [{"Key": "k", "VersionId": v["VersionId"]} for v in versions]})
    assert len(gone["Deleted"]) == 3
    await do("DeleteBucket")
    with pytest.raises(AwsError) as raised:
        await do("HeadBucket")
    assert raised.value.status == 404


async def test_buckets(site: tuple[S3, Perform]) -> None:
    _, do = site
    for name in ("ab", "A" * 5, "192.168.0.1", "a..b", "-ab", "a_b", "xn--abc", "x" * 64):
        with pytest.raises(AwsError) as raised:
            await do("CreateBucket", Bucket=name)
        assert raised.value.code == "InvalidBucketName"
    await do("CreateBucket", Bucket="another.bucket-1")
    await do("PutBucketNotificationConfiguration", NotificationConfiguration={"EventBridgeConfiguration": {}})
    assert await do("GetBucketNotificationConfiguration") == {"EventBridgeConfiguration": {}}
    with pytest.raises(AwsError):
        await do("PutBucketNotificationConfiguration", NotificationConfiguration={"QueueConfigurations": [{}]})
    page = await do("ListBuckets", Bucket=None, MaxBuckets=1)
    assert [one["Name"] for one in page["Buckets"]] == ["another.bucket-1"]
    rest = await do("ListBuckets", Bucket=None, ContinuationToken=page["ContinuationToken"])
    assert [one["Name"] for one in rest["Buckets"]] == ["bucket"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None), ("bytes=0-", (0, 10)), ("bytes=3-5", (3, 3)), ("bytes=3-99", (3, 7)), ("bytes=-4", (6, 4)),
        ("bytes=-99", (0, 10)), ("bytes=5-3", None), ("bytes=a-b", None), ("bytes=0-1,3-4", None), ("bytes=-", None),
    ],
)  # fmt: skip
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    assert range_of(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_ranges_outside(header: str) -> None:
    with pytest.raises(AwsError, match="not satisfiable"):
        range_of(header, 10)
