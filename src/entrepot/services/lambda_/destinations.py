"""Where the outcome of an asynchronous invocation goes: destinations and dead-letter queues, as operations of the gate.

What is sent commits with the row of the invocation, so that it is sent exactly once. The function's role sends it.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from entrepot import arns, clock, ids
from entrepot.arns import Account
from entrepot.database import Transaction
from entrepot.errors import AccessDeniedError
from entrepot.operations import Call, Permission
from entrepot.services.lambda_.configuration import FunctionConfiguration, function_arn, reference
from entrepot.services.lambda_.errors import InvalidParameterValueError
from entrepot.services.lambda_.neighbours import Neighbours

ERROR_MESSAGE_LIMIT = 1_024
"""Characters of ErrorMessage in a dead letter. AWS's limit (1 KB)."""

Condition: TypeAlias = Literal["Success", "RetriesExhausted", "EventAgeExceeded"]

InvokeAsync: TypeAlias = Callable[[Transaction, str, bytes, str | None, str], str]
"""(tx, function name, payload, request id, qualifier) → request id."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an asynchronous invocation ended. `response` is what the function (or the platform) answered."""

    request_id: str
    invoked_arn: str
    condition: Condition
    invoke_count: int
    payload: bytes
    response: bytes
    status_code: int = 200
    executed_version: str = "$LATEST"
    function_error: str | None = None
    error_message: str = ""


def check(arn: str, services: tuple[str, ...]) -> None:
    """Raise InvalidParameterValueError unless a destination's ARN is of one of these services."""
    try:
        service = arns.parse(arn).service
    except ValueError:
        service = ""
    if service not in services:
        raise InvalidParameterValueError(f"The provided destination config DestinationConfig is invalid: {arn[:200]}")


_ACTIONS = {
    "sqs": ("sqs:SendMessage", "SQS"),
    "sns": ("sns:Publish", "SNS"),
    "lambda": ("lambda:InvokeFunction", "Lambda"),
    "events": ("events:PutEvents", "EventBridge"),
}
"""What a destination's service asks of the function's role."""


class Destinations:
    """Sends outcomes."""

    def __init__(self, account: Account, neighbours: Neighbours, invoke_async: InvokeAsync) -> None:
        self._account = account
        self._neighbours = neighbours
        self._invoke_async = invoke_async

    def check_rights(self, function: FunctionConfiguration, arn: str) -> None:
        """Raise InvalidParameterValueError unless the function's role may send to a destination."""
        action, service = _ACTIONS[arns.parse(arn).service]
        try:
            self._neighbours.operations.require(Permission(action, arn), self._call(function))
        except AccessDeniedError:
            raise InvalidParameterValueError(
                f"The provided execution role does not have permissions to call {action.partition(':')[2]} on {service}",
                Type="User",
            ) from None

    def send_outcome(
        self, tx: Transaction, function: FunctionConfiguration, destination_arn: str, outcome: Outcome
    ) -> None:
        """Send an outcome to a destination in AWS's shape of the record; raises AwsError."""
        self.send(tx, function, destination_arn, record(outcome), failed=outcome.condition != "Success")

    def send(
        self, tx: Transaction, function: FunctionConfiguration, destination_arn: str, body: Mapping[str, Any], *,
        failed: bool,
    ) -> None:  # fmt: skip
        """Send a record in the caller's transaction; raises AwsError, and then has no effect."""
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        arn = arns.parse(destination_arn)
        call = self._call(function)
        operations = self._neighbours.operations
        match arn.service:
            case "sqs":
                request: dict[str, Any] = {"QueueUrl": f"{arn.account_id}/{arn.resource}", "MessageBody": text}
                operations.transact(tx, "sqs", "SendMessage", request, call)
            case "sns":
                operations.transact(tx, "sns", "Publish", {"TopicArn": destination_arn, "Message": text}, call)
            case "events":
                invoked_arn = body["requestContext"]["functionArn"]
                entry = {
                    "Source": "lambda",
                    "DetailType": f"Lambda Function Invocation Result - {'Failure' if failed else 'Success'}",
                    "Resources": [destination_arn, invoked_arn],
                    "Detail": text,
                    "EventBusName": destination_arn,
                }
                answer = operations.transact(tx, "events", "PutEvents", {"Entries": [entry]}, call)
                if answer.get("FailedEntryCount"):
                    raise InvalidParameterValueError(str(answer["Entries"][0].get("ErrorMessage", "")))
            case "lambda":
                operations.require(Permission("lambda:InvokeFunction", destination_arn), call)
                target = reference(self._account, destination_arn)
                self._invoke_async(tx, target.name, text.encode(), None, target.qualifier)
            case _:
                raise InvalidParameterValueError(f"{destination_arn[:200]} is no destination.")

    def send_dead_letter(self, tx: Transaction, function: FunctionConfiguration, outcome: Outcome) -> None:
        """Send the event itself to the function's dead-letter queue or topic, with AWS's attributes; raises AwsError."""
        arn = arns.parse(function.dead_letter_arn)
        attributes = {
            "RequestID": {"DataType": "String", "StringValue": outcome.request_id},
            "ErrorCode": {"DataType": "Number", "StringValue": str(outcome.status_code)},
            "ErrorMessage": {
                "DataType": "String",
                "StringValue": outcome.error_message[:ERROR_MESSAGE_LIMIT] or outcome.condition,
            },
        }
        text = outcome.payload.decode()
        if arn.service == "sqs":
            request: dict[str, Any] = {"QueueUrl": f"{arn.account_id}/{arn.resource}", "MessageBody": text}
            service, operation = "sqs", "SendMessage"
        else:
            request = {"TopicArn": function.dead_letter_arn, "Message": text}
            service, operation = "sns", "Publish"
        request["MessageAttributes"] = attributes
        self._neighbours.operations.transact(tx, service, operation, request, self._call(function))

    def _call(self, function: FunctionConfiguration) -> Call:
        principal = self._neighbours.principal_for_role(function.role_arn, function.name)
        return Call(principal, ids.random_uuid(), user_agent="lambda.amazonaws.com")

    def executed_arn(self, name: str, version: str) -> str:
        """Return the ARN that a record names: always with the version."""
        return function_arn(self._account, name, version)


def record(outcome: Outcome) -> dict[str, Any]:
    """Return the invocation record that a destination gets."""
    context: dict[str, Any] = {"statusCode": outcome.status_code, "executedVersion": outcome.executed_version}
    if outcome.function_error is not None:
        context["functionError"] = outcome.function_error
    body: dict[str, Any] = {
        "version": "1.0",
        "timestamp": clock.iso(clock.now_ms()),
        "requestContext": {
            "requestId": outcome.request_id,
            "functionArn": outcome.invoked_arn,
            "condition": outcome.condition,
            "approximateInvokeCount": outcome.invoke_count,
        },
        "requestPayload": _document(outcome.payload),
    }
    if outcome.invoke_count:
        body["responseContext"] = context
        body["responsePayload"] = _document(outcome.response)
    return body


def _document(payload: bytes) -> Any:
    try:
        return json.loads(payload) if payload else None
    except (ValueError, RecursionError):
        return payload.decode(errors="replace")
