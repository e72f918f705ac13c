"""The operations of Lambda that need no worker: functions, names, refusals."""

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.operations import Call, Decision, Operations, Principal
from entrepot.services.lambda_ import MIGRATIONS, FunctionConfiguration, Lambda, operations
from entrepot.services.lambda_.configuration import Reference, reference
from tests.unit.test_lambda_code import archive

CALL = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "request")
ROLE = "arn:aws:iam::000000000000:role/demo"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:demo"
ZIP = archive(("handler.py", b"def lambda_handler(event, context): return 1"))
CREATE = {
    "FunctionName": "demo",
    "Runtime": "python3.12",
    "Role": ROLE,
    "Handler": "handler.lambda_handler",
    "Code": {"ZipFile": ZIP},
}


class Client:
    def __init__(self, lambda_: Lambda) -> None:
        self.lambda_ = lambda_
        self.asked: list[tuple[str, str]] = []
        self._operations = Operations(lambda_.database, self._allow)
        self._operations.add("lambda", operations(lambda_))

    def _allow(self, principal: Any, permission: Any) -> Decision:
        self.asked.append((permission.action, permission.resource))
        return Decision(True, "", "")

    async def __call__(self, name: str, **request: Any) -> dict[str, Any]:
        return await self._operations.perform("lambda", name, request, CALL)

    async def code(self, name: str, **request: Any) -> str:
        with pytest.raises(AwsError) as caught:
            await self(name, **request)
        return caught.value.code


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    database.migrate(MIGRATIONS)
    yield Client(
        Lambda(
            database,
            Account(),
            folder=tmp_path / "lambda",
            issue_credentials=lambda role, session: SimpleNamespace(),  # type: ignore[arg-type,return-value]
            endpoint_url=lambda: "",
            write_log=lambda group, stream, line: None,
        )
    )
    await database.close()


async def test_a_function_from_creation_to_deletion(client: Client) -> None:
    created = await client("CreateFunction", **CREATE, Timeout=9, Environment={"Variables": {"STAGE": "x"}})
    assert created["FunctionArn"] == ARN
    assert created["CodeSha256"] == base64.b64encode(hashlib.sha256(ZIP).digest()).decode()
    assert (created["Timeout"], created["MemorySize"], created["State"]) == (9, 128, "Active")
    assert await client.code("CreateFunction", **CREATE) == "ResourceConflictException"
    changed = await client("UpdateFunctionConfiguration", FunctionName=ARN, MemorySize=256)
    assert (changed["MemorySize"], changed["Timeout"]) == (256, 9)
    assert changed["RevisionId"] != created["RevisionId"]
    stale = created["RevisionId"]
    other = archive(("handler.py", b"2"))
    assert await client.code("UpdateFunctionCode", FunctionName="demo", ZipFile=other, RevisionId=stale) == (
        "PreconditionFailedException"
    )
    updated = await client("UpdateFunctionCode", FunctionName="demo", ZipFile=other)
    assert updated["CodeSha256"] != created["CodeSha256"]
    await client("PutFunctionConcurrency", FunctionName="demo", ReservedConcurrentExecutions=3)
    assert (await client("GetFunction", FunctionName="demo"))["Concurrency"] == {"ReservedConcurrentExecutions": 3}
    await client("DeleteFunctionConcurrency", FunctionName="demo")
    assert await client("GetFunctionConcurrency", FunctionName="demo") == {}
    assert [f["FunctionName"] for f in (await client("ListFunctions"))["Functions"]] == ["demo"]
    await client("DeleteFunction", FunctionName="demo")
    for name in ("GetFunction", "DeleteFunction", "GetFunctionConfiguration", "Invoke"):
        assert await client.code(name, FunctionName="demo") == "ResourceNotFoundException"
    assert ("lambda:InvokeFunction", ARN) in client.asked


@pytest.mark.parametrize(
    "change",
    [
        {"FunctionName": "no spaces"},
        {"FunctionName": "demo:1:2"},
        {"Role": "demo"},
        {"Handler": "a b"},
        {"Timeout": 901},
        {"MemorySize": 64},
        {"EphemeralStorage": {"Size": 1}},
        {"Environment": {"Variables": {"A=B": "x"}}},
    ],
)
async def test_creation_refuses_what_is_malformed(client: Client, change: dict[str, Any]) -> None:
    assert await client.code("CreateFunction", **(CREATE | change)) == "ValidationException"
    assert (await client("ListFunctions"))["Functions"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"FunctionName": "demo:1"},
        {"Handler": ""},
        {"Runtime": "cobol"},
        {"Environment": {"Variables": {"AWS_ACCESS_KEY_ID": "x"}}},
        {"Environment": {"Variables": {"BIG": "x" * 5000}}},
        {"Layers": ["arn:aws:lambda:us-east-1:000000000000:layer:x:1"]},
        {"VpcConfig": {"SubnetIds": ["subnet-1"]}},
        {"PackageType": "Image"},
        {"Architectures": ["vax"]},
        {"DeadLetterConfig": {"TargetArn": "arn:aws:s3:::bucket"}},
        {"Code": {"S3Bucket": "b", "S3Key": "k"}},
        {"Code": {}},
        {"Code": {"ImageUri": "x"}},
        {"Code": {"ZipFile": b"nonsense"}},
    ],
)
async def test_creation_refuses(client: Client, change: dict[str, Any]) -> None:
    assert await client.code("CreateFunction", **(CREATE | change)) == "InvalidParameterValueException"
    assert (await client("ListFunctions"))["Functions"] == []


async def test_invoke_refuses_before_it_runs(client: Client) -> None:
    await client("CreateFunction", **CREATE)
    assert await client.code("Invoke", FunctionName="demo", Payload=b"{nope") == "InvalidRequestContentException"
    assert await client.code("Invoke", FunctionName="demo", Payload=b'"' + b"x" * 6_300_000 + b'"') == (
        "RequestTooLargeException"
    )
    assert await client.code("Invoke", FunctionName="demo", ClientContext="%") == "InvalidRequestContentException"
    assert await client.code("Invoke", FunctionName="demo", Qualifier="7") == "ResourceNotFoundException"
    big = b'"' + b"x" * 1_100_000 + b'"'
    assert await client.code("Invoke", FunctionName="demo", InvocationType="Event", Payload=big) == (
        "RequestTooLargeException"
    )
    assert (await client("Invoke", FunctionName="demo", InvocationType="DryRun"))["StatusCode"] == 204
    assert (await client("Invoke", FunctionName="demo", InvocationType="Event", Payload=b"1"))["StatusCode"] == 202
    rows = await client.lambda_.database.read(lambda r: r.all("SELECT payload FROM lambda_async_invocation"))
    assert rows == [(b"1",)]


async def test_the_same_function_put_again_is_not_written(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "handler.py").write_text("x = 1")
    configuration = FunctionConfiguration("demo", ROLE, "handler.x", code_folder=tmp_path / "f")
    put = client.lambda_.put_function
    first = await client.lambda_.database.write(lambda tx: put(tx, configuration))
    again = await client.lambda_.database.write(lambda tx: put(tx, configuration))
    assert first == again
    (tmp_path / "f" / "handler.py").write_text("x = 2")
    changed = await client.lambda_.database.write(lambda tx: put(tx, configuration))
    assert changed.code_sha256 != first.code_sha256 and changed.revision_id != first.revision_id


@pytest.mark.parametrize("text", ["demo", "function:demo", "000000000000:demo", "000000000000:function:demo", ARN])
def test_names_of_a_function(text: str) -> None:
    assert reference(Account(), text) == Reference("demo")
    assert reference(Account(), text + ":$LATEST") == Reference("demo", "$LATEST")
    assert reference(Account(), text, "7") == reference(Account(), text + ":7") == Reference("demo", "7")
    assert reference(Account(), text + ":live", "live") == Reference("demo", "live")
    with pytest.raises(AwsError, match="derived qualifier"):
        reference(Account(), text + ":live", "7")


@pytest.mark.parametrize("text", ["", "a b", ARN.replace("east", "west"), "111111111111:demo", "a/b", ARN + ":a b"])
def test_names_of_no_function(text: str) -> None:
    with pytest.raises(AwsError):
        reference(Account(), text)


@given(st.text(max_size=200), st.none() | st.text(max_size=150))
def test_no_name_breaks_the_edge(text: str, qualifier: str | None) -> None:
    try:
        found = reference(Account(), text, qualifier)
    except AwsError as error:
        assert error.status in (400, 404)
    else:
        assert found.name.isascii() and 0 < len(found.name) <= 64


@given(st.sampled_from(["demo", ARN]), st.text(alphabet="$LATES-_09az", min_size=1, max_size=20))
def test_a_qualifier_is_the_same_in_the_name_and_beside_it(name: str, qualifier: str) -> None:
    try:
        inside = reference(Account(), f"{name}:{qualifier}")
    except AwsError:
        return
    assert inside == reference(Account(), name, qualifier) == reference(Account(), f"{name}:{qualifier}", qualifier)
