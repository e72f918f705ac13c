"""SIGTERM drains: what is under way may finish, nothing acknowledged is lost, nothing partial appears, the exit code is 0."""

import random
import subprocess
import threading
import time
from pathlib import Path

import botocore.exceptions
import pytest

from tests.acceptance.clients import WinSCP
from tests.running import Stack, wait_for

SOURCE, DESTINATION = "my-source-sftp-bucket", "my-destination-bucket"
DRAIN_TIMEOUT_S = 30
SLOW_KBIT_S = 40_000
"""OpenSSH's sftp sends 24 MB in about 5 s at this rate."""


def upload_slowly(stack: Stack, local: Path, name: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        ["sftp", "-l", str(SLOW_KBIT_S), *stack.ssh_options(), "-b", "-", "demo@127.0.0.1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(f"put {local} {name}\n")
    process.stdin.close()
    return process


def put_until_refused(stack: Stack, acknowledged: dict[str, bytes]) -> None:
    s3 = stack.client("s3")
    for number in range(100_000):
        key, body = f"acme/{number}", b"%d" % number
        try:
            s3.put_object(Bucket=SOURCE, Key=key, Body=body)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
            return
        acknowledged[key] = body
        time.sleep(0.02)


@pytest.mark.timeout(120)
def test_sigterm_drains(tmp_path: Path) -> None:
    content = random.Random(5).randbytes(24_000_000)
    (tmp_path / "slow").write_bytes(content)
    stack = Stack(tmp_path / "stack", environment={"ENTREPOT_SERVER_DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S)})
    acknowledged: dict[str, bytes] = {}
    with stack:
        uploads = {f"slow{number}": upload_slowly(stack, tmp_path / "slow", f"slow{number}") for number in range(3)}
        putting = threading.Thread(target=put_until_refused, args=(stack, acknowledged))
        putting.start()
        server = stack.client("entrepot")
        wait_for(
            lambda: len(server.list_sessions()["sessions"]) == 3 and len(acknowledged) > 10, what="uploads under way"
        )
        assert all(upload.poll() is None for upload in uploads.values()), "an upload ended before SIGTERM"
        began_s = time.monotonic()
        assert stack.stop(DRAIN_TIMEOUT_S + 5) == 0
        assert time.monotonic() - began_s < DRAIN_TIMEOUT_S, "the stop took longer than the uploads"
        putting.join(10)
        finished = [f"demo/{name}" for name, upload in uploads.items() if upload.wait(10) == 0]
        assert len(finished) == len(uploads), "an upload under way was cut although there was time"
    with stack:
        for key, body in [*acknowledged.items(), *((key, content) for key in finished)]:
            assert stack.client("s3").get_object(Bucket=SOURCE, Key=key)["Body"].read() == body
        wait_for(
            lambda: (
                {row["key"] for row in stack.json("files", "--status", "transferred", "--limit", "5000")}
                >= {*acknowledged, *finished}
            ),
            what="the deliveries",
        )
        rows = stack.json("files", "--limit", "5000")
        assert len({row["key"] for row in rows}) == len(rows), "a file has two records"
    assert "Traceback" not in stack.server_log()


def test_a_client_that_stalls_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack", environment={"ENTREPOT_SERVER_DRAIN_TIMEOUT_S": "1"})
    with stack:
        client = WinSCP(stack, tmp_path)
        sftp = client.sftp()
        file = sftp.open("stalled", "wb")
        file.write(b"half")
        file.flush()
        wait_for(lambda: file.stat().st_size == 4, what="the half")
        assert stack.stop(10) == 0
        client.open.close()
    with stack:
        assert "Contents" not in stack.client("s3").list_objects_v2(Bucket=SOURCE)
        assert stack.json("files") == []
        assert stack.json("sessions") == []
    assert "Traceback" not in stack.server_log()
