"""The state machines of the rounds, and what each of their executions must come to, whatever dies meanwhile.

Every effect on the ledger is an ADD on the execution's own item of the table `Counters`: one that were recorded twice, or not
at all, shows.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

REGION, ACCOUNT_ID = "us-east-1", "000000000000"
COUNTERS, EFFECTS, GATES = "Counters", "Effects", "Gates"
"""Tables with the partition key `key`: how often what was done, by execution; what the function did; who may pass."""

ASKS, TOKENS, SENT, SENT_FIFO = "asks", "tokens", "sent", "sent.fifo"
"""Queues: tokens for a consumer, tokens for a client that takes its time, and messages."""

FUNCTION: Final = "effect"
ACTIVITY, TOPIC = "work", "published"
EVENT_SOURCE: Final = "crash.rounds"
MAP_ITEMS: Final = 1_000
DISTRIBUTED_ITEMS: Final = 30
"""Items of the distributed Map: each is a child execution."""
NAME: Final = "$$.Execution.Name"
LONG_S: Final = 36_000

Json = Any
State = dict[str, Any]


def queue_url(queue_name: str) -> str:
    """Return a queue's URL; the server knows its queues under any host."""
    return f"http://127.0.0.1/{ACCOUNT_ID}/{queue_name}"


def machine_arn(machine: str) -> str:
    """Return the ARN of a state machine."""
    return f"arn:aws:states:{REGION}:{ACCOUNT_ID}:stateMachine:{machine}"


def arn(service: str, resource: str) -> str:
    """Return the ARN of another resource."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT_ID}:{resource}"


def execution_arn(machine: str, name: str) -> str:
    """Return the ARN of an execution of a STANDARD machine."""
    return f"arn:aws:states:{REGION}:{ACCOUNT_ID}:execution:{machine}:{name}"


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def task(resource: str, parameters: State, **more: Any) -> State:
    """Return a Task of a service integration."""
    return {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Parameters": parameters, **more}


def count(what: str, *, key: str = NAME, returns: str = "NONE", **more: Any) -> State:
    """Return a Task that adds one to `what` of the execution's counters; the data passes."""
    parameters = {
        "TableName": COUNTERS,
        "Key": {"key": {"S.$": key}},
        "UpdateExpression": "ADD #what :one",
        "ExpressionAttributeNames": {"#what": what},
        "ExpressionAttributeValues": {":one": {"N": "1"}},
        "ReturnValues": returns,
    }
    return task("dynamodb:updateItem", parameters, **{"ResultPath": None, **more})


def chain(*states: tuple[str, State]) -> State:
    """Return a workflow of states one after another."""
    linked = {
        name: state if "Next" in state or state["Type"] in ("Choice", "Fail") else {**state, "Next": following}
        for (name, state), (following, _) in itertools.pairwise(states)
    }
    name, last = states[-1]
    return {"StartAt": states[0][0], "States": {**linked, name: {**last, "End": True}}}


def result(value: Json) -> State:
    """Return a Pass with this result."""
    return {"Type": "Pass", "Result": value}


def told(**parameters: str) -> State:
    """Return a Pass whose result is made of paths."""
    return {"Type": "Pass", "Parameters": {f"{name}.$": path for name, path in parameters.items()}}


def ask(queue_name: str, **more: Any) -> State:
    """Return a Task that sends its token to a queue and waits for it."""
    body = {"token.$": "$$.Task.Token", "name.$": NAME}
    return task("sqs:sendMessage.waitForTaskToken", {"QueueUrl": queue_url(queue_name), "MessageBody": body}, **more)


def send(queue_name: str, body: str, **more: str) -> State:
    """Return a Task that sends `name/body` to a queue."""
    text = {"MessageBody.$": f"States.Format('{{}}/{body}', {NAME})"}
    return task("sqs:sendMessage", {"QueueUrl": queue_url(queue_name), **text, **more}, ResultPath=None)


def begin(machine: str, suffix: str, *, wait: bool, **more: Any) -> State:
    """Return a Task that starts an execution named `name-suffix`."""
    parameters = {
        "StateMachineArn": machine_arn(machine),
        "Name.$": f"States.Format('{{}}-{suffix}', {NAME})",
        "Input": {"parent.$": NAME},
    }
    return task(f"states:startExecution{'.sync:2' if wait else ''}", parameters, **more)


def fifo() -> dict[str, str]:
    """Return the members of a FIFO message. Its id is new each time: what is sent twice is there twice."""
    return {"MessageGroupId.$": NAME, "MessageDeduplicationId.$": "States.UUID()"}


# ── machines ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WAITS: Final = chain(
    ("Sleep", {"Type": "Wait", "Seconds": 1}),
    ("CountFirst", count("first")),
    ("Until", {"Type": "Wait", "TimestampPath": "$.until"}),
    ("CountSecond", count("second")),
    ("End", told(done=NAME)),
)

_ADD_ITEM = task(
    "dynamodb:updateItem",
    {
        "TableName": COUNTERS,
        "Key": {"key": {"S.$": NAME}},
        "UpdateExpression": "ADD mapped :one, summed :number",
        "ExpressionAttributeValues": {":one": {"N": "1"}, ":number": {"N.$": "States.Format('{}', $.number)"}},
    },
    ResultPath=None,
    OutputPath="$.number",
)
MAP: Final = chain(
    ("Numbers", told(numbers=f"States.ArrayRange(0, {MAP_ITEMS - 1}, 1)")),
    (
        "Each",
        {
            "Type": "Map",
            "ItemsPath": "$.numbers",
            "ItemProcessor": chain(("Number", told(number="$")), ("Add", _ADD_ITEM)),
        },
    ),
    ("End", told(length="States.ArrayLength($)", last=f"$[{MAP_ITEMS - 1}]")),
)

_ADD_CHILD = task(
    "dynamodb:updateItem",
    {
        "TableName": COUNTERS,
        "Key": {"key": {"S.$": "$.name"}},
        "UpdateExpression": "ADD mapped :one, summed :number",
        "ExpressionAttributeValues": {":one": {"N": "1"}, ":number": {"N.$": "States.Format('{}', $.number)"}},
    },
    ResultPath=None,
    OutputPath="$.number",
)
DISTRIBUTED: Final = chain(
    ("Numbers", told(numbers=f"States.ArrayRange(0, {DISTRIBUTED_ITEMS - 1}, 1)")),
    (
        "Each",
        {
            "Type": "Map",
            "Label": "Each",
            "ItemsPath": "$.numbers",
            "MaxConcurrency": 20,
            "ItemSelector": {"number.$": "$$.Map.Item.Value", "name.$": NAME},
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                **chain(("Nap", {"Type": "Wait", "Seconds": 1}), ("Add", _ADD_CHILD)),
            },
        },
    ),
    ("End", told(length="States.ArrayLength($)", last=f"$[{DISTRIBUTED_ITEMS - 1}]")),
)

PARALLEL: Final = chain(
    (
        "All",
        {
            "Type": "Parallel",
            "Branches": [
                chain(("Sleep", {"Type": "Wait", "Seconds": 1}), ("CountA", count("a")), ("A", result("a"))),
                chain(("CountB", count("b")), ("CountC", count("c")), ("B", result("b"))),
                chain(
                    (
                        "Few",
                        {
                            "Type": "Map",
                            "ItemsPath": "$.few",
                            "MaxConcurrency": 2,
                            "ItemProcessor": chain(
                                ("Nap", {"Type": "Wait", "SecondsPath": "$"}), ("CountFew", count("few"))
                            ),
                        },
                    )
                ),
                {"StartAt": "Nothing", "States": {"Nothing": {"Type": "Succeed"}}},
            ],
            "ResultSelector": {"results.$": "$[0:3]"},
        },
    ),
    ("CountJoined", count("joined")),
)

RETRIES: Final = chain(
    (
        "Attempts",
        {
            "Type": "Parallel",
            "Branches": [
                {
                    "StartAt": "CountAttempt",
                    "States": {
                        "CountAttempt": count("attempts", returns="UPDATED_NEW", ResultPath="$", Next="IsThird"),
                        "IsThird": {
                            "Type": "Choice",
                            "Choices": [{"Variable": "$.Attributes.attempts.N", "StringEquals": "3", "Next": "Third"}],
                            "Default": "Refuse",
                        },
                        "Third": {**result("third"), "End": True},
                        "Refuse": {"Type": "Fail", "Error": "TooEarly", "Cause": "This is not the third attempt."},
                    },
                }
            ],
            "Retry": [
                {
                    "ErrorEquals": ["TooEarly"],
                    "IntervalSeconds": 1,
                    "BackoffRate": 1.5,
                    "MaxDelaySeconds": 2,
                    "MaxAttempts": 5,
                    "JitterStrategy": "FULL",
                }
            ],
            "ResultSelector": {"attempt.$": "$[0]"},
        },
    ),
    (
        "Impossible",
        task(
            "dynamodb:putItem",
            {
                "TableName": COUNTERS,
                "Item": {"key": {"S.$": NAME}},
                "ConditionExpression": "attribute_not_exists(attempts)",
            },
            Retry=[
                {
                    "ErrorEquals": ["DynamoDB.ConditionalCheckFailedException"],
                    "IntervalSeconds": 1,
                    "BackoffRate": 1,
                    "MaxAttempts": 2,
                }
            ],
            Catch=[{"ErrorEquals": ["States.ALL"], "ResultPath": "$.caught", "Next": "CountCaught"}],
        ),
    ),
    ("CountCaught", count("caught")),
    ("End", told(attempt="$.attempt", error="$.caught.Error")),
)

ASKED: Final = chain(("Ask", ask(ASKS, HeartbeatSeconds=LONG_S)), ("CountAnswer", count("answer")))

CLIENT: Final = chain(
    ("CountBefore", count("before")),
    (
        "Ask",
        ask(
            TOKENS,
            TimeoutSeconds=LONG_S,
            HeartbeatSeconds=LONG_S // 2,
            Catch=[{"ErrorEquals": ["Refused"], "ResultPath": "$", "Next": "CountAnswer"}],
        ),
    ),
    ("CountAnswer", count("answer")),
)

CHILD: Final = chain(
    ("CountBefore", count("before")), ("Sleep", {"Type": "Wait", "Seconds": 1}), ("CountAfter", count("after")),
    ("End", told(child=NAME)),
)  # fmt: skip

FAILING_CHILD: Final = {
    "StartAt": "CountFirst",
    "States": {"CountFirst": count("first", Next="Refuse"), "Refuse": {"Type": "Fail", "Error": "Refused"}},
}

NESTED: Final = chain(
    ("Sync", begin("child", "sync", wait=True, ResultSelector={"output.$": "$.Output"})),
    ("Plain", begin("child", "plain", wait=False, ResultPath=None)),
    (
        "Failing",
        begin(
            "failing-child", "fails", wait=True,
            Catch=[{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.caught", "Next": "CountCaught"}],
        ),
    ),
    ("CountCaught", count("caught")),
    ("End", told(output="$.output", error="$.caught.Error")),
)  # fmt: skip

SENDS: Final = chain(
    ("SendFirst", send(SENT_FIFO, "1", **fifo())),
    ("Send", send(SENT, "0")),
    ("Sleep", {"Type": "Wait", "Seconds": 1}),
    ("SendSecond", send(SENT_FIFO, "2", **fifo())),
    ("CountSent", count("sent")),
    ("End", told(sent=NAME)),
)

PUBLISHES: Final = chain(
    (
        "Publish",
        task(
            "sns:publish",
            {"TopicArn": arn("sns", TOPIC), "Message.$": f"States.Format('{{}}/9', {NAME})"},
            ResultPath=None,
        ),
    ),
    ("CountPublished", count("published")),
)

WORKS: Final = chain(
    (
        "Work",
        {
            "Type": "Task",
            "Resource": arn("states", f"activity:{ACTIVITY}"),
            "Parameters": {"name.$": NAME},
            "HeartbeatSeconds": 4,
            # A worker that died with the server does not answer: the next one is asked.
            "Retry": [{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 1, "BackoffRate": 1, "MaxAttempts": 50}],
        },
    ),
    ("CountWorked", count("worked")),
)

_LAMBDA_RETRY = {
    "ErrorEquals": ["Lambda.TooManyRequestsException", "Lambda.ServiceException", "Lambda.SdkClientException"],
    "IntervalSeconds": 1,
    "MaxAttempts": 20,
    "BackoffRate": 1,
}
FUNCTIONS: Final = chain(
    (
        "Call",
        task(
            "lambda:invoke",
            {"FunctionName": FUNCTION, "Payload": {"name.$": NAME}},
            Retry=[_LAMBDA_RETRY],
            ResultSelector={"effect.$": "$.Payload.effect"},
        ),
    ),
    ("CountCalled", count("called")),
)

EXPRESS: Final = chain(("CountFirst", count("first")), ("CountSecond", count("second")))

BY_EVENT: Final = chain(("CountEvent", count("event", key="$.detail.name")))

GATED: Final = chain(
    ("CountBefore", count("before")),
    (
        "Gate",
        task(
            "dynamodb:updateItem",
            {
                "TableName": GATES,
                "Key": {"key": {"S.$": NAME}},
                "UpdateExpression": "SET passed = :yes",
                "ConditionExpression": "attribute_exists(#key)",
                "ExpressionAttributeNames": {"#key": "key"},
                "ExpressionAttributeValues": {":yes": {"BOOL": True}},
            },
            ResultPath=None,
        ),
    ),
    ("CountAfter", count("after")),
    ("End", told(passed=NAME)),
)

STOPPED: Final = chain(("CountBefore", count("before")), ("For ever", {"Type": "Wait", "Seconds": LONG_S}))

TIMED_OUT: Final = {**STOPPED, "TimeoutSeconds": 2}


# ── what executions come to ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Kind:
    """A machine, and what an execution of it with a given name must come to."""

    definition: State
    output: Callable[[str], Json] = lambda name: {}
    counts: Mapping[str, int] = field(default_factory=dict)
    status: str = "SUCCEEDED"
    unfinished: frozenset[str] = frozenset()
    """States that may be entered and not exited."""
    weight: int = 0
    """How often clients start one, in proportion to the others."""
    type: str = "STANDARD"
    nested: Mapping[str, str] = field(default_factory=dict)
    """The executions that it starts: suffix of the name → machine."""
    is_new: bool = False
    """Not known to the previous release."""


def client_answer(name: str) -> tuple[bool, Json]:
    """Return whether the client answers an execution's token well, and with what."""
    return (True, {"told": name}) if len(name) % 2 else (False, {"Error": "Refused", "Cause": name})


FEW: Final = [1, 0, 1, 2, 0]

KINDS: Final[Mapping[str, Kind]] = {
    "waits": Kind(WAITS, lambda name: {"done": name}, {"first": 1, "second": 1}, weight=4),
    "map": Kind(
        MAP,
        lambda name: {"length": MAP_ITEMS, "last": MAP_ITEMS - 1},
        {"mapped": MAP_ITEMS, "summed": MAP_ITEMS * (MAP_ITEMS - 1) // 2},
    ),
    "distributed": Kind(
        DISTRIBUTED,
        lambda name: {"length": DISTRIBUTED_ITEMS, "last": DISTRIBUTED_ITEMS - 1},
        {"mapped": DISTRIBUTED_ITEMS, "summed": DISTRIBUTED_ITEMS * (DISTRIBUTED_ITEMS - 1) // 2},
        weight=1,
        is_new=True,
    ),
    "publishes": Kind(PUBLISHES, counts={"published": 1}, weight=2, is_new=True),
    "works": Kind(WORKS, lambda name: {"worked": name}, {"worked": 1}, weight=3, is_new=True),
    "parallel": Kind(
        PARALLEL,
        lambda name: {"results": ["a", "b", FEW]},
        {"a": 1, "b": 1, "c": 1, "few": len(FEW), "joined": 1},
        weight=3,
    ),
    "retries": Kind(
        RETRIES,
        lambda name: {"attempt": "third", "error": "DynamoDB.ConditionalCheckFailedException"},
        {"attempts": 3, "caught": 1},
        unfinished=frozenset({"Refuse"}),
        weight=4,
    ),
    "asked": Kind(ASKED, lambda name: {"answer": name}, {"answer": 1}, weight=5),
    "client": Kind(CLIENT, lambda name: client_answer(name)[1], {"before": 1, "answer": 1}, weight=4),
    "nested": Kind(
        NESTED,
        lambda name: {"output": {"child": f"{name}-sync"}, "error": "States.TaskFailed"},
        {"caught": 1},
        weight=4,
        nested={"sync": "child", "plain": "child", "fails": "failing-child"},
    ),
    "child": Kind(CHILD, lambda name: {"child": name}, {"before": 1, "after": 1}, weight=1),
    "failing-child": Kind(
        FAILING_CHILD, lambda name: None, {"first": 1}, status="FAILED", unfinished=frozenset({"Refuse"})
    ),
    "sends": Kind(SENDS, lambda name: {"sent": name}, {"sent": 1}, weight=4),
    "functions": Kind(FUNCTIONS, lambda name: {"effect": name}, {"called": 1}),
    "express": Kind(EXPRESS, counts={"first": 1, "second": 1}, weight=3, type="EXPRESS"),
    "by-event": Kind(BY_EVENT, counts={"event": 1}),
    "gated": Kind(
        GATED,
        lambda name: {"passed": name},
        {"before": 1, "after": 1},
        weight=2,
    ),
    "stopped": Kind(
        STOPPED, lambda name: None, {"before": 1}, status="ABORTED", unfinished=frozenset({"For ever"}), weight=2
    ),
    "timed-out": Kind(
        TIMED_OUT, lambda name: None, {"before": 1}, status="TIMED_OUT", unfinished=frozenset({"For ever"}), weight=2
    ),
}


def input_of(machine: str, until: str) -> Json:
    """Return the input of an execution; `until` is a time stamp a moment from its start."""
    return {"until": until, "few": FEW} if machine in ("waits", "parallel") else {"machine": machine}
