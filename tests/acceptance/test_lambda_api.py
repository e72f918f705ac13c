"""Functions over the wire with botocore's client and real workers: versions, layers, sources, destinations, callers."""

import io
import json
import textwrap
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.running import Stack, wait_for

FUNCTION_ROLE = "arn:aws:iam::000000000000:role/worker"
ACCOUNT = "000000000000"
POINTS = ("lambda.after-batch",)
"""Where the server dies in these tests."""

HANDLER = """
    import json, os, boto3

    def run(event, context):
        if isinstance(event, dict) and event.get("fail"):
            raise ValueError("on purpose")
        try:
            import shared
            layer = shared.NAME
        except ImportError:
            layer = None
        seen = {"event": event, "stage": os.environ.get("STAGE"), "version": context.function_version,
                "arn": context.invoked_function_arn, "layer": layer}
        if os.environ.get("OUT"):
            boto3.client("sqs").send_message(QueueUrl=os.environ["OUT"], MessageBody=json.dumps(seen))
        return seen
"""


def archive(**files: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for name, text in files.items():
            made.writestr(name.replace("__", "/") + ".py", textwrap.dedent(text))
    return content.getvalue()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("lambda") / "stack") as running:
        iam = running.client("iam")
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": [
            "lambda.amazonaws.com", "states.amazonaws.com",
        ]}}  # fmt: skip
        iam.create_role(
            RoleName="worker", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        )
        allow = {
            "Effect": "Allow",
            "Action": ["sqs:*", "dynamodb:*", "lambda:InvokeFunction", "logs:*", "sns:*", "events:*"],
            "Resource": "*",
        }
        iam.put_role_policy(RoleName="worker", PolicyName="all", PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [allow]}
        ))  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def functions(stack: Stack) -> Any:
    return stack.client("lambda")


@pytest.fixture(scope="module")
def out(stack: Stack) -> str:
    url: str = stack.client("sqs").create_queue(QueueName="out")["QueueUrl"]
    return url


def create(functions: Any, name: str, **members: Any) -> dict[str, Any]:
    answer: dict[str, Any] = functions.create_function(
        FunctionName=name, Runtime="python3.12", Role=FUNCTION_ROLE, Handler="handler.run", Timeout=20,
        Code={"ZipFile": archive(handler=HANDLER)}, **members,
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName=name)
    return answer


def invoke(functions: Any, name: str, event: Any = None, **members: Any) -> Any:
    answer = functions.invoke(FunctionName=name, Payload=json.dumps(event).encode(), **members)
    assert "FunctionError" not in answer, answer["Payload"].read()
    return json.loads(answer["Payload"].read())


def receive(stack: Stack, url: str) -> dict[str, Any]:
    """Return the next message's body, and delete the message."""
    queues = stack.client("sqs")
    (message,) = wait_for(
        lambda: queues.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages"), what=f"a message in {url}"
    )
    queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    body: dict[str, Any] = json.loads(message["Body"])
    return body


def test_versions_aliases_and_layers_in_real_workers(stack: Stack, functions: Any) -> None:
    layer = functions.publish_layer_version(
        LayerName="shared", Content={"ZipFile": archive(python__shared="NAME = 'one'")}
    )
    create(functions, "api", Environment={"Variables": {"STAGE": "a"}}, Layers=[layer["LayerVersionArn"]], Publish=True)
    functions.update_function_configuration(FunctionName="api", Environment={"Variables": {"STAGE": "b"}}, Layers=[])
    functions.get_waiter("function_updated_v2").wait(FunctionName="api")
    alias_arn = functions.create_alias(FunctionName="api", Name="live", FunctionVersion="1")["AliasArn"]
    live = invoke(functions, "api:live")
    assert (live["stage"], live["version"], live["layer"]) == ("a", "1", "one")
    assert live["arn"] == alias_arn and invoke(functions, alias_arn)["arn"] == alias_arn
    latest = invoke(functions, "api")
    assert (latest["stage"], latest["version"], latest["layer"]) == ("b", "$LATEST", None)
    assert latest["arn"] == alias_arn.removesuffix(":live")
    assert functions.get_layer_version_by_arn(Arn=layer["LayerVersionArn"])["Version"] == 1
    assert [entry["LayerName"] for entry in functions.list_layers()["Layers"]] == ["shared"]
    assert functions.list_tags(Resource=latest["arn"])["Tags"] == {}


def test_code_from_a_bucket_needs_the_callers_rights(stack: Stack, functions: Any) -> None:
    buckets = stack.client("s3")
    buckets.create_bucket(Bucket="code")
    buckets.put_object(Bucket="code", Key="big/code.zip", Body=archive(handler=HANDLER) + bytes(0))
    functions.create_function(
        FunctionName="stored", Runtime="python3.12", Role=FUNCTION_ROLE, Handler="handler.run",
        Code={"S3Bucket": "code", "S3Key": "big/code.zip"},
    )  # fmt: skip
    assert invoke(functions, "stored", 7)["event"] == 7
    with pytest.raises(ClientError, match="NoSuchKey"):
        functions.update_function_code(FunctionName="stored", S3Bucket="code", S3Key="lost.zip")


def test_a_state_machine_invokes_an_alias(stack: Stack, functions: Any) -> None:
    create(functions, "task", Publish=True)
    functions.create_alias(FunctionName="task", Name="live", FunctionVersion="1")
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:task:live"
    states = {
        "Named": {
            "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Next": "Direct",
            "Parameters": {"FunctionName": arn, "Payload": {"n": 1}}, "ResultPath": "$.named",
        },
        "Direct": {"Type": "Task", "Resource": arn, "ResultPath": "$.direct", "End": True},
    }  # fmt: skip
    machines = stack.client("stepfunctions")
    machine = machines.create_state_machine(
        name="aliases", roleArn=FUNCTION_ROLE, definition=json.dumps({"StartAt": "Named", "States": states})
    )
    execution = machines.start_execution(stateMachineArn=machine["stateMachineArn"], input="{}")["executionArn"]
    done = wait_for(lambda: _ended(machines, execution), what="the execution")
    output = json.loads(done["output"])
    assert output["named"]["ExecutedVersion"] == "1" and output["named"]["Payload"]["arn"] == arn
    assert (output["direct"]["arn"], output["direct"]["version"]) == (arn, "1")


def _ended(machines: Any, execution: str) -> Any:
    shown = machines.describe_execution(executionArn=execution)
    if shown["status"] == "RUNNING":
        return None
    assert shown["status"] == "SUCCEEDED", shown
    return shown


def test_a_rule_invokes_an_alias_as_its_policy_says(stack: Stack, functions: Any, out: str) -> None:
    create(functions, "target", Publish=True, Environment={"Variables": {"OUT": out}})
    functions.create_alias(FunctionName="target", Name="live", FunctionVersion="1")
    buses = stack.client("events")
    pattern = json.dumps({"source": ["my.app"]})
    rule_arn = buses.put_rule(Name="to-function", EventPattern=pattern)["RuleArn"]
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:target:live"
    functions.add_permission(
        FunctionName="target", Qualifier="live", StatementId="rule", Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com", SourceArn=rule_arn,
    )  # fmt: skip
    assert buses.put_targets(Rule="to-function", Targets=[{"Id": "f", "Arn": arn}])["FailedEntryCount"] == 0
    buses.put_events(Entries=[{"Source": "my.app", "DetailType": "x", "Detail": '{"n": 1}'}])
    seen = receive(stack, out)
    assert (seen["arn"], seen["version"], seen["event"]["detail"]) == (arn, "1", {"n": 1})


def test_queues_and_streams_invoke_functions_as_their_role(stack: Stack, functions: Any, out: str) -> None:
    create(functions, "reader", Environment={"Variables": {"OUT": out}})
    queues, tables = stack.client("sqs"), stack.client("dynamodb")
    url = queues.create_queue(QueueName="in")["QueueUrl"]
    functions.create_event_source_mapping(FunctionName="reader", EventSourceArn=f"arn:aws:sqs:us-east-1:{ACCOUNT}:in")
    queues.send_message(QueueUrl=url, MessageBody="hello")
    (record,) = receive(stack, out)["event"]["Records"]
    assert (record["body"], record["eventSource"]) == ("hello", "aws:sqs")
    stream = tables.create_table(
        TableName="orders", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )["TableDescription"]["LatestStreamArn"]  # fmt: skip
    mapping = functions.create_event_source_mapping(
        FunctionName="reader", EventSourceArn=stream, StartingPosition="TRIM_HORIZON", BatchSize=10
    )
    tables.put_item(TableName="orders", Item={"id": {"S": "1"}, "total": {"N": "3"}})
    (record,) = receive(stack, out)["event"]["Records"]
    assert record["dynamodb"]["NewImage"] == {"id": {"S": "1"}, "total": {"N": "3"}}
    shown = wait_for(lambda: _processed(functions, mapping["UUID"]), what="LastProcessingResult of the mapping")
    assert shown["State"] == "Enabled"
    for found in functions.list_event_source_mappings(FunctionName="reader")["EventSourceMappings"]:
        functions.delete_event_source_mapping(UUID=found["UUID"])
    assert functions.list_event_source_mappings()["EventSourceMappings"] == []


def _processed(functions: Any, uuid: str) -> Any:
    shown = functions.get_event_source_mapping(UUID=uuid)
    return shown if shown["LastProcessingResult"] == "OK" else None


def test_the_outcome_of_an_event_goes_to_its_destination(stack: Stack, functions: Any, out: str) -> None:
    create(functions, "later")
    queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:out"
    functions.put_function_event_invoke_config(
        FunctionName="later", MaximumRetryAttempts=0,
        DestinationConfig={"OnSuccess": {"Destination": queue}, "OnFailure": {"Destination": queue}},
    )  # fmt: skip
    for event, condition in (({"n": 1}, "Success"), ({"fail": True}, "RetriesExhausted")):
        functions.invoke(FunctionName="later", InvocationType="Event", Payload=json.dumps(event).encode())
        record = receive(stack, out)
        assert (record["requestContext"]["condition"], record["requestPayload"]) == (condition, event)
    assert record["responsePayload"]["errorType"] == "ValueError"


def test_outcomes_reach_buses_and_topics(stack: Stack, functions: Any, out: str) -> None:
    queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:out"
    buses, topics = stack.client("events"), stack.client("sns")
    pattern = json.dumps({"source": ["lambda"], "detail-type": ["Lambda Function Invocation Result - Success"]})
    buses.put_rule(Name="outcomes", EventPattern=pattern)
    buses.put_targets(Rule="outcomes", Targets=[{"Id": "q", "Arn": queue}])
    topic = topics.create_topic(Name="letters")["TopicArn"]
    topics.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    create(functions, "teller", DeadLetterConfig={"TargetArn": topic})
    bus = f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default"
    functions.put_function_event_invoke_config(
        FunctionName="teller", MaximumRetryAttempts=0, DestinationConfig={"OnSuccess": {"Destination": bus}}
    )
    functions.invoke(FunctionName="teller", InvocationType="Event", Payload=b'{"n": 1}')
    event = receive(stack, out)
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:teller:$LATEST"
    assert event["resources"] == [bus, arn] and event["detail"]["requestContext"]["functionArn"] == arn
    assert event["detail"]["responsePayload"]["event"] == {"n": 1}
    functions.invoke(FunctionName="teller", InvocationType="Event", Payload=b'{"fail": true}')
    letter = receive(stack, out)
    assert (letter["TopicArn"], letter["Message"]) == (topic, '{"fail": true}')
    assert letter["MessageAttributes"]["ErrorMessage"]["Value"] == "ValueError: on purpose"


def test_provisioned_concurrency_is_ready_before_the_first_call(stack: Stack, functions: Any) -> None:
    create(functions, "warm", Publish=True)
    request = {"FunctionName": "warm", "Qualifier": "1"}
    functions.put_provisioned_concurrency_config(**request, ProvisionedConcurrentExecutions=1)

    def ready() -> Any:
        shown = functions.get_provisioned_concurrency_config(**request)
        return shown if shown["Status"] == "READY" else None

    assert wait_for(ready, what="the worker")["AvailableProvisionedConcurrentExecutions"] == 1
    functions.delete_provisioned_concurrency_config(**request)


def test_everything_is_there_after_a_crash(stack: Stack, out: str) -> None:
    functions, queues = stack.client("lambda"), stack.client("sqs")
    create(functions, "lasting", Publish=True, Environment={"Variables": {"OUT": out}})
    functions.create_alias(FunctionName="lasting", Name="live", FunctionVersion="1")
    url = queues.create_queue(QueueName="lasting")["QueueUrl"]
    source = f"arn:aws:sqs:us-east-1:{ACCOUNT}:lasting"
    functions.create_event_source_mapping(FunctionName="lasting:live", EventSourceArn=source)
    stack.kill()
    stack.start()
    functions, queues = stack.client("lambda"), stack.client("sqs")
    assert invoke(functions, "lasting:live", {"n": 1})["version"] == "1"
    assert receive(stack, out)["event"] == {"n": 1}
    queues.send_message(QueueUrl=url, MessageBody="after")
    seen = receive(stack, out)
    assert seen["event"]["Records"][0]["body"] == "after" and seen["arn"].endswith(":lasting:live")


def test_a_crash_repeats_at_most_the_batch_in_flight(stack: Stack, out: str) -> None:
    functions, queues, tables = stack.client("lambda"), stack.client("sqs"), stack.client("dynamodb")
    create(functions, "twice", Environment={"Variables": {"OUT": out}})
    stream = tables.create_table(
        TableName="counted", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
    )["TableDescription"]["LatestStreamArn"]  # fmt: skip
    functions.create_event_source_mapping(
        FunctionName="twice", EventSourceArn=stream, StartingPosition="TRIM_HORIZON", BatchSize=1
    )
    tables.put_item(TableName="counted", Item={"id": {"S": "0"}})
    keys = [_key(receive(stack, out))]
    stack.stop()
    stack.start(ENTREPOT_STORAGE_CRASH_AT=f"{POINTS[0]}:2")
    tables = stack.client("dynamodb")
    for number in range(1, 5):
        tables.put_item(TableName="counted", Item={"id": {"S": str(number)}})
    assert stack.process is not None
    stack.process.wait(30)
    stack.kill()
    stack.start()
    while keys[-1] != "4":
        keys.append(_key(receive(stack, out)))
    assert keys == ["0", "1", "2", "2", "3", "4"]
    queues = stack.client("sqs")
    assert "Messages" not in queues.receive_message(QueueUrl=out)


def _key(seen: dict[str, Any]) -> str:
    (record,) = seen["event"]["Records"]
    key: str = record["dynamodb"]["Keys"]["id"]["S"]
    return key
