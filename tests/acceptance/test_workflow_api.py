"""Step Functions with stock clients: versions, aliases, activities, HTTP tasks, TestState, and tasks of every service."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import botocore.exceptions
import pytest

from tests.running import Stack, wait_for

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
ALLOW_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("workflow-api") / "stack") as stack:
        yield stack


@pytest.fixture(scope="module")
def role(stack: Stack) -> str:
    iam = stack.client("iam")
    made = iam.create_role(RoleName="everything", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.put_role_policy(RoleName="everything", PolicyName="all", PolicyDocument=json.dumps(ALLOW_ALL))
    return str(made["Role"]["Arn"])


def passing(result: Any) -> str:
    return json.dumps({"StartAt": "P", "States": {"P": {"Type": "Pass", "Result": result, "End": True}}})


def task(resource: str, parameters: Any = None, **more: Any) -> str:
    state = {"Type": "Task", "Resource": resource, "End": True, **more}
    if parameters is not None:
        state["Parameters"] = parameters
    return json.dumps({"StartAt": "T", "States": {"T": state}})


def create(stack: Stack, role: str, name: str, definition: str, **more: Any) -> str:
    made = stack.client("stepfunctions").create_state_machine(name=name, definition=definition, roleArn=role, **more)
    return str(made["stateMachineArn"])


def ended(stack: Stack, arn: str, input_: Any = None) -> dict[str, Any]:
    states = stack.client("stepfunctions")
    execution = states.start_execution(stateMachineArn=arn, input=json.dumps({} if input_ is None else input_))

    def over() -> dict[str, Any] | None:
        found: dict[str, Any] = states.describe_execution(executionArn=execution["executionArn"])
        return found if found["status"] != "RUNNING" else None

    return wait_for(over, what="the end of the execution")


def test_versions_and_aliases(stack: Stack, role: str) -> None:
    states = stack.client("stepfunctions")
    arn = create(stack, role, "versioned", passing(1), publish=True)
    states.update_state_machine(stateMachineArn=arn, definition=passing(2), publish=True)
    versions = states.list_state_machine_versions(stateMachineArn=arn)["stateMachineVersions"]
    assert [entry["stateMachineVersionArn"] for entry in versions] == [f"{arn}:2", f"{arn}:1"]
    routing = [{"stateMachineVersionArn": f"{arn}:1", "weight": 100}]
    alias = states.create_state_machine_alias(name="live", routingConfiguration=routing)["stateMachineAliasArn"]
    assert (ended(stack, alias)["output"], ended(stack, arn)["output"]) == ("1", "2")
    with pytest.raises(states.exceptions.ConflictException):
        states.delete_state_machine_version(stateMachineVersionArn=f"{arn}:1")


def test_a_worker_serves_an_activity_across_a_crash(stack: Stack, role: str) -> None:
    states = stack.client("stepfunctions")
    activity = states.create_activity(name="review")["activityArn"]
    arn = create(stack, role, "reviewed", task(activity, HeartbeatSeconds=300))
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(states.get_activity_task, activityArn=activity, workerName="anna")
        execution = states.start_execution(stateMachineArn=arn, input='{"n": 1}')["executionArn"]
        work = polled.result(60)
    assert json.loads(work["input"]) == {"n": 1}
    stack.kill()
    stack.start()
    states = stack.client("stepfunctions")
    states.send_task_heartbeat(taskToken=work["taskToken"])
    states.send_task_success(taskToken=work["taskToken"], output='"seen"')
    assert states.describe_execution(executionArn=execution)["output"] == '"seen"'
    types = [event["type"] for event in states.get_execution_history(executionArn=execution)["events"]]
    assert types[2:5] == ["ActivityScheduled", "ActivityStarted", "ActivitySucceeded"]


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        told = {"path": self.path, "body": json.loads(body), "key": self.headers["X-Key"]}
        content = json.dumps(told).encode()
        self.send_response(200 if told["body"].get("ok", True) else 418)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: the test's output is its own."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_http_task_with_a_connection(stack: Stack, role: str, endpoint: str) -> None:
    made = stack.client("events").create_connection(
        Name="api",
        AuthorizationType="API_KEY",
        AuthParameters={"ApiKeyAuthParameters": {"ApiKeyName": "X-Key", "ApiKeyValue": "hidden-value"}},
    )
    parameters = {
        "ApiEndpoint": f"{endpoint}/orders",
        "Method": "POST",
        "Authentication": {"ConnectionArn": made["ConnectionArn"]},
        "QueryParameters": {"q": "1"},
        "RequestBody.$": "$",
    }
    arn = create(stack, role, "calls", task("arn:aws:states:::http:invoke", parameters))
    execution = ended(stack, arn, {"n": 1})
    answer = json.loads(execution["output"])
    assert (answer["StatusCode"], answer["ResponseBody"]["path"]) == (200, "/orders?q=1")
    assert answer["ResponseBody"]["body"] == {"n": 1} and answer["ResponseBody"]["key"] == "hidden-value"
    refused = ended(stack, arn, {"ok": False})
    assert (refused["status"], refused["error"]) == ("FAILED", "States.Http.StatusCode.418")
    tried = stack.client("stepfunctions").test_state(
        definition=json.dumps(json.loads(task("arn:aws:states:::http:invoke", parameters))["States"]["T"]),
        roleArn=role,
        input='{"n": 1}',
        inspectionLevel="TRACE",
    )
    assert tried["status"] == "SUCCEEDED"
    assert "hidden-value" not in tried["inspectionData"]["request"]["headers"]


def test_tasks_of_services(stack: Stack, role: str) -> None:
    queue = stack.client("sqs").create_queue(QueueName="tasks")["QueueUrl"]
    topic = stack.client("sns").create_topic(Name="tasks")["TopicArn"]
    bucket = "my-destination-bucket"
    steps: list[tuple[str, dict[str, Any]]] = [
        ("arn:aws:states:::aws-sdk:s3:putObject", {"Bucket": bucket, "Key": "made", "Body": {"a": 1}}),
        ("arn:aws:states:::aws-sdk:s3:getObject", {"Bucket": bucket, "Key": "made"}),
        ("arn:aws:states:::aws-sdk:s3:listObjectsV2", {"Bucket": bucket, "Prefix": "made"}),
        ("arn:aws:states:::sqs:sendMessage", {"QueueUrl": queue, "MessageBody": {"b": 2}}),
        ("arn:aws:states:::aws-sdk:sqs:receiveMessage", {"QueueUrl": queue}),
        ("arn:aws:states:::sns:publish", {"TopicArn": topic, "Message": {"c": 3}}),
        ("arn:aws:states:::events:putEvents", {"Entries": [{"Source": "s", "DetailType": "d", "Detail": {"d": 4}}]}),
        ("arn:aws:states:::aws-sdk:cloudwatchlogs:createLogGroup", {"LogGroupName": "made"}),
        ("arn:aws:states:::aws-sdk:sfn:listStateMachines", {"MaxResults": 1}),
        ("arn:aws:states:::aws-sdk:sts:getCallerIdentity", {}),
        ("arn:aws:states:::aws-sdk:iam:getRole", {"RoleName": "everything"}),
        ("arn:aws:states:::aws-sdk:lambda:listFunctions", {}),
        ("arn:aws:states:::aws-sdk:dynamodb:listTables", {}),
        ("arn:aws:states:::aws-sdk:transfer:listServers", {}),
        ("arn:aws:states:::aws-sdk:eventbridge:listEventBuses", {}),
    ]
    states = {
        f"S{number}": {
            "Type": "Task",
            "Resource": resource,
            "Parameters": parameters,
            "ResultPath": f"$.r{number}",
            **({"Next": f"S{number + 1}"} if number + 1 < len(steps) else {"End": True}),
        }
        for number, (resource, parameters) in enumerate(steps)
    }
    arn = create(stack, role, "services", json.dumps({"StartAt": "S0", "States": states}))
    execution = ended(stack, arn)
    assert execution["status"] == "SUCCEEDED", (execution.get("error"), execution.get("cause"))
    results = json.loads(execution["output"])
    assert results["r1"]["Body"] == '{"a":1}'
    assert results["r2"]["Contents"][0]["Key"] == "made"
    assert results["r4"]["Messages"][0]["Body"] == '{"b":2}'
    assert results["r5"]["MessageId"] and results["r6"]["FailedEntryCount"] == 0
    assert results["r9"]["Arn"].partition("assumed-role/")[2].startswith("everything/")


def test_express(stack: Stack, role: str) -> None:
    states = stack.client("stepfunctions")
    group = "/express/log"
    stack.client("logs").create_log_group(logGroupName=group)
    arn = states.list_state_machines()["stateMachines"][0]["stateMachineArn"].rpartition(":stateMachine:")[0]
    destination = {
        "cloudWatchLogsLogGroup": {"logGroupArn": f"{arn.replace(':states:', ':logs:')}:log-group:{group}:*"}
    }
    machine = create(
        stack,
        role,
        "quick",
        passing({"x": 1}),
        type="EXPRESS",
        loggingConfiguration={"level": "ALL", "includeExecutionData": True, "destinations": [destination]},
    )
    answer = states.start_sync_execution(stateMachineArn=machine)
    assert (answer["status"], json.loads(answer["output"])) == ("SUCCEEDED", {"x": 1})
    execution = states.start_execution(stateMachineArn=machine)["executionArn"]
    with pytest.raises(botocore.exceptions.ClientError, match="Resource type not valid in this context: express"):
        states.describe_execution(executionArn=execution)

    def logged() -> list[str] | None:
        found = stack.client("logs").filter_log_events(logGroupName=group)["events"]
        lines = [json.loads(event["message"]) for event in found]
        types = [line["type"] for line in lines if line["execution_arn"] == execution]
        return types if "ExecutionSucceeded" in types else None

    assert wait_for(logged, what="the log") == [
        "ExecutionStarted", "PassStateEntered", "PassStateExited", "ExecutionSucceeded",
    ]  # fmt: skip
