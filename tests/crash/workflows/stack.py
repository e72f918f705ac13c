"""The stack of the rounds of workflows: the machines, their tables, the function and the rule; the queues are made once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.crash.clients import Api
from tests.crash.workflows.machines import (
    ACTIVITY,
    ASKS,
    COUNTERS,
    EFFECTS,
    EVENT_SOURCE,
    FUNCTION,
    GATES,
    KINDS,
    SENT,
    SENT_FIFO,
    TOKENS,
    TOPIC,
    Kind,
    arn,
)
from tests.running import Stack

VISIBILITY_S: Final = 3
"""How soon a message that a dead consumer held comes again."""

HANDLER: Final = f'''"""An effect that may happen again: the item is the same."""

import boto3

table = boto3.resource("dynamodb").Table("{EFFECTS}")


def lambda_handler(event, context):
    table.put_item(Item={{"key": event["name"]}})
    return {{"effect": event["name"]}}
'''

_TOML: Final = """
[roles.everything]
policy = "policies/everything.json"

[functions.{function}]
folder = "functions/{function}"
handler = "handler.lambda_handler"
role = "everything"
timeout_s = 60

[rules.by-event]
event_pattern = "rules/by-event.json"

[[rules.by-event.targets]]
id = "by-event"
state_machine = "by-event"
role = "everything"

[rules.calls]
event_pattern = "rules/calls.json"

[[rules.calls.targets]]
id = "calls"
function = "{function}"
input_path = "$.detail"
"""


def make_stack(folder: Path, *, kinds: Mapping[str, Kind] = KINDS, environment: dict[str, str] | None = None) -> Stack:
    """Return a stack with everything but its queues; no worker is started before something is invoked."""
    stack = Stack(folder, environment=environment)
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    (folder / "policies" / "everything.json").write_text(json.dumps(everything))
    for rule, detail_type in (("by-event", "Begin"), ("calls", "Call")):
        pattern = {"source": [EVENT_SOURCE], "detail-type": [detail_type]}
        (folder / "rules" / f"{rule}.json").write_text(json.dumps(pattern))
    (folder / "functions" / FUNCTION).mkdir()
    (folder / "functions" / FUNCTION / "handler.py").write_text(HANDLER)
    text = (folder / "stack.toml").read_text()
    assert "minimum_warm = 1" in text
    text = text.replace("minimum_warm = 1", "minimum_warm = 0") + _TOML.format(function=FUNCTION)
    text += "".join(f'[tables.{table}]\npartition_key = "key"\n' for table in (COUNTERS, EFFECTS, GATES))
    for name, kind in kinds.items():
        definition = f"workflows/{name}.asl.json"
        (folder / definition).write_text(json.dumps(kind.definition))
        text += (
            f'[state_machines.{name}]\ndefinition = "{definition}"\nrole = "everything"\n'
            f'type = "{kind.type}"\nlog_level = "OFF"\n'
        )
    (folder / "stack.toml").write_text(text)
    return stack


def make_queues(api: Api) -> None:
    """Create the queues."""
    sqs = api("sqs")
    for name in (ASKS, TOKENS, SENT):
        sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": str(VISIBILITY_S)})
    sqs.create_queue(QueueName=SENT_FIFO, Attributes={"VisibilityTimeout": str(VISIBILITY_S), "FifoQueue": "true"})


def make_topic_and_activity(api: Api) -> None:
    """Create the topic, whose messages come to a queue, and the activity."""
    queue = arn("sqs", SENT)
    topic = api("sns").create_topic(Name=TOPIC)["TopicArn"]
    api("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes={"RawMessageDelivery": "true"})
    api("stepfunctions").create_activity(name=ACTIVITY)
