"""SNS with SQS and a recorded Lambda beside it, for tests of the room without a wire."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entrepot import clock
from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.operations import AsyncOperation, Call, Decision, Operations, Permission, Principal, Response
from entrepot.outbound import OutboundError, Request
from entrepot.outbound import Response as HttpAnswer
from entrepot.services import events, iam, sns, sqs

ROOT = Call(Principal("arn:aws:iam::000000000000:root", "root", "root"), "request")
ENDPOINT = "http://127.0.0.1:4566"
WAIT_S = 60.0


class Site:
    """The rooms over one ledger. `answers` says what an endpoint answers: a status, or an OutboundError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.account = Account()
        self.database = SQLiteDatabase(folder / "ledger.db")
        self.database.migrate([*sns.MIGRATIONS, *sqs.MIGRATIONS])
        self.denied: set[str] = set()
        self.asked: list[Permission] = []
        self.operations = Operations(self.database, self._authorize)
        self.sent: list[Request] = []
        self.invoked: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.answers: Callable[[Request], int | OutboundError] = lambda request: 200
        self.sns = sns.SNS(
            self.database,
            self.account,
            self.operations,
            endpoint_url=lambda: ENDPOINT,
            key_file=folder / "keys" / "notifications.pem",
            compile_pattern=lambda text: events.EventPattern.parse(text).matches,
            check_policy=iam.check_resource_policy,
            send=self._send,
            mail_server=sns.MailServer("mail.example", 25, "entrepot@example.com"),
            write_log=lambda group, stream, line: self.lines.append(line.message),
        )
        self.sqs = sqs.SQS(self.database, self.account, endpoint_url=lambda: ENDPOINT)
        self.operations.add("sns", sns.operations(self.sns))
        self.operations.add("sqs", sqs.operations(self.sqs))
        self.operations.add("lambda", [AsyncOperation("Invoke", lambda request: [], self._invoke)])

    def _authorize(self, principal: Principal, permission: Permission) -> Decision:
        self.asked.append(permission)
        return Decision(permission.action not in self.denied, "", "it is denied")

    async def _send(self, request: Request) -> HttpAnswer:
        self.sent.append(request)
        answer = self.answers(request)
        if isinstance(answer, OutboundError):
            raise answer
        return HttpAnswer(answer, "", (), b"", True)

    async def _invoke(self, request: Any, call: Call) -> Response:
        self.invoked.append(dict(request))
        return {"StatusCode": 202}

    async def close(self) -> None:
        await self.sns.stop()
        await self.database.close()

    async def call(self, operation: str, service: str = "sns", **request: Any) -> dict[str, Any]:
        return await self.operations.perform(service, operation, request, ROOT)

    async def topic(self, name: str = "orders", **attributes: str) -> str:
        arn: str = (await self.call("CreateTopic", Name=name, Attributes=attributes))["TopicArn"]
        return arn

    async def queue(self, name: str, **attributes: str) -> str:
        await self.call("CreateQueue", "sqs", QueueName=name, Attributes=attributes)
        return self.account.arn("sqs", name)

    async def subscribe(self, topic_arn: str, protocol: str, endpoint: str, **attributes: str) -> str:
        answer = await self.call(
            "Subscribe",
            TopicArn=topic_arn,
            Protocol=protocol,
            Endpoint=endpoint,
            Attributes=attributes,
            ReturnSubscriptionArn=True,
        )
        arn: str = answer["SubscriptionArn"]
        return arn

    async def subscribe_confirmed(self, topic_arn: str, protocol: str, endpoint: str, **attributes: str) -> str:
        arn = await self.subscribe(topic_arn, protocol, endpoint, **attributes)
        token = await self.token(arn)
        await self.call("ConfirmSubscription", TopicArn=topic_arn, Token=token)
        return arn

    async def token(self, subscription_arn: str) -> str:
        uuid = subscription_arn.rpartition(":")[2]
        row = await self.database.read(
            lambda reader: reader.one("SELECT token FROM sns_subscription WHERE uuid = ?", (uuid,))
        )
        assert row is not None
        return str(row[0])

    async def received(self, name: str) -> list[dict[str, Any]]:
        """All messages of a queue, in the order in which they can be received."""
        found: list[dict[str, Any]] = []
        while True:
            answer = await self.call(
                "ReceiveMessage",
                "sqs",
                QueueUrl=f"000000000000/{name}",
                MaxNumberOfMessages=10,
                MessageAttributeNames=["All"],
                AttributeNames=["All"],
            )
            if not answer:
                return found
            for message in answer["Messages"]:
                found.append(message)
                await self.call(
                    "DeleteMessage", "sqs", QueueUrl=f"000000000000/{name}", ReceiptHandle=message["ReceiptHandle"]
                )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds; fail after WAIT_S."""
        deadline_s = clock.monotonic_s() + WAIT_S
        while not condition():
            assert clock.monotonic_s() < deadline_s, "waited too long"
            await asyncio.sleep(0.005)

    async def until_empty(self) -> None:
        """Wait until no delivery is waiting."""
        deadline_s = clock.monotonic_s() + WAIT_S
        while await self.count("sns_delivery"):
            assert clock.monotonic_s() < deadline_s, "waited too long"
            await asyncio.sleep(0.005)

    async def count(self, table: str) -> int:
        row = await self.database.read(lambda reader: reader.one(f"SELECT COUNT(*) FROM {table}"))
        assert row is not None
        return int(row[0])
