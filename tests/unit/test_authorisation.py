"""The gate over all rooms: what a caller with a narrow role must not gain, by whatever operation.

Everything is real but the listeners and the loops: the composition of a scaffolded stack, its ledger and its IAM.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from entrepot import settings
from entrepot.blobs import Blob
from entrepot.cli.scaffold import scaffold
from entrepot.composition import Composition
from entrepot.errors import AwsError
from entrepot.operations import Call
from entrepot.settings import StackFolder

ACCOUNT = "000000000000"
ADMIN = f"arn:aws:iam::{ACCOUNT}:role/admin"
WEAK = f"arn:aws:iam::{ACCOUNT}:role/weak"
TRUST = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}
)
SERVICES_ONLY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
)


def statement(action: str | list[str], resource: str | list[str] = "*", effect: str = "Allow") -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource}


class Site:
    """A stack, and a caller who has the role `weak`."""

    def __init__(self, rooms: Composition) -> None:
        self.rooms = rooms

    async def role(self, name: str, *statements: dict[str, Any], trust: str = TRUST) -> None:
        policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        await self.rooms.database.write(
            lambda tx: self.rooms.iam.put_role(tx, name, trust_policy=trust, policies={"p": policy})
        )

    async def as_root(self, service: str, operation: str, **request: Any) -> Any:
        return await self.rooms.operations.perform(service, operation, request, self.rooms.root)

    async def as_weak(self, service: str, operation: str, **request: Any) -> Any:
        call = Call(self.rooms.iam.principal_for_role(WEAK, "caller"), "request")
        return await self.rooms.operations.perform(service, operation, request, call)

    async def publish(self, bucket: str, key: str) -> None:
        blob = Blob(None, b"", 0, hashlib.sha256(b"").digest())
        await self.rooms.database.write(lambda tx: self.rooms.s3.publish(tx, bucket, key, blob, self.rooms.root))

    async def denied(self, service: str, operation: str, **request: Any) -> str:
        with pytest.raises(AwsError) as raised:
            await self.as_weak(service, operation, **request)
        assert "not authorized" in raised.value.message, raised.value.message
        return raised.value.message


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    folder = tmp_path / "stack"
    scaffold(folder)
    stack = StackFolder(folder)
    (tmp_path / "data").mkdir()
    rooms = Composition(stack, settings.load(stack), tmp_path / "data")
    await rooms.furnish()
    made = Site(rooms)
    await made.role("admin", statement("*"))
    yield made
    await rooms.close()


MACHINE = {
    "StartAt": "Steal",
    "States": {
        "Steal": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:iam:getRole",
            "Parameters": {"RoleName": "admin"},
            "Credentials": {"RoleArn": ADMIN},
            "End": True,
        }
    },
}


async def _run_with_credentials(site: Site) -> dict[str, Any]:
    machine = await site.as_weak(
        "stepfunctions", "CreateStateMachine", name="m", definition=json.dumps(MACHINE), roleArn=WEAK
    )
    started = await site.as_root(
        "stepfunctions", "StartExecution", stateMachineArn=machine["stateMachineArn"], name="e", input="{}"
    )
    found: dict[str, Any] = await site.as_root(
        "stepfunctions", "DescribeExecution", executionArn=started["executionArn"]
    )
    return found


async def test_a_tasks_credentials_need_the_right_to_assume_the_role(site: Site) -> None:
    await site.role("weak", statement("states:*"), statement("iam:PassRole", WEAK))
    execution = await _run_with_credentials(site)
    assert (execution["status"], execution["error"]) == ("FAILED", "States.TaskFailed")
    assert f"The role {WEAK} is not authorized to assume the task state's role, {ADMIN}" in execution["cause"]


async def test_a_tasks_credentials_need_the_roles_trust(site: Site) -> None:
    await site.role("admin", statement("*"), trust=SERVICES_ONLY)
    await site.role("weak", statement(["states:*", "sts:AssumeRole"]), statement("iam:PassRole", WEAK))
    assert (await _run_with_credentials(site))["status"] == "FAILED"


async def test_a_tasks_credentials_take_on_a_role_that_trusts_the_state_machine(site: Site) -> None:
    await site.role("weak", statement("states:*"), statement("iam:PassRole", WEAK), statement("sts:AssumeRole", ADMIN))
    execution = await _run_with_credentials(site)
    assert execution["status"] == "SUCCEEDED", execution
    assert json.loads(execution["output"])["Role"]["Arn"] == ADMIN


def _zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("handler.py", "def lambda_handler(event, context): return 1")
    return content.getvalue()


async def test_a_role_is_given_to_a_resource_only_by_who_may_pass_it(site: Site) -> None:
    await site.role("weak", statement(["states:*", "events:*", "lambda:*"]), statement("iam:PassRole", WEAK))
    function = {"FunctionName": "f", "Runtime": "python3.11", "Handler": "handler.lambda_handler"}
    pattern = json.dumps({"source": ["x"]})
    machine = f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:transfer"
    await site.as_weak("events", "PutRule", Name="r", EventPattern=pattern, RoleArn=WEAK)
    await site.as_weak("events", "PutTargets", Rule="r", Targets=[{"Id": "1", "Arn": machine, "RoleArn": WEAK}])
    await site.as_weak("lambda", "CreateFunction", **function, Role=WEAK, Code={"ZipFile": _zip()})
    await site.as_weak("lambda", "UpdateFunctionConfiguration", FunctionName="f", Timeout=5)
    for service, operation, request in (
        ("events", "PutRule", {"Name": "r", "EventPattern": pattern, "RoleArn": ADMIN}),
        ("events", "PutTargets", {"Rule": "r", "Targets": [{"Id": "1", "Arn": machine, "RoleArn": ADMIN}]}),
        ("lambda", "CreateFunction", {**function, "FunctionName": "g", "Role": ADMIN, "Code": {"ZipFile": _zip()}}),
        ("lambda", "UpdateFunctionConfiguration", {"FunctionName": "f", "Role": ADMIN}),
        ("stepfunctions", "CreateStateMachine", {"name": "m", "definition": json.dumps(MACHINE), "roleArn": ADMIN}),
        ("stepfunctions", "UpdateStateMachine", {"stateMachineArn": machine, "roleArn": ADMIN}),
    ):
        message = await site.denied(service, operation, **request)
        assert f"iam:PassRole on resource: {ADMIN}" in message


async def test_a_target_without_a_role_needs_what_the_rule_will_do(site: Site) -> None:
    await site.role("weak", statement("events:*"))
    await site.as_weak("events", "PutRule", Name="r", EventPattern=json.dumps({"source": ["x"]}))
    put = {"Rule": "r"}
    function, group = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group"
    await site.denied("events", "PutTargets", **put, Targets=[{"Id": "1", "Arn": f"{function}:transfer"}])
    await site.denied("events", "PutTargets", **put, Targets=[{"Id": "1", "Arn": f"{group}:/entrepot/audit:*"}])
    await site.role(
        "weak",
        statement("events:*"),
        statement("lambda:InvokeFunction", f"{function}:mine"),
        statement("logs:*", f"{group}:/mine:*"),
    )
    targets = [{"Id": "1", "Arn": f"{function}:mine"}, {"Id": "2", "Arn": f"{group}:/mine:*"}]
    await site.as_weak("events", "PutTargets", **put, Targets=targets)


async def test_delete_objects_decides_about_each_key(site: Site) -> None:
    bucket = next(iter(site.rooms.settings.buckets))
    await site.role("weak", statement("s3:DeleteObject", f"arn:aws:s3:::{bucket}/mine/*"))
    for key in ("mine/a", "theirs/b"):
        await site.publish(bucket, key)
    answer = await site.as_weak(
        "s3", "DeleteObjects", Bucket=bucket, Delete={"Objects": [{"Key": "mine/a"}, {"Key": "theirs/b"}]}
    )
    assert [one["Key"] for one in answer["Deleted"]] == ["mine/a"]
    assert [(one["Key"], one["Code"]) for one in answer["Errors"]] == [("theirs/b", "AccessDenied")]
    await site.as_root("s3", "HeadObject", Bucket=bucket, Key="theirs/b")


async def test_a_roles_path_is_part_of_what_policies_speak_of(site: Site) -> None:
    deny = statement("iam:*", f"arn:aws:iam::{ACCOUNT}:role/admin/*", "Deny")
    await site.role("weak", statement("iam:*"), deny)
    created = await site.as_root("iam", "CreateRole", RoleName="boss", Path="/admin/", AssumeRolePolicyDocument=TRUST)
    assert created["Role"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/admin/boss"
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement("*")]})
    for operation, more in (
        ("PutRolePolicy", {"PolicyName": "p", "PolicyDocument": document}),
        ("UpdateAssumeRolePolicy", {"PolicyDocument": TRUST}),
        ("AttachRolePolicy", {"PolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/p"}),
        ("DeleteRole", {}),
    ):
        await site.denied("iam", operation, RoleName="boss", **more)
    await site.denied("iam", "CreateRole", RoleName="chief", Path="/admin/", AssumeRolePolicyDocument=TRUST)


async def test_which_policy_is_attached_is_a_condition_key(site: Site) -> None:
    power = f"arn:aws:iam::{ACCOUNT}:policy/power"
    careful = {**statement("iam:AttachRolePolicy"), "Condition": {"ArnNotEquals": {"iam:PolicyARN": power}}}
    await site.role("weak", careful)
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement("*")]})
    await site.as_root("iam", "CreatePolicy", PolicyName="power", PolicyDocument=document)
    await site.denied("iam", "AttachRolePolicy", RoleName="weak", PolicyArn=power)


async def test_every_operation_asks_iam(site: Site) -> None:
    """All but those that AWS gives to everybody, and the one that asks about each key."""
    operations = site.rooms.operations
    silent = set()
    for service, name in operations.names():
        operation = operations.find(service, name)
        assert operation is not None
        try:
            if not list(operation.permissions({})):
                silent.add(f"{service}:{name}")
        except AwsError:
            pass  # Refused before it is decided.
    by_entry = {"events:PutEvents", "dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:TransactGetItems",
                "dynamodb:TransactWriteItems"}  # fmt: skip
    assert silent - by_entry == {"sts:GetCallerIdentity", "sts:GetSessionToken", "s3:DeleteObjects"}
