"""What a target's ARN stands for: the operation that delivers to it, and that operation's request."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from entrepot import arns, ids
from entrepot.arns import Arn
from entrepot.operations import Permission
from entrepot.services.events.api_destinations import is_api_destination
from entrepot.services.events.errors import ValidationError
from entrepot.services.events.input import compact, parse_path
from entrepot.services.events.rules import Target

HTTP_PARAMETERS_LIMIT = 100
"""Headers, query parameters or path parameters of one target, each."""

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,512}")


@dataclass(frozen=True, slots=True)
class Invocation:
    """One operation of the gate that delivers an event. `execution_arn` is set for state machines."""

    service: str
    operation: str
    request: Mapping[str, Any]
    execution_arn: str | None = None


def execution_name(event_id: str, rule_arn: str, target_id: str, attempt: int) -> str:
    """Return the name of the execution that an event starts: a function of its arguments, so a replay finds it."""
    return f"{event_id}_{ids.derived(rule_arn, target_id, str(attempt))[:32]}"


def _is_log_group(arn: Arn) -> bool:
    return arn.service == "logs" and arn.resource.startswith("log-group:")


def log_group_name(arn: Arn) -> str:
    """Return the name in a log group's ARN."""
    return arn.resource.removeprefix("log-group:").removesuffix(":*")


def permissions(target_arn: str) -> list[Permission]:
    """Return what a delivery to a target without a role does in the service's name.

    In AWS the resource's own policy says which rules may do so (lambda:AddPermission); here who puts the target must be
    allowed the same. Nothing for an ARN that `check` refuses anyway.
    """
    try:
        arn = arns.parse(target_arn)
    except ValueError:
        return []
    if arn.service == "lambda":
        function = ":".join(arn.resource.split(":")[:2])
        return [Permission("lambda:InvokeFunction", str(replace(arn, resource=function)))]
    if _is_log_group(arn):
        stream = str(replace(arn, resource=f"log-group:{log_group_name(arn)}:log-stream:*"))
        return [Permission(f"logs:{action}", stream) for action in ("CreateLogStream", "PutLogEvents")]
    if arn.service == "sqs":
        return [Permission("sqs:SendMessage", target_arn)]
    if arn.service == "sns":
        return [Permission("sns:Publish", target_arn)]
    if is_bus(target_arn):
        return [Permission("events:PutEvents", target_arn)]
    return []


def is_bus(target_arn: str) -> bool:
    """Return whether a target is an event bus."""
    return ":events:" in target_arn and ":event-bus/" in target_arn


def is_state_machine(target_arn: str) -> bool:
    """Return whether a target is a state machine, a version or an alias of one."""
    return ":states:" in target_arn and ":stateMachine:" in target_arn


def is_fifo(queue_arn: str) -> bool:
    """Return whether an ARN is a FIFO queue's."""
    return queue_arn.endswith(".fifo")


def _is_topic(arn: Arn) -> bool:
    return arn.service == "sns" and ":" not in arn.resource


def check(target: Target) -> None:
    """Raise ValidationError, as PutTargets does, unless events can be delivered to this target."""
    try:
        arn = arns.parse(target.arn)
    except ValueError:
        raise ValidationError(
            f"Parameter {target.arn} is not valid. Reason: Provided Arn is not in correct format."
        ) from None
    if (is_state_machine(target.arn) or is_api_destination(target.arn)) and not target.role_arn:
        raise ValidationError(f"RoleArn is required for target {target.arn}.")
    if _is_topic(arn) and is_fifo(target.arn):
        raise ValidationError(f"Parameter {target.arn} is not valid. Reason: FIFO topics are not supported as targets.")
    if arn.service == "sqs":
        _check_queue(target)
    elif is_bus(target.arn):
        if target.input is not None or target.input_path is not None or target.input_template is not None:
            raise ValidationError(
                f"An event goes to another bus as it is: target {target.target_id} must have no input."
            )
    elif not (
        is_state_machine(target.arn)
        or is_api_destination(target.arn)
        or _is_topic(arn)
        or _is_log_group(arn)
        or (arn.service == "lambda" and arn.resource.startswith("function:"))
    ):
        raise ValidationError(
            f"Parameter {target.arn} is not valid. Reason: targets of {arn.service} are not supported here; a target is "
            "a state machine, a function, a log group, a topic, a queue, an API destination or an event bus."
        )
    _check_members(target, arn)
    _check_dead_letters(target)


def _check_members(target: Target, arn: Arn) -> None:
    """Refuse parameters for other kinds of targets, rather than ignore them."""
    for member in ("EcsParameters", "BatchParameters", "KinesisParameters", "RunCommandParameters",
                   "RedshiftDataParameters", "SageMakerPipelineParameters", "AppSyncParameters"):  # fmt: skip
        if member in target.definition:
            raise ValidationError(f"{member} is not supported for target {target.target_id}.")
    if arn.service != "sqs" and "SqsParameters" in target.definition:
        raise ValidationError(f"SqsParameters are for queues only; target {target.target_id} is none.")
    if "HttpParameters" in target.definition:
        if not is_api_destination(target.arn):
            raise ValidationError(f"HttpParameters are for API destinations only; target {target.target_id} is none.")
        _check_http_parameters(target)


def _check_http_parameters(target: Target) -> None:
    given = target.definition["HttpParameters"] or {}
    headers, query = given.get("HeaderParameters") or {}, given.get("QueryStringParameters") or {}
    path = given.get("PathParameterValues") or ()
    if max(len(headers), len(query), len(path)) > HTTP_PARAMETERS_LIMIT:
        raise ValidationError(
            f"HttpParameters of target {target.target_id} have more than {HTTP_PARAMETERS_LIMIT} entries."
        )
    for name in headers:
        if not _HEADER_NAME.fullmatch(name):
            raise ValidationError(
                f"HttpParameters of target {target.target_id}: {name[:100]!r} is no name of a header."
            )
    for value in (*headers.values(), *query.values(), *path):
        if any(ord(character) < 32 for character in value):
            raise ValidationError(f"HttpParameters of target {target.target_id} have a control character.")
        if value.startswith("$"):
            parse_path(value)


def _check_queue(target: Target) -> None:
    group_id = message_group_id(target)
    if is_fifo(target.arn) and not group_id:
        raise ValidationError(f"Parameter(s) SqsParameters must be specified for target: {target.target_id}.")
    if not is_fifo(target.arn) and group_id:
        raise ValidationError(f"SqsParameters must not be specified for target {target.target_id}: no FIFO queue.")


def message_group_id(target: Target) -> str | None:
    """Return the message group in which events go to a FIFO queue."""
    group_id: str | None = (target.definition.get("SqsParameters") or {}).get("MessageGroupId")
    return group_id


def _check_dead_letters(target: Target) -> None:
    if target.dead_letter_arn is None:
        return
    try:
        arn = arns.parse(target.dead_letter_arn)
    except ValueError:
        arn = None
    if arn is None or arn.service != "sqs" or is_fifo(target.dead_letter_arn):
        raise ValidationError(
            f"Parameter {target.dead_letter_arn[:200]} is not valid. Reason: a dead-letter queue is a standard SQS queue."
        )


def queue_url(queue_arn: str) -> str:
    """Return what SendMessage takes for a queue's URL."""
    arn = arns.parse(queue_arn)
    return f"{arn.account_id}/{arn.resource}"


def _in_order(target: Target, group_id: str, event_id: str, rule_arn: str, attempt: int) -> dict[str, str]:
    """Return what a FIFO queue needs besides. Another attempt (a replay) is another message, whatever its body."""
    deduplication_id = ids.derived(event_id, rule_arn, target.target_id, str(attempt))
    return {"MessageGroupId": group_id, "MessageDeduplicationId": deduplication_id}


def _log_event(target: Target, input_text: str, queued_at_ms: int) -> dict[str, Any]:
    """Return the line of a log group: the input, or what an InputTransformer gives as `timestamp` and `message`.

    Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-rule-wizard.html (input transformers of log
    groups have those two members)
    """
    whole = {"timestamp": queued_at_ms, "message": input_text}
    if target.input_template is None:
        return whole
    given = json.loads(input_text)
    if not isinstance(given, dict) or "message" not in given or not given.keys() <= {"timestamp", "message"}:
        return whole
    message = given["message"]
    text = message if isinstance(message, str) else compact(message)
    return {"timestamp": _milliseconds(given.get("timestamp"), queued_at_ms), "message": text}


def _milliseconds(given: object, otherwise_ms: int) -> int:
    """Return a time that is given in milliseconds, as a number or a text, or in ISO 8601."""
    text = str(given)
    if text.isascii() and text.isdigit() and len(text) <= 13:
        return int(text)
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return otherwise_ms


def invocation(
    target: Target, *, event_id: str, rule_arn: str, attempt: int, input_text: str, queued_at_ms: int
) -> Invocation:
    """Return the operation that delivers `input_text` to the target."""
    arn = arns.parse(target.arn)
    if arn.service == "states":
        name = execution_name(event_id, rule_arn, target.target_id, attempt)
        machine = arn.resource.removeprefix("stateMachine:").split(":")[0]
        execution = Arn(arn.partition, arn.service, arn.region, arn.account_id, f"execution:{machine}:{name}")
        return Invocation(
            "stepfunctions",
            "StartExecution",
            {"stateMachineArn": target.arn, "name": name, "input": input_text},
            str(execution),
        )
    if arn.service == "lambda":
        return Invocation(
            "lambda",
            "Invoke",
            {"FunctionName": target.arn, "InvocationType": "Event", "Payload": input_text.encode()},
        )
    if arn.service == "sqs":
        group_id = message_group_id(target)
        return Invocation(
            "sqs",
            "SendMessage",
            {
                "QueueUrl": queue_url(target.arn),
                "MessageBody": input_text,
                **(_in_order(target, group_id, event_id, rule_arn, attempt) if group_id else {}),
            },
        )
    if arn.service == "sns":
        return Invocation("sns", "Publish", {"TopicArn": target.arn, "Message": input_text})
    return Invocation(
        "logs",
        "PutLogEvents",
        {
            "logGroupName": log_group_name(arn),
            "logStreamName": event_id,
            "logEvents": [_log_event(target, input_text, queued_at_ms)],
        },
    )
