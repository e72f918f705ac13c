"""The disk is full: uploads are refused and never acknowledged, reads and logins work, and space heals it without a restart.

The data folder is a small tmpfs, which needs root.
"""

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from tests.running import Stack, wait_for

SOURCE, DESTINATION = "my-source-sftp-bucket", "my-destination-bucket"
DISK_BYTES = 48 << 20
BLOCK = bytes(1 << 16)
SMALL_BYTES = 20_000
"""A small file rides in the ledger's row."""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack whose data folder is a small disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("a disk that can be filled needs root (a tmpfs is mounted)")
    stack = Stack(tmp_path / "stack")
    data = stack.folder / "data"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", data], check=True)
    try:
        with stack:
            yield stack
    finally:
        subprocess.run(["umount", data], check=True)


def fill(stack: Stack) -> Path:
    """Leave no byte free; return the file that takes the space."""
    filler = stack.folder / "data" / "filler"
    with filler.open("ab", buffering=0) as file:
        for block in (BLOCK, b"\0" * 512):
            try:
                while True:
                    file.write(block)
            except OSError:
                pass
    return filler


def refused(upload: Any) -> str | None:
    """Return the error of an S3 upload, None when it was acknowledged."""
    try:
        upload()
    except botocore.exceptions.ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
        return str(error)
    return None


@pytest.mark.timeout(170)
def test_a_full_disk_refuses_uploads_and_heals(stack: Stack, tmp_path: Path) -> None:
    chance = random.Random(1)
    small, large = chance.randbytes(SMALL_BYTES), chance.randbytes(6_000_000)
    (tmp_path / "small").write_bytes(small)
    (tmp_path / "large").write_bytes(large)
    stack.sftp(f"put {tmp_path}/large before")
    stack.delivered("demo/before")
    s3 = stack.client("s3")
    acknowledged: dict[str, bytes] = {}
    filler = fill(stack)

    # The ledger's log has some room of its own left: what is acknowledged while it lasts must be there.
    for number in range(1000):
        told = refused(lambda key=f"acme/{number}": s3.put_object(Bucket=SOURCE, Key=key, Body=small))
        if told is not None:
            break
        acknowledged[f"acme/{number}"] = small
    assert told is not None, "the disk never became full"
    assert "space" in told.lower() or "full" in told.lower(), told
    assert refused(lambda: s3.put_object(Bucket=SOURCE, Key="acme/large", Body=large))
    for name in ("small", "large"):
        told = stack.sftp(f"put {tmp_path}/{name} {name}", expect=1)
        assert "space" in told.lower() or "full" in told.lower(), told

    assert "before" in stack.sftp("ls -1")
    stack.sftp(f"get before {tmp_path}/back")
    assert (tmp_path / "back").read_bytes() == large
    assert s3.get_object(Bucket=DESTINATION, Key="demo/before")["Body"].read() == large
    keys = {found["Key"] for found in s3.list_objects_v2(Bucket=SOURCE)["Contents"]}
    assert keys == {"demo/before", *acknowledged}
    assert stack.json("status")["pid"]

    filler.unlink()
    s3.put_object(Bucket=SOURCE, Key="acme/large", Body=large)
    acknowledged["acme/large"] = large
    for name, content in (("small", small), ("large", large)):
        stack.sftp(f"put {tmp_path}/{name} {name}")
        acknowledged[f"demo/{name}"] = content
    wait_for(
        lambda: (
            {row["key"] for row in stack.json("files", "--status", "transferred", "--limit", "2000")}
            == {"demo/before", *acknowledged}
        ),
        deadline_s=40,
        what="the deliveries",
    )
    for key, content in acknowledged.items():
        assert s3.get_object(Bucket=DESTINATION, Key=key)["Body"].read() == content
    assert stack.stop() == 0
    assert "Traceback" not in stack.server_log(), stack.server_log()[-3000:]
