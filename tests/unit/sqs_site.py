"""SQS on a real ledger, called through the gate, with a clock that the test turns."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from entrepot import clock
from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.operations import Call, Decision, Operations, Principal
from entrepot.services import sqs

ROOT = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "r-1")


class Site:
    """Queues, and the time."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self.database = database
        self.at_ms = 1_800_000_000_000
        self.operations = Operations(database, lambda principal, permission: Decision(True, "test", "test"))
        self.sqs = sqs.SQS(database, Account(), endpoint_url=lambda: "http://127.0.0.1:4566")
        self.operations.add("sqs", sqs.operations(self.sqs))

    async def do(self, name: str, **request: Any) -> dict[str, Any]:
        return await self.operations.perform("sqs", name, request, ROOT)

    async def create(self, name: str = "q", **attributes: str) -> str:
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        url: str = (await self.do("CreateQueue", QueueName=name, Attributes=attributes))["QueueUrl"]
        return url

    async def send(self, url: str, body: str, **request: Any) -> dict[str, Any]:
        return await self.do("SendMessage", QueueUrl=url, MessageBody=body, **request)

    async def receive(self, url: str, limit: int = 10, **request: Any) -> list[dict[str, Any]]:
        asked = {"MaxNumberOfMessages": limit, "MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"]}
        found: list[dict[str, Any]] = (await self.do("ReceiveMessage", QueueUrl=url, **{**asked, **request})).get(
            "Messages", []
        )
        return found

    async def bodies(self, url: str, limit: int = 10, **request: Any) -> list[str]:
        return [message["Body"] for message in await self.receive(url, limit, **request)]

    async def counts(self, url: str) -> tuple[str, str, str]:
        shown = (await self.do("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"]))["Attributes"]
        return (
            shown["ApproximateNumberOfMessages"],
            shown["ApproximateNumberOfMessagesNotVisible"],
            shown["ApproximateNumberOfMessagesDelayed"],
        )


@asynccontextmanager
async def site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    database = SQLiteDatabase(folder / "ledger.db")
    try:
        database.migrate(sqs.MIGRATIONS)
        made = Site(database)
        monkeypatch.setattr(clock, "now_ms", lambda: made.at_ms)
        yield made
    finally:
        await database.close()
