"""A rule's targets beside the default one: InputPath, Input, a log group, a function without a state machine."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.running import Stack, wait_for

SOURCE, DESTINATION = "my-source-sftp-bucket", "my-destination-bucket"

FUNCTION = """
import boto3
s3 = boto3.client("s3")

def lambda_handler(event, context):
    detail = event["detail"]
    key = detail["object"]["key"]
    print("direct", event["id"], key)
    s3.copy_object(Bucket="my-destination-bucket", Key=key, CopySource={"Bucket": detail["bucket"]["name"], "Key": key})
"""

PASS = json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Pass", "End": True}}})

ADDED = """
[functions.direct]
folder = "functions/direct"
handler = "handler.lambda_handler"
role = "transfer-function"

[state_machines.path]
definition = "workflows/pass.asl.json"
role = "transfer-workflow"

[state_machines.constant]
definition = "workflows/pass.asl.json"
role = "transfer-workflow"

[roles.rule-all]
policy = "policies/rule-all.json"

[rules.direct]
event_pattern = "rules/direct.json"

[[rules.direct.targets]]
id = "direct"
function = "direct"

[rules.variations]
event_pattern = "rules/variations.json"

[[rules.variations.targets]]
id = "path"
state_machine = "path"
role = "rule-all"
input_path = "$.detail.object"

[[rules.variations.targets]]
id = "constant"
state_machine = "constant"
role = "rule-all"
input = '{"hello": "world"}'

[[rules.variations.targets]]
id = "log"
log_group = "/my/events"
"""

PATTERN = {"source": ["aws.s3"], "detail-type": ["Object Created"]}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose rules have the variations instead of the default target."""
    stack = Stack(tmp_path_factory.mktemp("targets") / "stack")
    toml = stack.folder / "stack.toml"
    text = toml.read_text()
    before, _, rest = text.partition("[rules.object-created]")
    toml.write_text(before + rest[rest.index("[state_machines.transfer]") :] + ADDED)
    (stack.folder / "functions" / "direct").mkdir()
    (stack.folder / "functions" / "direct" / "handler.py").write_text(FUNCTION)
    (stack.folder / "workflows" / "pass.asl.json").write_text(PASS)
    for name in ("direct", "variations"):
        pattern = PATTERN | {"detail": {"bucket": {"name": [SOURCE]}, "object": {"key": [{"prefix": f"{name}/"}]}}}
        (stack.folder / "rules" / f"{name}.json").write_text(json.dumps(pattern))
    allow = {"Effect": "Allow", "Action": "states:StartExecution", "Resource": "*"}
    (stack.folder / "policies" / "rule-all.json").write_text(
        json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    )
    with stack:
        stack.client("logs").create_log_group(logGroupName="/my/events")  # A target's group must exist, as on AWS.
        yield stack


def test_machines_and_log_groups_get_their_input_once(stack: Stack) -> None:
    stack.client("s3").put_object(Bucket=SOURCE, Key="variations/a.txt", Body=b"content")

    def ended() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = stack.json("executions")
        return found if [execution["status"] for execution in found] == ["SUCCEEDED"] * 2 else None

    inputs = {
        execution["stateMachineArn"].rpartition(":")[2]: json.loads(
            stack.json("execution", execution["executionArn"])["input"]
        )
        for execution in wait_for(ended, what="the executions")
    }
    assert inputs["constant"] == {"hello": "world"}
    assert inputs["path"]["key"] == "variations/a.txt"
    assert set(inputs["path"]) >= {"key", "size", "etag", "sequencer"}

    row = wait_for(lambda: stack.file_with("variations/a.txt", "failed"), what="the end without a delivery")
    assert "without a delivery" in row["error_message"]
    events = wait_for(lambda: stack.json("logs", "/my/events"), what="the event in the log group")
    assert len(events) == 1
    event = json.loads(events[0]["message"])
    assert event["id"] == row["event_id"]
    assert event["detail-type"] == "Object Created"
    assert event["detail"]["object"]["key"] == "variations/a.txt"
    told = " ".join(entry["detail"] for entry in stack.json("file", row["file_id"])["timeline"])
    for target in ("stateMachine:path", "stateMachine:constant", "log-group:/my/events"):
        assert target in told, f"the timeline does not tell of {target}"


def test_a_function_without_a_state_machine_delivers(stack: Stack) -> None:
    stack.client("s3").put_object(Bucket=SOURCE, Key="direct/a.txt", Body=b"content")
    row = stack.delivered("direct/a.txt")
    assert stack.client("s3").get_object(Bucket=DESTINATION, Key="direct/a.txt")["Body"].read() == b"content"
    item = stack.client("dynamodb").get_item(TableName="FileTransferMetadata", Key={"file_id": {"S": row["file_id"]}})[
        "Item"
    ]
    assert item["status"] == {"S": "transferred"}
    printed = wait_for(
        lambda: [e for e in stack.json("logs", "/aws/lambda/direct") if e["message"].startswith("direct")],
        what="the function's line",
    )
    assert [e["message"].split()[:2] for e in printed] == [["direct", row["event_id"]]]
    told = " ".join(entry["detail"] for entry in stack.json("file", row["file_id"])["timeline"])
    assert "function:direct" in told
