"""The main job through the real process: whichever way a file comes in, it is delivered and accounted for."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running import Stack, wait_for

SOURCE, DESTINATION = "my-source-sftp-bucket", "my-destination-bucket"

ROW_MEMBERS = {
    "file_id", "key", "source_bucket", "destination_bucket", "customer_id", "size_bytes", "sha256", "status",
    "upload_timestamp", "transfer_timestamp", "error_message", "execution_arn",
}  # fmt: skip


def delivered_content(stack: Stack, key: str) -> bytes:
    content: bytes = stack.client("s3").get_object(Bucket=DESTINATION, Key=key)["Body"].read()
    return content


def item_of(stack: Stack, file_id: str) -> dict[str, Any]:
    found = stack.client("dynamodb").get_item(TableName="FileTransferMetadata", Key={"file_id": {"S": file_id}})
    return {name: next(iter(value.values())) for name, value in found["Item"].items()}


def test_files_sent_over_sftp_are_delivered_and_explained(stack: Stack, tmp_path: Path) -> None:
    contents = {
        "report.csv": b"a,b\n1,2\n",
        "empty": b"",
        "big.bin": random.Random(3).randbytes(5_000_000),
        "Größe, año.txt": "ß".encode(),
        "deep/er/nested.json": b"{}",
    }
    commands = ["mkdir deep", "mkdir deep/er"]
    for number, (name, content) in enumerate(contents.items()):
        (tmp_path / str(number)).write_bytes(content)
        commands.append(f'put "{tmp_path / str(number)}" "{name}"')
    stack.sftp(*commands)

    for name, content in contents.items():
        row = stack.delivered(f"demo/{name}")
        assert set(row) >= ROW_MEMBERS
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert row["size_bytes"] == len(content)
        assert row["customer_id"] == "demo"
        assert delivered_content(stack, f"demo/{name}") == content
        item = item_of(stack, row["file_id"])
        assert item["status"] == "transferred"
        assert item["key"] == f"demo/{name}"
        assert item["transfer_timestamp"]

    row = stack.delivered("demo/report.csv")
    timeline = stack.json("file", row["file_id"])["timeline"]
    told = json.dumps(timeline)
    for expected in ("demo", "127.0.0.1", "object-created", "TransferFile", row["execution_arn"], DESTINATION):
        assert expected in told, f"the timeline does not tell {expected}: {told}"
    assert [entry["timestamp"] for entry in timeline] == sorted(entry["timestamp"] for entry in timeline)
    assert stack.json("file", "demo/report.csv")["file_id"] == row["file_id"]
    assert len(stack.json("files")) == len(contents), "folders must not be files"


def test_the_source_bucket_takes_files_from_boto3_and_the_aws_cli(stack: Stack, tmp_path: Path) -> None:
    stack.client("s3").put_object(Bucket=SOURCE, Key="acme/boto3.txt", Body=b"from boto3")
    big = random.Random(9).randbytes(20_000_000)
    (tmp_path / "cli.bin").write_bytes(big)
    environment = dict(os.environ) | stack.json("env") | {"AWS_CONFIG_FILE": "/dev/null"}
    aws = Path(sys.executable).parent / "aws"
    subprocess.run(
        [aws, "s3", "cp", "--quiet", tmp_path / "cli.bin", f"s3://{SOURCE}/acme/cli.bin"], env=environment, check=True
    )
    row = stack.delivered("acme/boto3.txt")
    assert row["customer_id"] == "acme"
    row = stack.delivered("acme/cli.bin")
    assert row["sha256"] == hashlib.sha256(big).hexdigest()
    assert delivered_content(stack, "acme/cli.bin") == big


def test_two_quick_uploads_of_one_key_deliver_the_newer(stack: Stack) -> None:
    s3 = stack.client("s3")
    for number in range(20):
        s3.put_object(Bucket=SOURCE, Key="acme/same.txt", Body=b"%d" % number)

    def settled() -> bool:
        rows = [row for row in stack.json("files", "--limit", "1000") if row["key"] == "acme/same.txt"]
        return len(rows) == 20 and all(row["status"] == "transferred" for row in rows)

    wait_for(settled, what="twenty deliveries")
    assert delivered_content(stack, "acme/same.txt") == b"19"


# ── when things go wrong ─────────────────────────────────────────────────────────────────────────────────────────────

HANDLERS = {
    "raises": ("def lambda_handler(event, context):\n    raise ValueError('the moon is full')\n", "the moon is full"),
    "times-out": ("import time\ndef lambda_handler(event, context):\n    time.sleep(30)\n", "timed out"),
    "exits": ("import os\ndef lambda_handler(event, context):\n    os._exit(7)\n", "exit status 7"),
    "garbage": ("def lambda_handler(event, context):\n    return object()\n", "not JSON serializable"),
    "no-import": ("import no_such_module\n", "no_such_module"),
}


@pytest.mark.parametrize("case", sorted(HANDLERS))
def test_a_failing_function_fails_the_file_and_redrive_delivers_it(tmp_path: Path, case: str) -> None:
    code, expected = HANDLERS[case]
    stack = Stack(tmp_path / "stack")
    handler = stack.folder / "functions" / "transfer" / "handler.py"
    good = handler.read_text()
    handler.write_text(code)
    toml = stack.folder / "stack.toml"
    toml.write_text(toml.read_text().replace("timeout_s = 60", "timeout_s = 1"))
    workflow = stack.folder / "workflows" / "transfer.asl.json"
    workflow.write_text(workflow.read_text().replace('"MaxAttempts": 2', '"MaxAttempts": 1'))
    with stack:
        stack.client("s3").put_object(Bucket=SOURCE, Key="acme/a.txt", Body=b"content")
        row = wait_for(lambda: stack.file_with("acme/a.txt", "failed"), what="the failure")
        assert expected in row["error_message"]
        item = item_of(stack, row["file_id"])
        assert item["status"] == "failed"
        assert expected in item["error_message"]
        assert expected in json.dumps(stack.json("file", row["file_id"])["timeline"])
        wait_for(lambda: expected in stack.entrepot("logs", "/aws/vendedlogs/states/transfer"), what="the log line")
        history = stack.json("execution", row["execution_arn"])["events"]
        assert sum(event["type"] == "TaskFailed" or event["type"] == "TaskTimedOut" for event in history) == 2, (
            "one retry"
        )
        handler.write_text(good)
    with stack:
        assert "would be" in stack.entrepot("redrive", "--status", "failed", "--dry-run")
        assert stack.file_with("acme/a.txt", "failed")
        stack.entrepot("redrive", row["file_id"])
        again = stack.delivered("acme/a.txt")
        assert again["file_id"] == row["file_id"]
        assert not again["error_message"]
        assert delivered_content(stack, "acme/a.txt") == b"content"


def test_a_missing_destination_bucket_fails_the_file(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    toml = stack.folder / "stack.toml"
    toml.write_text(toml.read_text().replace("[buckets.my-destination-bucket]\n", ""))
    workflow = stack.folder / "workflows" / "transfer.asl.json"
    workflow.write_text(workflow.read_text().replace('"MaxAttempts": 2', '"MaxAttempts": 0'))
    with stack:
        stack.client("s3").put_object(Bucket=SOURCE, Key="acme/a.txt", Body=b"content")
        row = wait_for(lambda: stack.file_with("acme/a.txt", "failed"), what="the failure")
        assert "NoSuchBucket" in row["error_message"]
        stack.client("s3").create_bucket(Bucket=DESTINATION)
        stack.entrepot("redrive", row["file_id"][:12])
        stack.delivered("acme/a.txt")


def test_a_workflow_that_delivers_into_its_own_source_does_not_loop(stack: Stack) -> None:
    rule = stack.folder / "stack.toml"
    stack.stop()
    text = rule.read_text()
    rule.write_text(text.replace('"destination_bucket": "my-destination-bucket"', f'"destination_bucket": "{SOURCE}"'))
    workflow = stack.folder / "workflows" / "transfer.asl.json"
    workflow.write_text(workflow.read_text().replace('"MaxAttempts": 2', '"MaxAttempts": 0'))
    policy = stack.folder / "policies" / "transfer-function.json"
    policy.write_text(policy.read_text().replace("my-destination-bucket", SOURCE))
    stack.start()
    stack.client("s3").put_object(Bucket=SOURCE, Key="acme/a.txt", Body=b"content")
    row = wait_for(lambda: stack.file_with("acme/a.txt", "failed"), what="the failure")
    assert "itself" in row["error_message"]
    assert len(stack.json("files")) == 1


def test_a_user_stays_in_the_home_folder_and_the_audit_names_the_statement(stack: Stack, tmp_path: Path) -> None:
    stack.stop()
    policy = stack.folder / "policies" / "transfer-user.json"
    document = json.loads(policy.read_text())
    document["Statement"].append(
        {
            "Sid": "NoSecrets",
            "Effect": "Deny",
            "Action": "s3:PutObject",
            "Resource": "arn:aws:s3:::${transfer:HomeDirectory}/secret/*",
        }
    )
    policy.write_text(json.dumps(document))
    stack.start()
    (tmp_path / "a.txt").write_text("a")
    answer = stack.sftp(f"put {tmp_path}/a.txt /my-source-sftp-bucket/other/a.txt", expect=1)
    assert "ermission denied" in answer or "No such file" in answer
    answer = stack.sftp("ls /my-destination-bucket", expect=1)
    assert "ermission denied" in answer or "not found" in answer
    answer = stack.sftp("mkdir secret", f"put {tmp_path}/a.txt secret/a.txt", expect=1)
    assert "ermission denied" in answer

    def told() -> bool:
        lines = stack.entrepot("logs", "/entrepot/audit")
        return "NoSecrets" in lines and "demo" in lines

    wait_for(told, what="the audit line")
    assert stack.json("files") == []


def test_the_reference_handler_runs_as_it_was_written(tmp_path: Path) -> None:
    """Typed from the reference architecture, unchanged apart from defining its `s3` client."""
    stack = Stack(tmp_path / "stack")
    source = Path(__file__).with_name("reference_handler.py").read_text()
    (stack.folder / "functions" / "transfer" / "handler.py").write_text(source)
    with stack:
        stack.client("s3").put_object(Bucket=SOURCE, Key="sample/customer1/data.csv", Body=b"1,2,3")
        wait_for(lambda: stack.file_with("sample/customer1/data.csv", "transferred"), what="the delivery")
        assert delivered_content(stack, "sample/customer1/data.csv") == b"1,2,3"
        items = stack.client("dynamodb").scan(TableName="FileTransferMetadata")["Items"]
        own = [item for item in items if "upload_timestamp" in item and item.get("status") == {"S": "transferred"}]
        assert any(item["key"] == {"S": "sample/customer1/data.csv"} for item in own)


def test_invalid_files_are_refused_with_their_place(tmp_path: Path) -> None:
    cases: list[tuple[str, str, str, str]] = [
        ("stack.toml", "sftp_port", "sftp_prot", "stack.toml:17: unknown key 'sftp_prot'"),
        ("rules/object-created.json", '"anything-but"', '"anything-butt"', "rules/object-created.json"),
        ("workflows/transfer.asl.json", '"Next": "TransferFile"', '"Next": "Nowhere"', "Nowhere"),
        ("policies/transfer-user.json", '"Allow"', '"Perhaps"', "policies/transfer-user.json"),
        ("keys/demo.pub", "ssh-ed25519 ", "ssh-ed25519 @@", "users.demo"),
        ("stack.toml", 'folder = "functions/transfer"', 'folder = "functions/none"', "functions/none"),
        ("stack.toml", 'role = "transfer-rule"', 'role = "nobody"', "nobody"),
    ]
    good = Stack(tmp_path / "good")
    assert "valid" in good.entrepot("check")
    for number, (file, old, new, expected) in enumerate(cases):
        shutil.copytree(good.folder, tmp_path / f"stack{number}")
        stack = Stack(tmp_path / f"stack{number}")
        path = stack.folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        told = stack.entrepot("check", expect=3)
        assert expected in told, told
        assert "Traceback" not in told
        if number < 3:  # What `check` refuses, `up` does: they furnish by the same code.
            with pytest.raises(AssertionError, match="no ready line"):
                stack.start()
            assert "Traceback" not in stack.server_log()


def test_commands_say_what_is_wrong_with_documented_codes(stack: Stack) -> None:
    assert "Traceback" not in stack.entrepot("file", "0000000000000000", expect=5)
    stack.entrepot("execution", "arn:aws:states:us-east-1:000000000000:execution:transfer:none", expect=5)
    stack.entrepot("logs", "/no/such/group", expect=5)
    stack.entrepot("files", "--since", "yesterday", expect=1)
    stack.entrepot("redrive", expect=2)
    assert "demo" in stack.entrepot("users")
    assert "serving" in stack.entrepot("status")
    assert "Nobody" in stack.entrepot("sessions")
    stack.stop()
    assert "entrepot up" in stack.entrepot("status", expect=4)
