"""An endpoint on a free loopback port in a thread of its own, so that blocking clients can call it from a test."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import boto3
import uvloop
from botocore.config import Config

from entrepot.arns import Account
from entrepot.aws import Endpoint, RequestRecord, models
from entrepot.blobs.local import LocalBlobStore
from entrepot.credentials import Credentials
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.operations import AsyncOperation, Call, Decision, Operation, Operations, Permission, Principal, Response
from entrepot.services import s3

KEY = Credentials("AKIDEXAMPLE", "secret/of+example", None, Principal("arn:aws:iam::000000000000:root", "root", "root"))
REGION = "us-east-1"


def operation(name: str, run: Callable[[dict[str, Any], Call], Response | Awaitable[Response]]) -> AsyncOperation:
    """A fake operation that needs the permission `test:<name>`."""

    async def perform(request: Any, call: Call) -> Response:
        answer = run(request, call)
        return answer if isinstance(answer, dict) else await answer

    return AsyncOperation(name, lambda request: [Permission(f"test:{name}", "*")], perform)


class RunningEndpoint:
    """The endpoint with `operations` by service; with `s3_folder`, the real S3 beside them."""

    def __init__(self, operations: dict[str, Iterable[Operation]], s3_folder: Path | None = None) -> None:
        self._fakes = operations
        self._s3_folder = s3_folder
        self.denied: set[str] = set()
        self.credentials = {KEY.access_key_id: KEY}
        self.records: list[RequestRecord] = []
        self.database: SQLiteDatabase | None = None
        self._failure: BaseException | None = None
        self._session: boto3.session.Session | None = None

    def __enter__(self) -> "RunningEndpoint":
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20)
        if self._failure is not None:
            raise self._failure
        self.port = int(self.url.rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # A test that stops the endpoint itself may have closed its loop.
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001  shown by the test that waits for it
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        closing: list[Callable[[], Awaitable[None]]] = []
        if self._s3_folder is not None:
            self.database = SQLiteDatabase(self._s3_folder / "ledger.db")
            self.database.migrate(s3.MIGRATIONS)
            closing.append(self.database.close)
        operations = Operations(self.database, self._authorize)  # type: ignore[arg-type]
        for service, fakes in self._fakes.items():
            operations.add(service, fakes)
        if self.database is not None and self._s3_folder is not None:
            blobs = LocalBlobStore(self._s3_folder / "content")
            closing.append(blobs.close)
            store = s3.S3(
                self.database,
                blobs,
                Account(),
                on_object_created=lambda tx, created, call: None,
                on_object_deleted=lambda tx, deleted, call: None,
            )
            operations.add("s3", s3.operations(store, operations.require))
        self.endpoint = Endpoint(operations, self._find, Account(), on_request=self.records.append)
        await self.endpoint.start("127.0.0.1", 0)
        self.url = self.endpoint.url
        self._ready.set()
        await self._stopping.wait()
        await self.endpoint.stop(5)
        for close in reversed(closing):
            await close()

    def _find(self, access_key_id: str, session_token: str | None) -> Credentials | None:
        return self.credentials.get(access_key_id)

    def _authorize(self, principal: Principal, permission: Permission) -> Decision:
        allowed = permission.action not in self.denied
        return Decision(allowed, "test", "no identity-based policy allows it")

    def session(self, **options: Any) -> boto3.session.Session:
        """A boto3 session that knows Entrepot's own API."""
        defaults = {
            "region_name": REGION,
            "aws_access_key_id": KEY.access_key_id,
            "aws_secret_access_key": KEY.secret_access_key,
        }
        if options:
            return models.session(**{**defaults, **options})
        if self._session is None:
            self._session = models.session(**defaults)
        return self._session

    def client(self, service: str, *, config: dict[str, Any] | None = None, url: str = "", **options: Any) -> Any:
        """A boto3 client that does not retry."""
        settings = Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=20, **(config or {}))
        return self.session(**options).client(service, endpoint_url=url or self.url, config=settings)

    def environment(self) -> dict[str, str]:
        """The environment variables for the aws CLI and other clients."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY.access_key_id,
            "AWS_SECRET_ACCESS_KEY": KEY.secret_access_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
        }
