"""What a task's Resource stands for: an operation of the gate, its request, its result and its errors as AWS names them.

Owns the optimised integrations (lambda, dynamodb, events, states), functions' ARNs, and every `aws-sdk:` action that
`Operations` serves. Source: https://docs.aws.amazon.com/step-functions/latest/dg/integrate-services.html
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from entrepot import ids
from entrepot.arns import Account
from entrepot.database import Transaction
from entrepot.errors import AwsError
from entrepot.operations import AsyncOperation, Call, Operation, Operations, Principal

from . import http_task, shapes
from .executions import Execution
from .failures import TaskError
from .happenings import ScheduledTask
from .http_task import Exchange, HttpTasks
from .interpreter import DATA_LIMIT_BYTES
from .language.definition import Integration, Resource
from .language.evaluation import RUNTIME, TASK_FAILED, Json
from .language.json_text import InvalidJson, dumps, loads
from .maps.readers import AskS3
from .state import ExecutionState

PrincipalForRole: TypeAlias = Callable[[str, str], Principal]
"""`principal_for_role(role_arn, session_name)`: who acts in a session of a role."""

AssumeRole: TypeAlias = Callable[[Principal, str, str], Principal]
"""`assume_role(caller, role_arn, session_name)`: who acts when the caller takes on another role; raises AwsError."""

RESULT_LIMIT_BYTES = 16 * DATA_LIMIT_BYTES
"""A streamed result is read up to here; it fails with States.DataLimitExceeded long before."""


@dataclass(frozen=True, slots=True)
class _Service:
    """One service by the name that definitions use: botocore's name, and the prefix of its errors."""

    botocore: str
    prefix: str
    v1_name: str = ""
    """How the older SDK of the optimised integrations names it in causes."""
    v1_exception: str = ""
    """The error of an optimised integration that its model does not know."""


_SDK_SERVICES = {
    "s3": _Service("s3", "S3"),
    "dynamodb": _Service("dynamodb", "DynamoDb"),
    "dynamodbstreams": _Service("dynamodbstreams", "DynamoDbStreams"),
    "sfn": _Service("stepfunctions", "Sfn"),
    "eventbridge": _Service("events", "EventBridge"),
    "cloudwatchlogs": _Service("logs", "CloudWatchLogs"),
    "cloudwatch": _Service("cloudwatch", "CloudWatch"),
    "lambda": _Service("lambda", "Lambda"),
    "sns": _Service("sns", "Sns"),
    "sqs": _Service("sqs", "Sqs"),
    "sts": _Service("sts", "Sts"),
    "iam": _Service("iam", "Iam"),
    "transfer": _Service("transfer", "Transfer"),
}

_OPTIMIZED_SERVICES = {
    "lambda": _Service("lambda", "Lambda", "AWSLambda", "AWSLambdaException"),
    "dynamodb": _Service("dynamodb", "DynamoDB", "AmazonDynamoDBv2", "AmazonDynamoDBException"),
    "events": _Service("events", "EventBridge", "AmazonCloudWatchEvents", "AmazonCloudWatchEventsException"),
    "states": _Service("stepfunctions", "StepFunctions", "AWSStepFunctions", "AWSStepFunctionsException"),
    "sns": _Service("sns", "SNS", "AmazonSNS", "AmazonSNSException"),
    "sqs": _Service("sqs", "SQS", "AmazonSQS", "AmazonSQSException"),
}


HTTP = _Service("", "Http")
"""HTTP tasks: no service of the gate."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task that is ready to run."""

    resource: Resource
    service: _Service
    operation: str
    request: dict[str, Any]
    call: Call
    leaves_ledger: bool


class Integrations:
    """Runs tasks through the gate, as the role of their state machine."""

    def __init__(
        self,
        operations: Operations,
        account: Account,
        principal_for_role: PrincipalForRole,
        assume_role: AssumeRole,
        http: HttpTasks | None = None,
    ) -> None:
        self._operations = operations
        self._http = http
        self._account = account
        self._principal_for_role = principal_for_role
        self._assume_role = assume_role

    def serves(self, resource: Resource) -> bool:
        """Whether a task with this resource can run here."""
        if resource.integration is Integration.ACTIVITY:
            return True  # whether it exists shows when the task is scheduled, as on AWS
        return self._http is not None if _is_http(resource) else self.find(resource) is not None

    def find(self, resource: Resource) -> tuple[_Service, str, Operation] | None:
        """Return (service, operation name, operation) of a resource, or None when it is not served."""
        table = _SDK_SERVICES if resource.integration is Integration.AWS_SDK else _OPTIMIZED_SERVICES
        service = table.get(resource.service)
        if service is None:
            return None
        name = shapes.operation_name(service.botocore, resource.action)
        operation = None if name is None else self._operations.find(service.botocore, name)
        return None if name is None or operation is None else (service, name, operation)

    def prepare(self, scheduled: ScheduledTask, state: ExecutionState) -> Prepared:
        """Return the operation and request of a task. Raises TaskError.

        The request id is a function of the execution and the task, so that a repetition after a crash bears the same.
        """
        resource = scheduled.task.resource
        if _is_http(resource) and self._http is not None:
            request = {"parameters": scheduled.parameters, "machine_arn": state.machine_arn}
            return Prepared(resource, HTTP, "Invoke", request, self._call(scheduled, state), leaves_ledger=True)
        found = self.find(resource)
        if found is None:
            raise TaskError(RUNTIME, f"The resource {resource.arn} is not served here.")
        service, name, operation = found
        try:
            request = self._request(resource, service, name, scheduled.parameters)
            if resource.integration is Integration.OPTIMIZED and resource.service == "events":
                _add_sender(request, state)
        except shapes.ParameterProblem as problem:
            text = dumps(scheduled.parameters)
            raise TaskError(
                RUNTIME, f"The Parameters '{text}' could not be used to start the Task: [{problem}]"
            ) from problem
        call = self._call(scheduled, state)
        return Prepared(resource, service, name, request, call, isinstance(operation, AsyncOperation))

    def _call(self, scheduled: ScheduledTask, state: ExecutionState) -> Call:
        principal = self._principal(scheduled, state)
        request_id = _request_id(state.arn, state.redrive_count, scheduled.task_id)
        return Call(principal, request_id, user_agent="states.amazonaws.com")

    def _principal(self, scheduled: ScheduledTask, state: ExecutionState) -> Principal:
        """Return who runs a task: the state machine's role, or one that its Credentials name and it may assume."""
        session_name = state.name[:64]
        principal = self._principal_for_role(state.role_arn, session_name)
        if scheduled.role_arn is None or scheduled.role_arn == state.role_arn:
            return principal
        try:
            return self._assume_role(principal, scheduled.role_arn, session_name)
        except AwsError as error:
            raise TaskError(
                TASK_FAILED,
                f"The role {state.role_arn} is not authorized to assume the task state's role, {scheduled.role_arn}.",
            ) from error

    def s3_for(self, execution: Execution, purpose: str) -> AskS3:
        """Return how a distributed Map asks S3, as its state machine's role; `purpose` makes the ids of the requests."""
        role_arn, session_name = execution.machine.role_arn, execution.name[:64]
        request_id = ids.derived_uuid(execution.arn, purpose)

        async def ask_s3(operation: str, request: dict[str, Any]) -> dict[str, Any]:
            principal = self._principal_for_role(role_arn, session_name)
            call = Call(principal, request_id, user_agent="states.amazonaws.com")
            return await self._operations.perform("s3", operation, request, call)

        return ask_s3

    def _request(self, resource: Resource, service: _Service, name: str, parameters: Json) -> dict[str, Any]:
        if resource.integration is Integration.FUNCTION_ARN:
            return {"FunctionName": resource.arn, "Payload": dumps(parameters).encode()}
        return shapes.request(service.botocore, name, parameters)

    def transact(self, tx: Transaction, prepared: Prepared) -> Json:
        """Run a task inside the transaction of its transition. Raises TaskError."""
        try:
            response = self._operations.transact(
                tx, prepared.service.botocore, prepared.operation, prepared.request, prepared.call
            )
        except AwsError as error:
            raise _task_error(prepared, error) from error
        return self._result(prepared, response)

    async def perform(self, prepared: Prepared) -> Json:
        """Run a task that leaves the ledger. Raises TaskError."""
        if prepared.service is HTTP:
            return (await self.exchange(prepared))[0]
        try:
            response = await self._operations.perform(
                prepared.service.botocore, prepared.operation, prepared.request, prepared.call
            )
            for member, value in response.items():
                if hasattr(value, "__aiter__"):
                    response[member] = await _collect(value, prepared)
        except AwsError as error:
            raise _task_error(prepared, error) from error
        return self._result(prepared, response)

    async def exchange(self, prepared: Prepared, *, reveal: bool = False) -> tuple[Json, Exchange]:
        """Run an HTTP task and return its result, with what was sent and answered. Raises HttpTaskError, TaskError.

        `reveal`: show the secrets of its connection in what was sent.
        """
        assert self._http is not None
        parameters = prepared.request["parameters"]
        try:
            for permission in http_task.permissions(parameters, prepared.request["machine_arn"]):
                self._operations.require(permission, prepared.call)
        except AwsError as error:
            raise TaskError("States.Http.AccessDenied", error.message) from error
        return await self._http.invoke(parameters, self._account.region, reveal=reveal)

    def _result(self, prepared: Prepared, response: dict[str, Any]) -> Json:
        resource = prepared.resource
        if resource.integration is Integration.AWS_SDK:
            return shapes.result(prepared.service.botocore, prepared.operation, response)
        if prepared.service.botocore == "lambda":
            payload = _function_result(response)
            if resource.integration is Integration.FUNCTION_ARN:
                return payload
            shown: dict[str, Json] = {"ExecutedVersion": response.get("ExecutedVersion", "$LATEST"), "Payload": payload}
            return {**shown, **_metadata(prepared, "application/json"), "StatusCode": response.get("StatusCode", 200)}
        made = shapes.result(prepared.service.botocore, prepared.operation, response, sdk=False)
        if made.get("FailedEntryCount"):
            # AWS documents the error; what its cause says is not.
            raise TaskError("EventBridge.FailedEntry", dumps(made))
        return {**made, **_metadata(prepared, "application/x-amz-json-1.0")}


def _add_sender(request: dict[str, Any], state: ExecutionState) -> None:
    """Say in every event of PutEvents who sends it, as the optimised integration does."""
    for entry in request["Entries"]:
        entry["Resources"] = [*entry.get("Resources", ()), state.arn, state.machine_arn]


def _is_http(resource: Resource) -> bool:
    return resource.integration is Integration.OPTIMIZED and resource.service == "http"


def _request_id(arn: str, redrive_count: int, task_id: int) -> str:
    return ids.derived_uuid(arn, str(redrive_count), str(task_id))


def request_ids(execution_arn: str, history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids of all requests that an execution may have made, from the events of its history."""
    types = [event["type"] for event in history]
    tasks = sum(kind in ("TaskScheduled", "LambdaFunctionScheduled") for kind in types)
    redrives = types.count("ExecutionRedriven")
    return [
        _request_id(execution_arn, redrive, task) for redrive in range(redrives + 1) for task in range(1, tasks + 1)
    ]


async def _collect(body: Any, prepared: Prepared) -> bytes:
    pieces, size_bytes = [], 0
    async for piece in body:
        size_bytes += len(piece)
        if size_bytes > RESULT_LIMIT_BYTES:
            break
        pieces.append(piece)
    return b"".join(pieces)


def _metadata(prepared: Prepared, content_type: str) -> dict[str, Json]:
    """Return what the optimised integrations tell of the HTTP exchange (there was none)."""
    request_id = prepared.call.request_id
    headers = {"Content-Type": content_type, "x-amzn-RequestId": request_id}
    return {
        "SdkHttpMetadata": {
            "AllHttpHeaders": {name: [value] for name, value in headers.items()},
            "HttpHeaders": headers,
            "HttpStatusCode": 200,
        },
        "SdkResponseMetadata": {"RequestId": request_id},
    }


def _function_result(response: dict[str, Any]) -> Json:
    """Return a function's result; an error that it reported becomes the task's. Raises TaskError."""
    content = bytes(response.get("Payload") or b"")
    text = content.decode("utf-8", "replace")
    try:
        payload = loads(text) if text else {}
    except InvalidJson:
        if len(content) > DATA_LIMIT_BYTES:
            return text  # the interpreter refuses it for its size, as AWS does before it looks at the content
        raise TaskError("Lambda.Unknown", f"The function returned no JSON: {text[:1_000]}") from None
    if response.get("FunctionError") is None:
        return payload
    name = payload.get("errorType") if isinstance(payload, dict) else None
    if not isinstance(name, str) or not name:
        raise TaskError(
            "Lambda.Unknown",
            "The cause could not be determined because Lambda did not return an error type. "
            f"Returned payload: {text[:1_000]}",
        )
    raise TaskError(name, text)


def _task_error(prepared: Prepared, error: AwsError) -> TaskError:
    """Return the failure of a task under the name and with the cause that AWS gives them."""
    service, code, status = prepared.service, type(error).code, type(error).status
    name = shapes.exception_name(service.botocore, code)
    request_id = prepared.call.request_id
    if prepared.resource.integration is Integration.AWS_SDK:
        name = name or f"{service.prefix}Exception"
        cause = f"{error.message} (Service: {service.prefix}, Status Code: {status}, Request ID: {request_id})"
    else:
        name = name or service.v1_exception
        cause = (
            f"{error.message} (Service: {service.v1_name}; Status Code: {status}; Error Code: {code}; "
            f"Request ID: {request_id}; Proxy: null)"
        )
    return TaskError(f"{service.prefix}.{name}", cause)
