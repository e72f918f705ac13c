"""What this installation's own services may do when they act for themselves, without a role.

A rule's target or a state machine that names a role acts with that role's policies instead.

| principal | may |
| --- | --- |
| events.amazonaws.com | start executions, invoke functions, write logs, put events, publish and send messages |
| s3.amazonaws.com | put events, invoke functions, publish and send messages |
| transfer.amazonaws.com | write logs, put events |
| states.amazonaws.com, lambda.amazonaws.com | write logs |
| cloudwatch.amazonaws.com, logs.amazonaws.com | publish messages, invoke functions, put events |
| sns.amazonaws.com | invoke functions, send messages |
"""

import json

from entrepot.services.iam.policy import Policies, compile_policy

_WRITE_LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
_SEND = ("sns:Publish", "sqs:SendMessage")

_ACTIONS: dict[str, tuple[str, ...]] = {
    "events.amazonaws.com": (
        "states:StartExecution",
        "lambda:InvokeFunction",
        "events:PutEvents",
        *_WRITE_LOGS,
        *_SEND,
    ),
    "s3.amazonaws.com": ("events:PutEvents", "lambda:InvokeFunction", *_SEND),
    "transfer.amazonaws.com": ("events:PutEvents", *_WRITE_LOGS),
    "states.amazonaws.com": _WRITE_LOGS,
    "lambda.amazonaws.com": _WRITE_LOGS,
    "cloudwatch.amazonaws.com": ("sns:Publish", "lambda:InvokeFunction", "events:PutEvents"),
    "logs.amazonaws.com": ("sns:Publish", "lambda:InvokeFunction", "events:PutEvents"),
    "sns.amazonaws.com": ("lambda:InvokeFunction", "sqs:SendMessage"),
}


def _policy(name: str, actions: tuple[str, ...]) -> Policies:
    statement = {"Sid": "ServiceLinked", "Effect": "Allow", "Action": list(actions), "Resource": "*"}
    return compile_policy(json.dumps({"Version": "2012-10-17", "Statement": [statement]}), name)


SERVICE_POLICIES: dict[str, Policies] = {
    service: _policy(f"service-role/{service}", actions) for service, actions in _ACTIONS.items()
}
"""The built-in policy of each service principal."""

ADMINISTRATOR: Policies = _policy("AdministratorAccess", ("*",))
"""What the account's owner may do: everything."""

NOTHING = Policies(())
"""The policies of whom nobody knows."""
