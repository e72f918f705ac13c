"""The service `Lambda`: functions by name, invoked at once or later.

Configurations are in the ledger and, for the hot path, in a dictionary that follows each commit. Code is on disk (`code.py`),
workers are in the pool (`pool.py`).
"""

import asyncio
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.database import Database, Reader, Transaction
from entrepot.loglines import LogLine, WriteLog
from entrepot.services.lambda_ import code, pool, processes
from entrepot.services.lambda_.async_invocations import RETRY_DELAYS_S, AsyncInvocations
from entrepot.services.lambda_.configuration import FunctionConfiguration, check, function_arn, not_found
from entrepot.services.lambda_.errors import InvalidRequestContentError, RequestTooLargeError
from entrepot.services.lambda_.invocation import PAYLOAD_LIMIT_BYTES, Invocation, InvocationResult
from entrepot.services.lambda_.worker import Surroundings, WorkerCredentials

IssueCredentials: TypeAlias = Callable[[str, str], WorkerCredentials]
"""(role_arn, session_name) → temporary credentials of the role, valid for some hours. Must not block."""

_log = logging.getLogger("entrepot.lambda")


class Lambda:
    """Functions and their workers. `folder` holds their code and the workers' scratch folders."""

    def __init__(
        self,
        database: Database,
        account: Account,
        *,
        folder: Path,
        issue_credentials: IssueCredentials,
        endpoint_url: Callable[[], str],
        write_log: WriteLog,
        worker_limit: int = pool.WORKER_LIMIT,
        wait_limit_s: float = pool.WAIT_LIMIT_S,
        idle_limit_s: float = pool.IDLE_LIMIT_S,
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
    ) -> None:
        self.account = account
        self.database = database
        folder = folder.absolute()
        self.code = folder / "code"
        self._scratch = folder / "scratch"
        self._write_log = write_log
        self._functions: dict[str, FunctionConfiguration] = {}
        self.pool = pool.Pool(
            Surroundings(account, self.code, self._scratch, issue_credentials, endpoint_url, write_log),
            worker_limit=worker_limit,
            wait_limit_s=wait_limit_s,
            idle_limit_s=idle_limit_s,
        )
        self.async_invocations = AsyncInvocations(database, self._invoke_queued, self._on_dead, retry_delays_s)

    async def start(self) -> None:
        """Load the functions, end what an earlier server left behind, begin to warm workers."""
        rows = await self.database.scan(lambda reader: reader.all("SELECT configuration FROM lambda_function"))
        for (text,) in rows:
            configuration = FunctionConfiguration.from_json(text)
            self._functions.setdefault(configuration.name, configuration)
        await asyncio.get_running_loop().run_in_executor(None, self._clean_up)
        for configuration in self._functions.values():
            self.pool.configure(configuration)
        self.pool.start()
        self.async_invocations.start()

    async def stop(self) -> None:
        """End the workers; invocations under way fail with ServiceException."""
        await self.async_invocations.stop()
        await self.pool.stop()

    def _clean_up(self) -> None:
        """End workers of a server that was killed, and remove their scratch folders and code that nobody uses."""
        if self._scratch.is_dir():
            processes.kill_marked(f"TMPDIR={self._scratch}/".encode())
            shutil.rmtree(self._scratch, ignore_errors=True)
        code.collect_garbage(self.code, [function.code_sha256 for function in self._functions.values()])

    # ── functions ────────────────────────────────────────────────────────────────────────────────────────────────

    def put_function(self, tx: Transaction, configuration: FunctionConfiguration) -> FunctionConfiguration:
        """Create or update a function in the caller's transaction; return it as stored.

        With `code_folder` its code is copied from there. What is the same already is not written again.
        InvalidParameterValueError when AWS would refuse it.
        """
        check(configuration)
        old = self.find(tx, configuration.name)
        if configuration.code_folder is not None:
            sha256, size_bytes = code.install_folder(configuration.code_folder, self.code)
            configuration = replace(configuration, code_folder=None, code_sha256=sha256, code_size_bytes=size_bytes)
        elif not configuration.code_sha256 and old is not None:
            configuration = replace(configuration, code_sha256=old.code_sha256, code_size_bytes=old.code_size_bytes)
        if old is not None:
            configuration = replace(configuration, modified_at_ms=old.modified_at_ms, revision_id=old.revision_id)
            if configuration == old:
                return old
        configuration = replace(configuration, modified_at_ms=clock.now_ms(), revision_id=ids.random_uuid())
        tx.execute(
            "INSERT INTO lambda_function (name, configuration) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET configuration = excluded.configuration",
            (configuration.name, configuration.to_json()),
        )
        tx.after_commit(lambda: self._use(configuration))
        return configuration

    def delete_function(self, tx: Transaction, name: str) -> None:
        """Delete a function in the caller's transaction; ResourceNotFoundError when it is not there."""
        if not tx.execute("DELETE FROM lambda_function WHERE name = ?", (name,)):
            raise not_found(function_arn(self.account, name))
        tx.after_commit(lambda: self._forget(name))

    @staticmethod
    def find(reader: Reader, name: str) -> FunctionConfiguration | None:
        """Return the function as this reader or transaction sees it."""
        row = reader.one("SELECT configuration FROM lambda_function WHERE name = ?", (name,))
        return FunctionConfiguration.from_json(row[0]) if row else None

    def function(self, reader: Reader, name: str) -> FunctionConfiguration:
        """Return the function; ResourceNotFoundError when it is not there."""
        configuration = self.find(reader, name)
        if configuration is None:
            raise not_found(function_arn(self.account, name))
        return configuration

    @staticmethod
    def functions(reader: Reader, *, after: str = "", limit: int = 50) -> list[FunctionConfiguration]:
        """Return functions by name, after the name `after`."""
        rows = reader.all(
            "SELECT configuration FROM lambda_function WHERE name > ? ORDER BY name LIMIT ?", (after, limit)
        )
        return [FunctionConfiguration.from_json(text) for (text,) in rows]

    def _use(self, configuration: FunctionConfiguration) -> None:
        self._functions[configuration.name] = configuration
        self.pool.configure(configuration)

    def _forget(self, name: str) -> None:
        self._functions.pop(name, None)
        self.pool.remove(name)

    # ── invocations ──────────────────────────────────────────────────────────────────────────────────────────────

    async def invoke(
        self,
        name: str,
        payload: bytes,
        *,
        client_context: str = "",
        want_tail: bool = False,
        request_id: str | None = None,
    ) -> InvocationResult:
        """Run the function and return what it answered or how it failed (`function_error`).

        `payload` is JSON text (empty means `{}`), `client_context` JSON text. Raises ResourceNotFoundError,
        RequestTooLargeError, InvalidRequestContentError, TooManyRequestsError, LambdaServiceError. Cancelling the
        caller does not stop the function.
        """
        configuration = self._functions.get(name)
        if configuration is None:  # a commit just now may not have reached the dictionary yet
            configuration = await self.database.read(lambda reader: self.function(reader, name))
        if len(payload) > PAYLOAD_LIMIT_BYTES:
            raise RequestTooLargeError(
                f"{len(payload)} byte payload is too large for the RequestResponse invocation type "
                f"(limit {PAYLOAD_LIMIT_BYTES} bytes)"
            )
        check_payload(payload)
        invocation = Invocation(
            request_id=request_id or ids.random_uuid(),
            function_arn=function_arn(self.account, name),
            payload=payload or b"{}",
            client_context=client_context,
            want_tail=want_tail,
            future=asyncio.get_running_loop().create_future(),
            trace_id=f"Root=1-{clock.now_ms() // 1000:08x}-{ids.random_hex(12)};Sampled=0",
        )
        self.pool.submit(configuration, invocation)
        return await invocation.future

    def invoke_async(self, tx: Transaction, name: str, payload: bytes, request_id: str | None = None) -> str:
        """Queue an invocation in the caller's transaction (InvocationType Event); return its request id."""
        check_payload(payload)
        if self.find(tx, name) is None:
            raise not_found(function_arn(self.account, name))
        return self.async_invocations.queue(tx, name, payload or b"{}", request_id)

    async def _invoke_queued(self, name: str, payload: bytes, request_id: str) -> InvocationResult:
        return await self.invoke(name, payload, request_id=request_id)

    def _on_dead(self, name: str, request_id: str, error: str) -> None:
        """Tell in the function's log group that an asynchronous invocation was given up."""
        text = f"RequestId: {request_id} The asynchronous invocation was given up after its last attempt: {error}\n"
        _log.error("Function %s: %s", name, text.rstrip())
        configuration = self._functions.get(name)
        group = configuration.log_group_name if configuration else f"/aws/lambda/{name}"
        self._write_log(group, "asynchronous-invocations", LogLine(clock.now_ms(), text))


def check_payload(payload: bytes) -> None:
    """Raise InvalidRequestContentError when the payload is not JSON (empty is taken as `{}`)."""
    if not payload:
        return
    try:
        json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestContentError(f"Could not parse request body into json: {error}") from None
