"""The stack of the crash rounds: the default pipeline, one that copies without a function, and users of both."""

import json
from pathlib import Path
from typing import Final

from tests.running import Stack

FUNCTION_SOURCE: Final = "my-source-sftp-bucket"
FUNCTION_DESTINATION: Final = "my-destination-bucket"
COPY_SOURCE: Final = "copy-source-bucket"
COPY_DESTINATION: Final = "copied-bucket"
"""The destination of the pipeline whose copy commits with its state: versioned, so that a second delivery shows."""

DESTINATIONS: Final = {FUNCTION_SOURCE: FUNCTION_DESTINATION, COPY_SOURCE: COPY_DESTINATION}

USERS: Final = ("anna", "bert", "cora")
OPENSSH_USER: Final = "dora"
S3_OWNER: Final = "s3"
SHARED: Final = "shared"
"""A folder into which everybody writes the same few keys."""

TEMPORARY_SUFFIX: Final = ".filepart"
GATES: Final = "Gates"
"""A table: a file under `…/gated/…` is refused by its workflow until an item with the file's key is there."""

COPY_WORKFLOW: Final = {
    "Comment": "Deliver without a function: the copy commits with its state. A gated file fails until its gate is open.",
    "StartAt": "IsGated",
    "States": {
        "IsGated": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.key", "StringMatches": "*/gated/*", "Next": "ReadGate"}],
            "Default": "Copy",
        },
        "ReadGate": {
            "Type": "Task",
            "Resource": "arn:aws:states:::dynamodb:getItem",
            "Parameters": {"TableName": GATES, "Key": {"key": {"S.$": "$.key"}}},
            "ResultPath": "$.gate",
            "Next": "IsOpen",
        },
        "IsOpen": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.gate.Item", "IsPresent": True, "Next": "Copy"}],
            "Default": "GateClosed",
        },
        "GateClosed": {"Type": "Fail", "Error": "GateClosed", "Cause": "This file's gate is closed."},
        "Copy": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:s3:copyObject",
            "Parameters": {
                "Bucket": COPY_DESTINATION,
                "Key.$": "$.key",
                "CopySource.$": "States.Format('{}/{}', $.source_bucket, $.key)",
            },
            "ResultPath": None,
            "End": True,
        },
    },
}

COPY_PATTERN: Final = {
    "source": ["aws.s3"],
    "detail-type": ["Object Created"],
    "detail": {
        "bucket": {"name": [COPY_SOURCE]},
        "object": {"key": [{"anything-but": {"suffix": ["/", TEMPORARY_SUFFIX]}}]},
    },
}

EXTRA_TOML: Final = f"""
[buckets.{COPY_SOURCE}]
[buckets.{COPY_DESTINATION}]
versioning = true

[tables.{GATES}]
partition_key = "key"

[pipelines.copy]
source_bucket = "{COPY_SOURCE}"
destination_bucket = "{COPY_DESTINATION}"
metadata_table = "FileTransferMetadata"

[rules.copy]
event_pattern = "rules/copy.json"

[[rules.copy.targets]]
id = "copy"
state_machine = "copy"
role = "everything"
input_paths = {{ source_bucket = "$.detail.bucket.name", key = "$.detail.object.key" }}
input_template = '{{"source_bucket": <source_bucket>, "key": <key>}}'

[state_machines.copy]
definition = "workflows/copy.asl.json"
role = "everything"

[roles.everything]
policy = "policies/everything.json"
"""


def make_stack(folder: Path) -> Stack:
    """Return a stack with both pipelines and its users; no worker is started before a file needs one."""
    stack = Stack(folder)
    (folder / "rules" / "copy.json").write_text(json.dumps(COPY_PATTERN))
    (folder / "workflows" / "copy.asl.json").write_text(json.dumps(COPY_WORKFLOW))
    (folder / "policies" / "everything.json").write_text(
        json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
    )
    users = "".join(
        f"[users.{name}]\nrole = 'everything'\npublic_keys = ['keys/demo.pub']\n"
        f"home_directory_mappings = [\n"
        f"  {{ entry = '/function', target = '/{FUNCTION_SOURCE}/{name}' }},\n"
        f"  {{ entry = '/copy', target = '/{COPY_SOURCE}/{name}' }},\n"
        f"  {{ entry = '/{SHARED}', target = '/{COPY_SOURCE}/{SHARED}' }},\n]\n"
        for name in (*USERS, OPENSSH_USER)
    )
    file = folder / "stack.toml"
    text = file.read_text()
    assert "minimum_warm = 1" in text
    file.write_text(text.replace("minimum_warm = 1", "minimum_warm = 0") + EXTRA_TOML + users)
    return stack


def remote_path(bucket: str, key: str) -> str:
    """Return where a user finds a key of theirs, or a shared one, over SFTP."""
    owner, _, rest = key.partition("/")
    if owner == SHARED:
        return f"/{SHARED}/{rest}"
    return f"/{'function' if bucket == FUNCTION_SOURCE else 'copy'}/{rest}"
