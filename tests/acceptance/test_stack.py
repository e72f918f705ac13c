"""What `stack.toml` says is what is there after a restart; a mistake changes nothing."""

import json
from pathlib import Path

import pytest

from tests.running import Stack, wait_for

SOURCE, DESTINATION = "my-source-sftp-bucket", "my-destination-bucket"


def test_a_restart_takes_over_what_changed(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    toml = stack.folder / "stack.toml"
    original = toml.read_text()
    (tmp_path / "a.txt").write_text("a")
    with stack:
        stack.sftp(f"put {tmp_path}/a.txt one.txt")
        first = stack.delivered("demo/one.txt")

    # A user, a role and a rule that the file no longer names are gone; what was delivered stays.
    without_user = original.split("[users.demo]")[0] + "[rules." + original.split("[rules.", 1)[1]
    toml.write_text(without_user.replace("[rules.object-created", "[rules.other-name"))
    with stack:
        assert stack.json("users") == []
        stack.sftp("ls", expect=255)
        assert [rule["Name"] for rule in stack.client("events").list_rules()["Rules"]] == ["other-name"]
        stack.client("s3").put_object(Bucket=SOURCE, Key="demo/two.txt", Body=b"b")
        second = stack.delivered("demo/two.txt")
        assert second["execution_arn"] != first["execution_arn"]
        assert stack.file_with("demo/one.txt", "transferred")

    toml.write_text(original)
    workflow = stack.folder / "workflows" / "transfer.asl.json"
    definition = json.loads(workflow.read_text())
    definition["StartAt"] = "Greet"
    definition["States"]["Greet"] = {"Type": "Pass", "Next": "IdentifyFile"}
    workflow.write_text(json.dumps(definition))
    with stack:
        assert [rule["Name"] for rule in stack.client("events").list_rules()["Rules"]] == ["object-created"]
        stack.sftp(f"put {tmp_path}/a.txt three.txt")
        third = stack.delivered("demo/three.txt")
        entered = [
            event["stateEnteredEventDetails"]["name"]
            for event in stack.json("execution", third["execution_arn"])["events"]
            if "stateEnteredEventDetails" in event
        ]
        assert entered == ["Greet", "IdentifyFile", "TransferFile"]


def test_a_mistake_changes_nothing(tmp_path: Path) -> None:
    """The bucket comes before the broken rule in the file, and must not be made all the same."""
    stack = Stack(tmp_path / "stack")
    toml = stack.folder / "stack.toml"
    with stack:
        pass
    original = toml.read_text()
    rule = stack.folder / "rules" / "object-created.json"
    good = rule.read_text()
    toml.write_text(
        original.replace("[buckets.my-destination-bucket]", "[buckets.my-destination-bucket]\n[buckets.new-one]")
    )
    rule.write_text(good.replace('"prefix"', '"prefixx"').replace('"anything-but"', '"anything-butt"'))
    with pytest.raises(AssertionError, match="object-created"):
        stack.start()
    toml.write_text(original)
    rule.write_text(good)
    with stack:
        names = {bucket["Name"] for bucket in stack.client("s3").list_buckets()["Buckets"]}
        assert names == {SOURCE, DESTINATION}


def test_ports_in_use_and_a_second_server_are_told(stack: Stack) -> None:
    other = Stack(stack.folder)
    with pytest.raises(AssertionError, match="running for"):
        other.start()
    assert wait_for(lambda: stack.json("status"), what="the first server")["sessions"] == 0


def test_settings_from_the_environment_win(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack", environment={"ENTREPOT_STACK_REGION": "eu-central-1"})
    with stack:
        machines = stack.client("stepfunctions").list_state_machines()["stateMachines"]
        assert [machine["stateMachineArn"].split(":")[3] for machine in machines] == ["eu-central-1"]
        location = stack.client("s3").get_bucket_location(Bucket=SOURCE)
        assert location["LocationConstraint"] == "eu-central-1"
    broken = Stack(tmp_path / "stack", environment={"ENTREPOT_SERVER_SFTPPORT": "1"})
    with pytest.raises(AssertionError, match="ENTREPOT_SERVER_SFTPPORT"):
        broken.start()
