"""S3 through the wire with stock clients: boto3, the aws CLI, rclone; every way in which they send a body."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tests.acceptance.wire_endpoint import KEY, REGION, RunningEndpoint

AWS = [str(Path(sys.executable).parent / "aws")]
STRANGE_KEYS = ["a//b/../c/./d", "sp ace+plus%25&?=#~", "äöü/日本語.txt", "'quotes\"<&>", "x" * 1000, "tab\tnewline\n"]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEndpoint]:
    with RunningEndpoint({}, tmp_path_factory.mktemp("wire-s3")) as running:
        running.client("s3").create_bucket(Bucket="inbox")
        yield running


def shell(endpoint: RunningEndpoint, folder: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **endpoint.environment()},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("key", STRANGE_KEYS)
def test_any_key_comes_back(endpoint: RunningEndpoint, key: str) -> None:
    s3 = endpoint.client("s3")
    s3.put_object(Bucket="inbox", Key=key, Body=key.encode(), Metadata={"customer": "acme"}, ContentType="text/plain")
    got = s3.get_object(Bucket="inbox", Key=key)
    assert got["Body"].read() == key.encode()
    assert got["Metadata"] == {"customer": "acme"} and got["ContentType"] == "text/plain"
    assert got["ETag"] == f'"{hashlib.md5(key.encode()).hexdigest()}"'
    assert key in [one["Key"] for one in s3.list_objects_v2(Bucket="inbox")["Contents"]]
    s3.copy_object(Bucket="inbox", Key="copy", CopySource={"Bucket": "inbox", "Key": key})
    assert s3.get_object(Bucket="inbox", Key="copy")["Body"].read() == key.encode()
    s3.delete_objects(Bucket="inbox", Delete={"Objects": [{"Key": key}]})
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket="inbox", Key=key)


WAYS: list[dict[str, Any]] = [
    {},
    {"request_checksum_calculation": "when_required"},
    {"s3": {"payload_signing_enabled": False}},
    {"s3": {"payload_signing_enabled": True}},
    {"s3": {"addressing_style": "virtual"}},
    {"s3": {"use_expect_continue": False}},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("size", [0, 3_000_000])
def test_a_body_comes_back(
    endpoint: RunningEndpoint, way: dict[str, Any], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = ""
    if "virtual" in str(way):
        url = endpoint.url.replace("127.0.0.1", "localhost")
        resolve = socket.getaddrinfo
        # Not every resolver knows that names below localhost are this machine (RFC 6761).
        monkeypatch.setattr("socket.getaddrinfo", lambda host, *rest: resolve("127.0.0.1", *rest))
    s3 = endpoint.client("s3", config=way, url=url)
    data = os.urandom(size)
    s3.put_object(Bucket="inbox", Key="body", Body=data)
    assert s3.get_object(Bucket="inbox", Key="body")["Body"].read() == data


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_a_checksum_is_verified_and_kept(endpoint: RunningEndpoint, algorithm: str) -> None:
    s3 = endpoint.client("s3")
    data = b"checked" * 1000
    sent = s3.put_object(Bucket="inbox", Key="checked", Body=data, ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket="inbox", Key="checked", ChecksumMode="ENABLED")
    assert got["Body"].read() == data
    assert got[f"Checksum{algorithm}"] == sent[f"Checksum{algorithm}"]
    with pytest.raises(ClientError, match=r"BadDigest|InvalidRequest"):
        s3.put_object(Bucket="inbox", Key="wrong", Body=data, **{f"Checksum{algorithm}": "AAAAAA=="})


def test_a_range_is_partial_content(endpoint: RunningEndpoint) -> None:
    s3 = endpoint.client("s3")
    s3.put_object(Bucket="inbox", Key="ranged", Body=b"0123456789")
    got = s3.get_object(Bucket="inbox", Key="ranged", Range="bytes=2-4")
    assert got["Body"].read() == b"234" and got["ContentRange"] == "bytes 2-4/10"
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    with pytest.raises(ClientError, match="InvalidRange"):
        s3.get_object(Bucket="inbox", Key="ranged", Range="bytes=20-")
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket="inbox", Key="ranged", IfNoneMatch=got["ETag"])
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 304


def test_a_large_file_goes_up_and_down_in_parts(endpoint: RunningEndpoint, tmp_path: Path) -> None:
    s3 = endpoint.client("s3")
    data = os.urandom(21_000_000)
    (tmp_path / "large").write_bytes(data)
    config = TransferConfig(multipart_threshold=8 << 20, multipart_chunksize=8 << 20, max_concurrency=3)
    s3.upload_file(str(tmp_path / "large"), "inbox", "large", Config=config)
    s3.download_file("inbox", "large", str(tmp_path / "back"), Config=config)
    assert (tmp_path / "back").read_bytes() == data
    assert s3.head_object(Bucket="inbox", Key="large")["ETag"].endswith('-3"')


def test_a_presigned_url_puts_and_gets(endpoint: RunningEndpoint) -> None:
    s3 = endpoint.client("s3", config={"signature_version": "s3v4"})
    where = {"Bucket": "inbox", "Key": "pre signed/ä"}
    put = urllib.request.Request(s3.generate_presigned_url("put_object", Params=where), data=b"by url", method="PUT")
    put.add_header("Content-Type", "")
    assert urllib.request.urlopen(put).status == 200
    url = s3.generate_presigned_url("get_object", Params={**where, "ResponseContentType": "text/x-test"})
    with urllib.request.urlopen(url) as got:
        assert got.read() == b"by url" and got.headers["Content-Type"] == "text/x-test"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.replace("text%2Fx-test", "text%2Fx-tesT"))
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(endpoint.url + "/inbox/pre%20signed/%C3%A4")


def test_errors_are_s3s(endpoint: RunningEndpoint) -> None:
    s3 = endpoint.client("s3")
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="inbox", Key="nothing")
    with pytest.raises(s3.exceptions.NoSuchBucket):
        s3.list_objects_v2(Bucket="no-such-bucket")
    with pytest.raises(ClientError, match=r"NotImplemented.*s3:PutBucketWebsite"):
        s3.put_bucket_website(Bucket="inbox", WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}})
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        endpoint.client("s3", aws_access_key_id="AKIDUNKNOWN").list_buckets()
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        endpoint.client("s3", aws_secret_access_key="wrong").list_buckets()
    # A client of another region is told the right one, and goes there by itself.
    endpoint.client("s3", region_name="eu-west-1").put_object(Bucket="inbox", Key="k", Body=b"")
    assert s3.get_bucket_location(Bucket="inbox")["LocationConstraint"] is None


def test_the_aws_cli_copies_both_ways(endpoint: RunningEndpoint, tmp_path: Path) -> None:
    small, large = os.urandom(1000), os.urandom(9_000_000)
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "small file ä.bin").write_bytes(small)
    (tmp_path / "up" / "large.bin").write_bytes(large)
    shell(endpoint, tmp_path, *AWS, "s3", "cp", "--recursive", "up", "s3://inbox/cli/")
    listed = shell(endpoint, tmp_path, *AWS, "s3", "ls", "s3://inbox/cli/")
    assert "small file ä.bin" in listed and "large.bin" in listed
    shell(endpoint, tmp_path, *AWS, "s3", "sync", "s3://inbox/cli/", "down")
    assert (tmp_path / "down" / "small file ä.bin").read_bytes() == small
    assert (tmp_path / "down" / "large.bin").read_bytes() == large


@pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not installed (Debian package rclone)")
def test_rclone_copies_both_ways(endpoint: RunningEndpoint, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "file one").write_bytes(os.urandom(200_000))
    (tmp_path / "up" / "two").write_bytes(os.urandom(6_000_000))
    remote = (
        f":s3,provider=Other,endpoint='{endpoint.url}',access_key_id={KEY.access_key_id},"
        f"secret_access_key='{KEY.secret_access_key}',region={REGION},upload_cutoff=5M,chunk_size=5M:inbox/rclone"
    )
    shell(endpoint, tmp_path, "rclone", "copy", "up", remote)
    shell(endpoint, tmp_path, "rclone", "check", "--download", "up", remote)
    shell(endpoint, tmp_path, "rclone", "copy", remote, "down")
    assert (tmp_path / "down" / "two").read_bytes() == (tmp_path / "up" / "two").read_bytes()
