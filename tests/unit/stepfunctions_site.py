"""A Step Functions over a real ledger in a folder, and functions that run in this process, for tests."""

import asyncio
import json
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from entrepot import arns, ids, outbound
from entrepot.database import Migration, Reader, Transaction
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AccessDeniedError, AwsError
from entrepot.loglines import LogLine
from entrepot.operations import (
    AsyncOperation,
    Call,
    Decision,
    Operation,
    Operations,
    Permission,
    Principal,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services import stepfunctions
from entrepot.services.stepfunctions import ConnectionParameters, ExecutionChange, StepFunctions
from entrepot.services.stepfunctions.operations.executions import described

ACCOUNT = arns.Account("111111111111", "us-east-1")
ROLE = "arn:aws:iam::111111111111:role/states"
ROOT = Call(Principal("arn:aws:iam::111111111111:root", "root", "root"), "test-request")
TABLES = Migration(
    "tests",
    1,
    (
        "CREATE TABLE item (name TEXT PRIMARY KEY, writes INTEGER NOT NULL)",
        "CREATE TABLE change (number INTEGER PRIMARY KEY, execution_arn TEXT NOT NULL, status TEXT NOT NULL)",
    ),
)
DEADLINE_S = 20.0


class FunctionMissing(AwsError):
    code = "ResourceNotFoundException"
    status = 404


class ConditionalCheckFailed(AwsError):
    code = "ConditionalCheckFailedException"
    status = 400


class ConnectionMissing(AwsError):
    code = "ResourceNotFoundException"
    status = 400


class TableMissing(AwsError):
    code = "ResourceNotFoundException"
    status = 400


class Functions:
    """Lambda's Invoke, in this process, with AWS's payloads for errors."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[Any], Any]] = {}
        self.invoked: list[tuple[str, Any, str]] = []

    def operations(self) -> list[Operation]:
        return [AsyncOperation("Invoke", lambda _: [Permission("lambda:InvokeFunction", "*")], self.invoke)]

    async def invoke(self, request: Request, call: Call) -> Response:
        name = request["FunctionName"].removeprefix("arn:aws:lambda:us-east-1:111111111111:function:")
        if name not in self.handlers:
            arn = ACCOUNT.arn("lambda", f"function:{name}")
            raise FunctionMissing(f"Function not found: {arn}:$LATEST")
        event = json.loads(request["Payload"])
        self.invoked.append((name, event, call.request_id))
        response = {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
        try:
            result = self.handlers[name](event)
            if asyncio.iscoroutine(result):
                result = await result
        except Exception as error:  # noqa: BLE001 - whatever a function raises is its payload
            failure = {
                "errorMessage": str(error),
                "errorType": type(error).__name__,
                "requestId": ids.random_uuid(),
                "stackTrace": traceback.format_tb(error.__traceback__)[1:],
            }
            return {**response, "FunctionError": "Unhandled", "Payload": json.dumps(failure).encode()}
        payload = result if isinstance(result, bytes) else json.dumps(result, ensure_ascii=False).encode()
        return {**response, "Payload": payload}


def items() -> list[Operation]:
    """DynamoDB's PutItem and GetItem on a table that counts how often an item was written."""

    def put_item(tx: Transaction, request: Request, call: Call) -> Response:
        name = request["Item"]["name"]["S"]
        tx.execute(
            "INSERT INTO item (name, writes) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET writes = writes + 1",
            (name,),
        )
        if request.get("ConditionExpression"):
            raise ConditionalCheckFailed("The conditional request failed")
        if request["TableName"] == "missing":
            raise TableMissing("Requested resource not found")
        return {}

    def get_item(reader: Reader, request: Request, call: Call) -> Response:
        row = reader.one("SELECT writes FROM item WHERE name = ?", (request["Key"]["name"]["S"],))
        return {} if row is None else {"Item": {"name": request["Key"]["name"], "writes": {"N": str(row[0])}}}

    return [
        WriteOperation("PutItem", lambda _: [Permission("dynamodb:PutItem", "*")], put_item),
        ReadOperation("GetItem", lambda _: [Permission("dynamodb:GetItem", "*")], get_item),
    ]


class Site:
    """A Step Functions with all that it is given, on one ledger."""

    def __init__(self, folder: Path, functions: Functions) -> None:
        self.database = SQLiteDatabase(folder / "ledger.db")
        self.database.migrate([*stepfunctions.MIGRATIONS, TABLES])
        self.functions = functions
        self.denied: set[str] = set()
        self.changes: list[ExecutionChange] = []
        """Those that this process committed; the table `change` has all of them."""
        self.lines: list[tuple[str, str, LogLine]] = []
        self.sent: list[outbound.Request] = []
        self.answers: list[outbound.Response | outbound.OutboundError] = []
        """What the endpoints of HTTP tasks answer, in order."""
        self.connections: dict[str, list[ConnectionParameters]] = {}
        """What a connection adds by its ARN, each time that it is asked anew."""
        self.operations = Operations(self.database, self._authorize)
        self.service = StepFunctions(
            self.database,
            ACCOUNT,
            self.operations,
            principal_for_role=lambda arn, session: Principal(f"{arn}/{session}", "role", session, role_arn=arn),
            assume_role=self._assume_role,
            write_log=lambda group, stream, line: self.lines.append((group, stream, line)),
            on_execution_changed=self._changed,
            send=self._send,
            open_connection=self._open_connection,
        )
        self.operations.add("stepfunctions", stepfunctions.operations(self.service))
        self.operations.add("lambda", functions.operations())
        self.operations.add("dynamodb", items())

    async def _send(self, request: outbound.Request) -> outbound.Response:
        self.sent.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, outbound.OutboundError):
            raise answer
        return answer

    async def _open_connection(self, arn: str, renew: bool) -> ConnectionParameters:
        if arn not in self.connections:
            raise ConnectionMissing(f"Connection {arn} does not exist.")
        if renew and len(self.connections[arn]) > 1:
            self.connections[arn].pop(0)
        return self.connections[arn][0]

    def _authorize(self, principal: Principal, permission: Permission) -> Decision:
        return Decision(permission.action not in self.denied, "test", "no identity-based policy allows it")

    def _assume_role(self, caller: Principal, role_arn: str, session_name: str) -> Principal:
        if "sts:AssumeRole" in self.denied:
            raise AccessDeniedError(f"{caller.arn} may not assume {role_arn}")
        return Principal(f"{role_arn}/{session_name}", "role", session_name, role_arn=role_arn)

    def _changed(self, tx: Transaction, change: ExecutionChange) -> None:
        tx.execute("INSERT INTO change (execution_arn, status) VALUES (?, ?)", (change.execution_arn, change.status))
        tx.after_commit(lambda: self.changes.append(change))

    async def call(self, operation: str, /, **request: Any) -> Response:
        return await self.operations.perform("stepfunctions", operation, request, ROOT)

    async def create(self, name: str, definition: Any, type_: str = "STANDARD", **more: Any) -> str:
        text = definition if isinstance(definition, str) else json.dumps(definition)
        made = await self.call("CreateStateMachine", name=name, definition=text, roleArn=ROLE, type=type_, **more)
        return str(made["stateMachineArn"])

    async def begin(self, machine_arn: str, input_: Any = None, name: str | None = None) -> str:
        text = json.dumps({} if input_ is None else input_)
        named = {} if name is None else {"name": name}
        return str(
            (await self.call("StartExecution", stateMachineArn=machine_arn, input=text, **named))["executionArn"]
        )

    async def ended(self, arn: str, deadline_s: float = DEADLINE_S) -> Response:
        """Wait until an execution has ended and describe it."""
        return await self.until(arn, lambda execution: execution["status"] != "RUNNING", deadline_s)

    async def describe(self, arn: str) -> Response:
        """Describe an execution, also one of an EXPRESS machine, of which the API tells nothing."""
        if ":express:" not in arn:
            return await self.call("DescribeExecution", executionArn=arn)
        return await self.database.read(lambda reader: described(reader, ACCOUNT, self.service.execution(reader, arn)))

    async def until(self, arn: str, test: Callable[[Response], bool], deadline_s: float = DEADLINE_S) -> Response:
        deadline = time.monotonic() + deadline_s
        while True:
            execution = await self.describe(arn)
            if test(execution):
                return execution
            assert time.monotonic() < deadline, f"{execution}: {await self.event_types(arn)}"
            await asyncio.sleep(0.01)

    async def run(self, definition: Any, input_: Any = None, name: str = "m") -> tuple[Response, list[dict[str, Any]]]:
        """Create a machine, run it once, and return the description and the history of its execution."""
        arn = await self.begin(await self.create(name, definition), input_)
        execution = await self.ended(arn)
        return execution, await self.history(arn)

    async def history(self, arn: str) -> list[dict[str, Any]]:
        if ":express:" in arn:
            return await self.database.read(lambda reader: self.service.recorded_events(reader, arn))
        events: list[dict[str, Any]] = []
        more: dict[str, Any] = {}
        while True:
            page = await self.call("GetExecutionHistory", executionArn=arn, maxResults=1000, **more)
            events += page["events"]
            if "nextToken" not in page:
                return events
            more = {"nextToken": page["nextToken"]}

    async def event_types(self, arn: str) -> list[str]:
        return [event["type"] for event in await self.history(arn)]


@asynccontextmanager
async def site(folder: Path, functions: Functions | None = None, *, start: bool = True) -> AsyncIterator[Site]:
    """Open a site over the ledger in `folder`."""
    opened = Site(folder, functions or Functions())
    if start:
        await opened.service.start()
    try:
        yield opened
    finally:
        await opened.service.stop(drain_s=0)
        await opened.database.close()
