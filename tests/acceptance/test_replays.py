"""A replay that is killed again and again: everything once per target; and an API destination, over real HTTP."""

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.exceptions
import pytest

from tests.running import NotReadyError, Stack, wait_for

SOURCE = "my-source-sftp-bucket"
FILES = 40  # More than one step of a replay takes.
POINTS = ("events.before-replay-step", "events.after-replay-step")
"""The points of the durable path (docs/durability.md) that only replays reach."""

BUS = "arn:aws:events:us-east-1:000000000000:event-bus/default"


def window() -> dict[str, datetime]:
    now = datetime.now(UTC)
    return {"EventStartTime": now - timedelta(hours=1), "EventEndTime": now + timedelta(hours=1)}


def executions(client: Any) -> list[dict[str, Any]]:
    (machine,) = client.list_state_machines()["stateMachines"]
    found: list[dict[str, Any]] = []
    for page in client.get_paginator("list_executions").paginate(stateMachineArn=machine["stateMachineArn"]):
        found += page["executions"]
    return found


def died(stack: Stack) -> None:
    assert stack.process is not None
    wait_for(lambda: stack.process is None or stack.process.poll() is not None, what="the death at its point")
    stack._ended(10)


def test_a_replay_survives_kill_9_and_sends_nothing_twice(tmp_path: Any) -> None:
    with Stack(tmp_path / "stack") as stack:
        events, s3 = stack.client("events"), stack.client("s3")
        events.create_archive(ArchiveName="all", EventSourceArn=BUS)
        queue = stack.client("sqs").create_queue(QueueName="seen")["QueueUrl"]
        pattern = json.dumps({"source": ["aws.s3"], "detail": {"bucket": {"name": [SOURCE]}}})
        rule = events.put_rule(Name="seen", EventPattern=pattern)["RuleArn"]
        events.put_targets(Rule="seen", Targets=[{"Id": "q", "Arn": "arn:aws:sqs:us-east-1:000000000000:seen"}])
        for number in range(FILES):
            s3.put_object(Bucket=SOURCE, Key=f"acme/{number}.txt", Body=b"content")
        states = stack.client("stepfunctions")
        wait_for(lambda: len(executions(states)) == FILES, what="the executions")
        described = events.describe_archive(ArchiveName="all")
        assert described["EventCount"] >= FILES and described["SizeBytes"] > FILES * 300
        stack.stop()
        stack.start(ENTREPOT_STORAGE_CRASH_AT=f"{POINTS[0]}:2")
        with suppress(botocore.exceptions.BotoCoreError):  # It may die before it has answered.
            stack.client("events").start_replay(
                ReplayName="again", EventSourceArn=described["ArchiveArn"], Destination={"Arn": BUS}, **window()
            )
        died(stack)
        for point in (f"{POINTS[1]}:1", "events.after-delivery:2"):
            with suppress(NotReadyError):  # It may die before it is ready.
                stack.start(ENTREPOT_STORAGE_CRASH_AT=point)
                died(stack)
        stack.start()
        events, states = stack.client("events"), stack.client("stepfunctions")
        wait_for(lambda: events.describe_replay(ReplayName="again")["State"] == "COMPLETED", what="the replay's end")
        wait_for(lambda: stack.json("status")["pending_deliveries"] == 0, what="the deliveries")

        def settled() -> list[dict[str, Any]] | None:
            found = executions(states)
            return found if all(one["status"] == "SUCCEEDED" for one in found) else None

        found = wait_for(settled, what="the executions' end")
        assert len(found) == 2 * FILES and len({one["name"] for one in found}) == 2 * FILES
        sqs = stack.client("sqs")
        attributes = sqs.get_queue_attributes(
            QueueUrl=stack.client("sqs").get_queue_url(QueueName="seen")["QueueUrl"],
            AttributeNames=["ApproximateNumberOfMessages"],
        )
        assert int(attributes["Attributes"]["ApproximateNumberOfMessages"]) == 2 * FILES
        row = stack.delivered("acme/7.txt")
        timeline = stack.json("file", row["file_id"])["timeline"]
        assert [entry["title"] for entry in timeline if entry["kind"] == "replay"] == ["Replayed by again"]
        attempts = [e["detail"].rpartition(" ")[2] for e in timeline if e["title"].startswith("Rule object-created")]
        assert attempts == ["1", "2"]
        assert rule.endswith("rule/seen") and queue


class Recorder(BaseHTTPRequestHandler):
    """Answers the first request with 503, all others with 200, and remembers them."""

    seen: list[tuple[str, dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, dict(self.headers), body))
        self.send_response(503 if len(self.seen) == 1 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[ThreadingHTTPServer]:
    Recorder.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_api_destination_is_called_with_its_key_and_again_after_503(
    tmp_path: Any, listener: ThreadingHTTPServer
) -> None:
    with Stack(tmp_path / "stack") as stack:
        events = stack.client("events")
        connection = events.create_connection(
            Name="c", AuthorizationType="API_KEY",
            AuthParameters={"ApiKeyAuthParameters": {"ApiKeyName": "X-Key", "ApiKeyValue": "s3cr3t-value"}},
        )  # fmt: skip
        assert connection["ConnectionState"] == "AUTHORIZED"
        destination = events.create_api_destination(
            Name="d", ConnectionArn=connection["ConnectionArn"], HttpMethod="POST",
            InvocationEndpoint=f"http://127.0.0.1:{listener.server_address[1]}/orders/*",
        )  # fmt: skip
        iam = stack.client("iam")
        trust = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sts:AssumeRole"}
        role = iam.create_role(RoleName="call", AssumeRolePolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [trust]}))["Role"]["Arn"]  # fmt: skip
        allow = {"Effect": "Allow", "Action": "events:InvokeApiDestination", "Resource": "*"}
        iam.put_role_policy(RoleName="call", PolicyName="p", PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [allow]}))  # fmt: skip
        events.put_rule(Name="r", EventPattern=json.dumps({"source": ["shop"]}))
        events.put_targets(Rule="r", Targets=[{
            "Id": "t", "Arn": destination["ApiDestinationArn"], "RoleArn": role, "InputPath": "$.detail",
            "HttpParameters": {"PathParameterValues": ["$.detail.id"], "QueryStringParameters": {"a": "b"}},
        }])  # fmt: skip
        answer = events.put_events(Entries=[{"Source": "shop", "DetailType": "d", "Detail": '{"id": "o/1"}'}, {}])
        assert answer["FailedEntryCount"] == 1 and answer["Entries"][1]["ErrorCode"] == "InvalidArgument"
        wait_for(lambda: len(Recorder.seen) == 2, what="the second try")
        wait_for(lambda: stack.json("status")["pending_deliveries"] == 0, what="the delivery")
        for path, headers, body in Recorder.seen:
            assert (path, json.loads(body)) == ("/orders/o%2F1?a=b", {"id": "o/1"})
            assert headers["X-Key"] == "s3cr3t-value"
            assert headers["User-Agent"] == "Amazon/EventBridge/ApiDestinations"
        described = events.describe_connection(Name="c")
        assert described["AuthParameters"] == {"ApiKeyAuthParameters": {"ApiKeyName": "X-Key"}}
        told = stack.server_log() + json.dumps(stack.json("logs", "/aws/events/deliveries"))
        assert "503" in told and "s3cr3t-value" not in told
    for path in (stack.folder / "data").rglob("*"):
        assert not path.is_file() or b"s3cr3t-value" not in path.read_bytes(), f"the secret is in {path}"
