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
from entrepot.operations import Call
from entrepot.services.lambda_ import code, functions, pool, processes
from entrepot.services.lambda_.async_invocations import RETRY_DELAYS_S, AsyncInvocations
from entrepot.services.lambda_.configuration import (
    LATEST,
    FunctionConfiguration,
    Reference,
    check,
    function_arn,
    not_found,
)
from entrepot.services.lambda_.destinations import Destinations
from entrepot.services.lambda_.errors import (
    InvalidRequestContentError,
    RequestTooLargeError,
    ResourceNotFoundError,
    TooManyRequestsError,
)
from entrepot.services.lambda_.event_source_mappings import EventSourceMapping
from entrepot.services.lambda_.event_sources import EventSources
from entrepot.services.lambda_.invocation import PAYLOAD_LIMIT_BYTES, Invocation, InvocationResult
from entrepot.services.lambda_.isolation import Isolation, Mode
from entrepot.services.lambda_.known import Known
from entrepot.services.lambda_.neighbours import Neighbours, alone
from entrepot.services.lambda_.sources import SourcePorts
from entrepot.services.lambda_.worker import Surroundings, WorkerCredentials

IssueCredentials: TypeAlias = Callable[[str, str], WorkerCredentials]
"""(role_arn, session_name) → temporary credentials of the role, valid for some hours. Must not block."""

OnInvoked: TypeAlias = Callable[[str, str, float], None]
"""`on_invoked(function_name, outcome, duration_ms)`; outcome is success, error or throttle. The wait for a worker counts in."""

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
        isolation: Mode = "best-effort",
        node_modules: Path | None = None,
        neighbours: Neighbours | None = None,
        on_invoked: OnInvoked = lambda name, outcome, duration_ms: None,
    ) -> None:
        self.account = account
        self.database = database
        self.worker_limit = worker_limit
        folder = folder.absolute()
        self.code = folder / "code"
        self._scratch = folder / "scratch"
        self._write_log = write_log
        self._on_invoked = on_invoked
        self._functions: dict[str, Known] = {}
        self.pool = pool.Pool(
            Surroundings(
                account,
                self.code,
                self._scratch,
                issue_credentials,
                endpoint_url,
                write_log,
                Isolation(isolation),
                node_modules,
            ),
            worker_limit=worker_limit,
            wait_limit_s=wait_limit_s,
            idle_limit_s=idle_limit_s,
        )
        self.neighbours = neighbours or alone(database)
        self.destinations = Destinations(account, self.neighbours, self.invoke_async)
        self.async_invocations = AsyncInvocations(
            database, self._invoke_queued, self.function, self.destinations, self._on_dead, retry_delays_s
        )

        self.event_sources = EventSources(
            SourcePorts(
                database,
                self.neighbours,
                self.destinations,
                self.invoke,
                account,
                self._call_of_mapping,
                self._function_of_mapping,
            ),
            worker_limit,
        )

    async def start(self) -> None:
        """Load the functions, end what an earlier server left behind, begin to warm workers."""
        for name, known in (await self.database.scan(self._load)).items():
            self._functions.setdefault(name, known)
        used = await self.database.scan(self._used_code)
        await asyncio.get_running_loop().run_in_executor(None, self._clean_up, used)
        for known in self._functions.values():
            for configuration in known.versions.values():
                self.pool.configure(configuration)
        await self.pool.start()
        self.async_invocations.start()
        await self.event_sources.start()

    async def stop(self) -> None:
        """End the workers; invocations under way fail with ServiceException."""
        await self.event_sources.stop()
        await self.async_invocations.stop()
        await self.pool.stop()

    def _load(self, reader: Reader) -> dict[str, Known]:
        names = [name for (name,) in reader.all("SELECT name FROM lambda_function")]
        return {name: known for name in names if (known := Known.read(reader, name)) is not None}

    def _used_code(self, reader: Reader) -> set[str]:
        """Return the folders of code that some function, version or layer needs."""
        used = {sha256 for (sha256,) in reader.all("SELECT code_sha256 FROM lambda_layer_version")}
        for table in ("function", "version"):
            for (text,) in reader.all(f"SELECT configuration FROM lambda_{table}"):  # noqa: S608 - our own tables
                configuration = FunctionConfiguration.from_json(text)
                used |= {configuration.code_sha256, configuration.layers_folder}
        return used

    def _clean_up(self, used: set[str]) -> None:
        """End workers of a server that was killed, and remove their scratch folders and code that nobody uses."""
        if self._scratch.is_dir():
            processes.kill_marked(f"TMPDIR={self._scratch}/".encode())
            shutil.rmtree(self._scratch, ignore_errors=True)
        code.collect_garbage(self.code, used)

    # ── functions ────────────────────────────────────────────────────────────────────────────────────────────────

    def put_function(self, tx: Transaction, configuration: FunctionConfiguration) -> FunctionConfiguration:
        """Create or update $LATEST of a function in the caller's transaction; return it as stored.

        With `code_folder` its code is copied from there. What is the same already is not written again; a change of the
        concurrency alone keeps the revision, and thus the workers. ValidationError and InvalidParameterValueError when
        AWS would refuse it.
        """
        check(configuration)
        old = functions.find(tx, configuration.name)
        if configuration.code_folder is not None:
            sha256, size_bytes = code.install_folder(configuration.code_folder, self.code)
            configuration = replace(configuration, code_folder=None, code_sha256=sha256, code_size_bytes=size_bytes)
        elif not configuration.code_sha256 and old is not None:
            configuration = replace(configuration, code_sha256=old.code_sha256, code_size_bytes=old.code_size_bytes)
        if old is not None:
            configuration = replace(configuration, modified_at_ms=old.modified_at_ms, revision_id=old.revision_id)
            if configuration == old:
                return old
        if old is None or configuration != replace(
            old, reserved_concurrency=configuration.reserved_concurrency, minimum_warm=configuration.minimum_warm
        ):
            configuration = replace(configuration, modified_at_ms=clock.now_ms(), revision_id=ids.random_uuid())
        functions.write(tx, configuration)
        self.follow(tx, configuration.name)
        return configuration

    def delete_function(self, tx: Transaction, name: str) -> None:
        """Delete a function in the caller's transaction; ResourceNotFoundError when it is not there."""
        if not functions.delete(tx, name):
            raise not_found(function_arn(self.account, name))
        self.follow(tx, name)

    @staticmethod
    def find(reader: Reader, name: str) -> FunctionConfiguration | None:
        """Return $LATEST of a function as this reader or transaction sees it."""
        return functions.find(reader, name)

    def function(self, reader: Reader, reference: Reference) -> FunctionConfiguration:
        """Return the version that a reference stands for (an alias: its main one); raise ResourceNotFoundError."""
        configuration = functions.find(reader, reference.name, self.version_of(reader, reference))
        if configuration is None:
            raise not_found(function_arn(self.account, reference.name, reference.qualifier))
        return configuration

    @staticmethod
    def version_of(reader: Reader, reference: Reference) -> str:
        """Return the version that a reference stands for, or what is none."""
        if reference.is_latest or reference.qualifier.isdigit():
            return reference.qualifier or LATEST
        alias = functions.find_alias(reader, reference.name, reference.qualifier)
        return alias.version if alias else ""

    def follow(self, tx: Transaction, name: str) -> None:
        """Let memory and pool follow, after the commit, what the transaction did to a function."""
        known = Known.read(tx, name)
        tx.after_commit(lambda: self._use(name, known))

    def _use(self, name: str, known: Known | None) -> None:
        old = self._functions.pop(name, None)
        if known is not None:
            self._functions[name] = known
            for version in old.versions if old else ():
                if old and version not in known.versions and version in known.published:
                    known.add(replace(old.versions[version], minimum_warm=0))
            for configuration in known.versions.values():
                self.pool.configure(configuration)
        for version, configuration in old.versions.items() if old else ():
            if known is None or version not in known.versions:
                self.pool.remove(configuration.key)

    # ── invocations ──────────────────────────────────────────────────────────────────────────────────────────────

    async def invoke(
        self,
        name: str,
        payload: bytes,
        *,
        qualifier: str = "",
        client_context: str = "",
        want_tail: bool = False,
        request_id: str | None = None,
    ) -> InvocationResult:
        """Run the function and return what it answered or how it failed (`function_error`).

        `payload` is JSON text (empty means `{}`), `client_context` JSON text; `qualifier` a version or an alias. Raises
        ResourceNotFoundError, RequestTooLargeError, InvalidRequestContentError, TooManyRequestsError,
        LambdaServiceError. Cancelling the caller does not stop the function.
        """
        configuration = self._chosen(name, qualifier) or await self._looked_up(name, qualifier)
        if len(payload) > PAYLOAD_LIMIT_BYTES:
            raise RequestTooLargeError(
                f"{len(payload)} byte payload is too large for the RequestResponse invocation type "
                f"(limit {PAYLOAD_LIMIT_BYTES} bytes)"
            )
        check_payload(payload)
        invocation = Invocation(
            request_id=request_id or ids.random_uuid(),
            function_arn=function_arn(self.account, name, qualifier),
            payload=payload or b"{}",
            client_context=client_context,
            want_tail=want_tail,
            future=asyncio.get_running_loop().create_future(),
            trace_id=f"Root=1-{clock.now_ms() // 1000:08x}-{ids.random_hex(12)};Sampled=0",
            version=configuration.version,
        )
        begun_s = clock.monotonic_s()
        try:
            self.pool.submit(configuration, invocation)
            result: InvocationResult = await invocation.future
        except TooManyRequestsError:
            self._on_invoked(name, "throttle", 0.0)
            raise
        self._on_invoked(name, "error" if result.function_error else "success", (clock.monotonic_s() - begun_s) * 1000)
        return result

    def _chosen(self, name: str, qualifier: str) -> FunctionConfiguration | None:
        """Return the version that runs one invocation, from memory; None when it is not there."""
        known = self._functions.get(name)
        return None if known is None else known.versions.get(known.choose(qualifier))

    def policy(self, reference: Reference) -> str:
        """Return the resource policy (JSON text) of a function, version or alias; "" when it has none."""
        known = self._functions.get(reference.name)
        return "" if known is None else known.policies.get(reference.qualifier, "")

    async def _looked_up(self, name: str, qualifier: str) -> FunctionConfiguration:
        """Return the version from the ledger: it was not used yet, or its commit has not reached memory."""
        known = self._functions.get(name)
        chosen = Reference(name, qualifier if known is None else known.choose(qualifier))
        try:
            configuration = await self.database.read(lambda reader: self.function(reader, chosen))
        except ResourceNotFoundError:
            raise not_found(function_arn(self.account, name, qualifier)) from None
        known = self._functions.get(name)
        return configuration if known is None else known.add(configuration)

    def invoke_async(
        self, tx: Transaction, name: str, payload: bytes, request_id: str | None = None, qualifier: str = ""
    ) -> str:
        """Queue an invocation in the caller's transaction (InvocationType Event); return its request id."""
        check_payload(payload)
        self.function(tx, Reference(name, qualifier))
        return self.async_invocations.queue(tx, Reference(name, qualifier), payload or b"{}", request_id)

    async def _invoke_queued(self, reference: Reference, payload: bytes, request_id: str) -> InvocationResult:
        return await self.invoke(reference.name, payload, qualifier=reference.qualifier, request_id=request_id)

    async def _function_of_mapping(self, mapping: EventSourceMapping) -> FunctionConfiguration:
        """Return the version that a mapping invokes; ResourceNotFoundError when it is gone."""
        name, qualifier = mapping.function_name, mapping.qualifier
        return self._chosen(name, qualifier) or await self._looked_up(name, qualifier)

    async def _call_of_mapping(self, mapping: EventSourceMapping) -> Call:
        """Return the caller of what a mapping's poller does: the function's role."""
        function = await self._function_of_mapping(mapping)
        principal = self.neighbours.principal_for_role(function.role_arn, function.name)
        return Call(principal, ids.random_uuid(), user_agent="lambda.amazonaws.com")

    def _on_dead(self, name: str, request_id: str, error: str) -> None:
        """Tell in the function's log group that an asynchronous invocation was given up."""
        text = f"RequestId: {request_id} The asynchronous invocation was given up after its last attempt: {error}\n"
        _log.error("Function %s: %s", name, text.rstrip())
        known = self._functions.get(name)
        group = known.versions[LATEST].log_group_name if known else f"/aws/lambda/{name}"
        self._write_log(group, "asynchronous-invocations", LogLine(clock.now_ms(), text))


def check_payload(payload: bytes) -> None:
    """Raise InvalidRequestContentError when the payload is not JSON (empty is taken as `{}`)."""
    if not payload:
        return
    try:
        json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestContentError(f"Could not parse request body into json: {error}") from None
