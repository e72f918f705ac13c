"""Lambda beside real queues, tables and buses on one ledger, called through the gate; handlers are functions of the test."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import AwsError
from entrepot.operations import Call, Decision, Operations, Permission, Principal
from entrepot.services import dynamodb, events, iam, lambda_, sqs
from entrepot.services.lambda_ import FunctionConfiguration, Lambda
from entrepot.services.lambda_.invocation import Invocation, error_payload

ROOT = Principal("arn:aws:iam::000000000000:root", "root", "root")
ROLE = "arn:aws:iam::000000000000:role/demo"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:demo"
CREATE: dict[str, Any] = {"FunctionName": "demo", "Runtime": "python3.12", "Role": ROLE, "Handler": "handler.run"}


def archive(*files: tuple[str, bytes]) -> bytes:
    """Return a zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for name, data in files:
            made.writestr(name, data)
    return content.getvalue()


def code(text: str = "1") -> dict[str, bytes]:
    """Return a function's code, different for each text."""
    return {"ZipFile": archive(("handler.py", text.encode()))}


class HandlerError(Exception):
    """What a handler of a test raises to fail."""


class Site:
    """The rooms. `handlers` answers invocations by function name: a function of (event, configuration, invocation)."""

    def __init__(self, database: SQLiteDatabase, folder: Path) -> None:
        self.database = database
        self.account = Account()
        self.handlers: dict[str, Callable[[Any, FunctionConfiguration, Invocation], Any]] = {}
        self.invocations: list[tuple[str, str, Any]] = []
        self.objects: dict[tuple[str, str, str | None], bytes] = {}
        self.denied: set[str] = set()
        self.asked: list[tuple[str, str, str]] = []
        self.operations = Operations(database, self._authorize)
        self.sqs = sqs.SQS(database, self.account, endpoint_url=lambda: "http://127.0.0.1:4566")
        self.dynamodb = dynamodb.DynamoDB(database, self.account, on_item_changed=lambda *_: None)
        self.folder = folder
        self.lambda_ = self.make()
        for service, room in (
            ("sqs", sqs.operations(self.sqs)),
            ("dynamodb", dynamodb.operations(self.dynamodb)),
            ("dynamodbstreams", dynamodb.stream_operations(self.dynamodb)),
        ):
            self.operations.add(service, room)
        self.operations.add("lambda", lambda_.operations(self.lambda_))

    def make(self) -> Lambda:
        """Return a Lambda as after a start of the server."""
        made = Lambda(
            self.database,
            self.account,
            folder=self.folder / "lambda",
            issue_credentials=lambda role, session: SimpleNamespace(),  # type: ignore[arg-type,return-value]
            endpoint_url=lambda: "",
            write_log=lambda group, stream, line: None,
            retry_delays_s=(0.01, 0.02),
            neighbours=lambda_.Neighbours(
                self.operations,
                lambda role, session: Principal(f"{role}/{session}", "role", session, role),
                self._read_object,
                lambda text: events.EventPattern.parse(text).matches,
                iam.admits,
            ),
        )
        made.pool.submit = self._submit  # type: ignore[method-assign]
        return made

    def _authorize(self, principal: Principal, permission: Permission) -> Decision:
        self.asked.append((principal.name, permission.action, permission.resource))
        return Decision(permission.action not in self.denied, "test", "test")

    async def _read_object(self, call: Call, bucket: str, key: str, version: str | None, limit_bytes: int) -> bytes:
        if (bucket, key, version) not in self.objects:
            raise AwsError("NoSuchKey")
        return self.objects[bucket, key, version]

    def _submit(self, configuration: FunctionConfiguration, invocation: Invocation) -> None:
        event = json.loads(invocation.payload)
        self.invocations.append((configuration.version, invocation.function_arn, event))
        answer = self.handlers.get(configuration.name, lambda event, *_: event)
        try:
            invocation.finish(json.dumps(answer(event, configuration, invocation)).encode())
        except HandlerError as error:
            invocation.finish(error_payload("HandlerError", str(error)), "Unhandled")

    async def do(self, name: str, service: str = "lambda", **request: Any) -> dict[str, Any]:
        answer = await self.operations.perform(service, name, request, Call(ROOT, ids.random_uuid()))
        if service == "lambda":
            _check_shape(name, answer)
        return answer

    async def code_of(self, name: str, **request: Any) -> str:
        with pytest.raises(AwsError) as caught:
            await self.do(name, **request)
        return caught.value.code

    async def create(self, name: str = "demo", text: str = "1", **members: Any) -> dict[str, Any]:
        return await self.do("CreateFunction", **CREATE | {"FunctionName": name, "Code": code(text)} | members)

    async def queue(self, name: str = "queue", **attributes: str) -> str:
        await self.do("CreateQueue", "sqs", QueueName=name, Attributes=attributes)
        return self.account.arn("sqs", name)

    async def send(self, name: str, body: str, **members: Any) -> None:
        await self.do("SendMessage", "sqs", QueueUrl=name, MessageBody=body, **members)

    async def messages(self, name: str, deadline_s: float = 10.0) -> list[dict[str, Any]]:
        """Return messages of a queue as soon as there are some."""
        found = await self.do(
            "ReceiveMessage", "sqs", QueueUrl=name, MaxNumberOfMessages=10, WaitTimeSeconds=int(deadline_s),
            MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"],
        )  # fmt: skip
        messages: list[dict[str, Any]] = found.get("Messages", [])
        return messages

    async def count(self, name: str) -> int:
        """Return how many messages a queue has, those in flight included."""
        shown = (await self.do("GetQueueAttributes", "sqs", QueueUrl=name, AttributeNames=["All"]))["Attributes"]
        return int(shown["ApproximateNumberOfMessages"]) + int(shown["ApproximateNumberOfMessagesNotVisible"])


@cache
def _output_shape(name: str) -> Any:
    return botocore.session.get_session().get_service_model("lambda").operation_model(name).output_shape


def _check_shape(name: str, answer: dict[str, Any]) -> None:
    """Every answer has the members and types of botocore's model, and nothing else."""
    shape = _output_shape(name)
    if shape is None:
        assert answer == {}
        return
    report = ParamValidator().validate(answer, shape)
    assert not report.has_errors(), f"{name}: {report.generate_report()}"


async def until(condition: Callable[[], Any], deadline_s: float = 10.0) -> None:
    """Wait until something is true, whether at once or after an await."""
    end = clock.monotonic_s() + deadline_s
    while True:
        answer = condition()
        if await answer if asyncio.iscoroutine(answer) else answer:
            return
        assert clock.monotonic_s() < end, "the condition did not come true in time"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    database = SQLiteDatabase(folder / "ledger.db")
    database.migrate([*sqs.MIGRATIONS, *dynamodb.MIGRATIONS, *lambda_.MIGRATIONS])
    made = Site(database, folder)
    made.lambda_.async_invocations.start()
    await made.lambda_.event_sources.start()
    try:
        yield made
    finally:
        await made.lambda_.event_sources.stop()
        await made.lambda_.async_invocations.stop()
        await made.sqs.stop()
        await database.close()
