"""The endpoint with boto3 as its client, one small fake operation per protocol; and what it says when it refuses."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from entrepot import clock
from entrepot.credentials import Credentials
from entrepot.errors import AwsError, StorageFullError
from entrepot.operations import Call, Response
from tests.acceptance.wire_endpoint import KEY, RunningEndpoint, operation

WHEN = datetime(2026, 11, 23, 20, 15, 41, 123000, UTC)


class ConditionalCheckFailed(AwsError):
    """DynamoDB's, with a member."""

    code = "ConditionalCheckFailedException"
    status = 400


class NoSuchEntity(AwsError):
    """IAM's."""

    code = "NoSuchEntity"
    status = 404


def put_item(request: dict[str, Any], call: Call) -> Response:
    if request["TableName"] == "raises":
        raise RuntimeError("a secret that must not leave the server")
    if request["TableName"] == "full":
        raise StorageFullError("no room")
    if request["TableName"] == "conditional":
        raise ConditionalCheckFailed("The conditional request failed", Item=request["Item"])
    return {"Attributes": request["Item"]}


def create_role(request: dict[str, Any], call: Call) -> Response:
    role = {"Path": "/", "RoleName": request["RoleName"], "RoleId": "A" * 16, "Arn": "a" * 20, "CreateDate": WHEN}
    return {"Role": {**role, "Tags": request.get("Tags", [])}}


def no_role(request: dict[str, Any], call: Call) -> Response:
    raise NoSuchEntity(f"The role with name {request['RoleName']} cannot be found.")


def invoke(request: dict[str, Any], call: Call) -> Response:
    return {"StatusCode": 200, "Payload": request["Payload"], "ExecutedVersion": request.get("Qualifier", "$LATEST")}


def describe(request: dict[str, Any], call: Call) -> Response:
    return {
        "executionArn": request["executionArn"],
        "stateMachineArn": call.principal.arn,
        "status": "RUNNING",
        "startDate": WHEN,
        "name": f"{call.source_ip} {call.request_id}",
    }


def put_metric_data(request: dict[str, Any], call: Call) -> Response:
    assert request["MetricData"][0]["Timestamp"] == WHEN.replace(microsecond=0)
    assert request["MetricData"][0]["Value"] == 1.5
    return {}


FAKES = {
    "dynamodb": [operation("PutItem", put_item)],
    "iam": [operation("CreateRole", create_role), operation("GetRole", no_role)],
    "lambda": [operation("Invoke", invoke)],
    "stepfunctions": [operation("DescribeExecution", describe)],
    "sts": [operation("GetCallerIdentity", lambda request, call: {"Arn": call.principal.arn, "Account": "0" * 12})],
    "cloudwatch": [operation("PutMetricData", put_metric_data)],
}

JSON_CODES = (
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "ExpiredTokenException",
    "AccessDeniedException",
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[RunningEndpoint]:
    with RunningEndpoint(FAKES) as running:
        yield running


def refusal(call: Any, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response: dict[str, Any] = caught.value.response
    return {**response["Error"], "Status": response["ResponseMetadata"]["HTTPStatusCode"], **response}


def test_json(endpoint: RunningEndpoint) -> None:
    item = {"a": {"S": "ä"}, "b": {"B": b"\0\xff"}, "m": {"M": {"n": {"N": "1.50"}, "l": {"L": [{"NULL": True}]}}}}
    got = endpoint.client("dynamodb").put_item(TableName="table", Item=item)
    assert got["Attributes"] == item and got["ResponseMetadata"]["RequestId"]
    states = endpoint.client("stepfunctions").describe_execution(executionArn="arn:x")
    assert states["startDate"] == WHEN and states["name"].startswith("127.0.0.1 ")
    assert states["name"].endswith(states["ResponseMetadata"]["RequestId"])


def test_query(endpoint: RunningEndpoint) -> None:
    tags = [{"Key": "a&b", "Value": "<c>"}, {"Key": "d", "Value": ""}]
    got = endpoint.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument='{"a": "b+c"}', Tags=tags)
    assert got["Role"]["Tags"] == tags and got["Role"]["CreateDate"] == WHEN
    assert endpoint.client("sts").get_caller_identity()["Arn"] == KEY.principal.arn


def test_rest_json(endpoint: RunningEndpoint) -> None:
    got = endpoint.client("lambda").invoke(FunctionName="function:PROD", Payload=b'{"a": 1}', Qualifier="7")
    assert got["Payload"].read() == b'{"a": 1}' and got["ExecutedVersion"] == "7" and got["StatusCode"] == 200


def test_cloudwatch_in_the_protocol_that_botocore_chooses(endpoint: RunningEndpoint) -> None:
    endpoint.client("cloudwatch").put_metric_data(
        Namespace="n", MetricData=[{"MetricName": "m", "Value": 1.5, "Timestamp": WHEN.replace(microsecond=0)}]
    )


def test_errors_have_their_shape(endpoint: RunningEndpoint) -> None:
    dynamodb = endpoint.client("dynamodb")
    with pytest.raises(dynamodb.exceptions.ConditionalCheckFailedException) as caught:
        dynamodb.put_item(TableName="conditional", Item={"a": {"S": "b"}})
    assert caught.value.response["Item"] == {"a": {"S": "b"}}
    assert caught.value.response["Error"]["Message"] == "The conditional request failed"
    iam = endpoint.client("iam")
    with pytest.raises(iam.exceptions.NoSuchEntityException, match="role with name none"):
        iam.get_role(RoleName="none")


@pytest.mark.parametrize(
    ("service", "method", "arguments", "code", "status"),
    [
        ("dynamodb", "list_tables", {}, "UnknownOperationException", 501),
        ("lambda", "list_functions", {}, "UnknownOperationException", 501),
        ("iam", "list_users", {}, "InvalidAction", 501),
        ("s3", "list_buckets", {}, "NotImplemented", 501),
        ("sqs", "list_queues", {}, "UnknownOperationException", 501),
        ("cloudwatch", "list_dashboards", {}, "UnknownOperationException", 501),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    endpoint: RunningEndpoint, service: str, method: str, arguments: dict[str, Any], code: str, status: int
) -> None:
    client = endpoint.client(service)
    said = refusal(getattr(client, method), **arguments)
    assert (said["Code"], said["Status"]) == (code, status)
    assert f"{service}:{client.meta.method_to_api_mapping[method]} is not implemented" in said["Message"]


@pytest.mark.parametrize(
    ("service", "method", "unknown", "mismatch", "expired", "denied"),
    [
        ("dynamodb", "put_item", *JSON_CODES),
        ("lambda", "invoke", *JSON_CODES),
        ("sts", "get_caller_identity", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "AccessDenied"),
    ],
)
def test_who_is_not_believed_is_refused_in_the_services_words(
    endpoint: RunningEndpoint, service: str, method: str, unknown: str, mismatch: str, expired: str, denied: str
) -> None:
    arguments = {
        "put_item": {"TableName": "table", "Item": {}},
        "invoke": {"FunctionName": "f", "Payload": b"{}"},
        "get_caller_identity": {},
    }[method]

    def code(**options: Any) -> str:
        said = refusal(getattr(endpoint.client(service, **options), method), **arguments)["Code"]
        assert isinstance(said, str)
        return said

    assert code(aws_access_key_id="AKIDNOBODY") == unknown
    assert code(aws_secret_access_key="wrong") == mismatch
    assert code(aws_session_token="invented") == unknown
    endpoint.credentials["ASIAOLD"] = Credentials("ASIAOLD", "s", "token", KEY.principal, clock.now_ms() - 1)
    assert code(aws_access_key_id="ASIAOLD", aws_secret_access_key="s", aws_session_token="token") == expired
    endpoint.denied = {"test:PutItem", "test:Invoke", "test:GetCallerIdentity"}
    try:
        assert code() == denied
    finally:
        endpoint.denied = set()


def test_another_region_is_refused(endpoint: RunningEndpoint) -> None:
    client = endpoint.client("dynamodb", region_name="eu-west-1")
    assert "expecting 'us-east-1'" in refusal(client.put_item, TableName="table", Item={})["Message"]


def test_the_models_constraints_are_checked(endpoint: RunningEndpoint) -> None:
    said = refusal(endpoint.client("dynamodb", config={"parameter_validation": False}).put_item, TableName="", Item={})
    assert said["Code"] == "ValidationException"
    assert said["Message"] == (
        "1 validation error detected: Value '' at 'tableName' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1"
    )
    said = refusal(endpoint.client("iam", config={"parameter_validation": False}).create_role, RoleName="a b")
    assert said["Code"] == "ValidationError" and said["Message"].startswith("2 validation errors detected: ")
    assert "Value null at 'assumeRolePolicyDocument'" in said["Message"]
    assert "Value 'a b' at 'roleName' failed to satisfy constraint: Member must satisfy regular" in said["Message"]


def test_an_internal_error_tells_nothing_but_its_request(endpoint: RunningEndpoint) -> None:
    said = refusal(endpoint.client("dynamodb").put_item, TableName="raises", Item={})
    assert (said["Code"], said["Status"]) == ("InternalServerError", 500)
    assert "secret" not in str(said) and said["ResponseMetadata"]["RequestId"] in said["Message"]


def test_a_full_disk_is_a_reason_to_come_again(endpoint: RunningEndpoint) -> None:
    said = refusal(endpoint.client("dynamodb").put_item, TableName="full", Item={})
    assert said["Status"] == 503 and "disk is full" in said["Message"]


def test_every_request_is_recorded(endpoint: RunningEndpoint) -> None:
    endpoint.records.clear()
    got = endpoint.client("sts").get_caller_identity()
    refusal(endpoint.client("iam").get_role, RoleName="none")
    first, second = endpoint.records
    assert (first.service, first.operation, first.status, first.code) == ("sts", "GetCallerIdentity", 200, "")
    assert first.request_id == got["ResponseMetadata"]["RequestId"] and first.principal_arn == KEY.principal.arn
    assert (second.service, second.operation, second.status, second.code) == ("iam", "GetRole", 404, "NoSuchEntity")


def test_stop_lets_requests_under_way_end() -> None:
    entered, leave = threading.Event(), threading.Event()

    async def slow(request: dict[str, Any], call: Call) -> Response:
        entered.set()
        await asyncio.to_thread(leave.wait, 10)
        return {"Arn": "late", "Account": "0" * 12}

    with RunningEndpoint({"sts": [operation("GetCallerIdentity", slow)]}) as running:  # type: ignore[arg-type]
        client = running.client("sts")
        answers: list[str] = []
        caller = threading.Thread(target=lambda: answers.append(client.get_caller_identity()["Arn"]))
        caller.start()
        assert entered.wait(10)
        running._loop.call_soon_threadsafe(running._stopping.set)
        leave.set()
        caller.join(10)
        assert answers == ["late"]
