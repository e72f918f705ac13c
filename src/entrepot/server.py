"""The composition root: the only place that chooses adapters and wires the services together."""

import asyncio
import dataclasses
import fcntl
import json
import logging
import os
import signal
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from entrepot import __version__, clock, faults, ids, stack, status
from entrepot.arns import Account
from entrepot.aws import Endpoint
from entrepot.blobs.local import LocalBlobStore
from entrepot.database import Transaction
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import EntrepotError
from entrepot.loglines import LogLine
from entrepot.operations import Call, Decision, Operation, Operations, Permission, Principal
from entrepot.services import dynamodb, events, files, iam, lambda_, logs, s3, stepfunctions, sts, transfer
from entrepot.settings import Settings, SettingsError, StackFolder, describe, line_of
from entrepot.sftp import SFTPServer, SFTPSettings
from entrepot.stack import Services, Stack

log = logging.getLogger("entrepot")

AUDIT_LOG_GROUP = "/entrepot/audit"
"""Every denied access, with the statement that decided."""

MIGRATIONS = (
    *dynamodb.MIGRATIONS,
    *events.MIGRATIONS,
    *files.MIGRATIONS,
    *iam.MIGRATIONS,
    *lambda_.MIGRATIONS,
    *s3.MIGRATIONS,
    *stack.MIGRATIONS,
    *stepfunctions.MIGRATIONS,
    *transfer.MIGRATIONS,
)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running server answers."""

    sftp: str
    api: str

    def ready_line(self) -> str:
        """Return the line that `up` prints when the server serves."""
        return f"ready sftp={self.sftp} api={self.api}"


class Composition:
    """All rooms over one data folder, wired, not yet serving."""

    def __init__(self, folder: StackFolder, settings: Settings, data: Path) -> None:
        self.folder = folder
        self.settings = settings
        self.data = data
        self.account = Account(settings.stack.account_id, settings.stack.region)
        self.root = Call(
            Principal(self.account.iam_arn("root"), "root", "operator"), ids.random_uuid(), user_agent="entrepot"
        )
        self.database = SQLiteDatabase(data / "ledger.db")
        self.database.migrate(MIGRATIONS)
        self.blobs = LocalBlobStore(data)
        self.logs = logs.Logs(data / "logs", self.account)
        self.write_log = self.logs.write_log
        self.iam = iam.IAM(self.database, self.account, secret=_secret(folder), audit=self._audit)
        self.operations = Operations(self.database, self.iam.authorize)
        self.transfer = transfer.Transfer(self.database, self.account)
        self.files = files.Files(
            self.database,
            self.account,
            pipelines=[
                files.Pipeline(entry.source_bucket, entry.destination_bucket, entry.metadata_table)
                for entry in settings.pipelines.values()
            ],
            put_metadata_item=self._put_metadata_item,
            redeliver=self._redeliver,
            session=self._session,
            execution_history=self._execution_history,
            log_lines=self._log_lines,
        )
        self.dynamodb = dynamodb.DynamoDB(self.database, self.account, on_item_changed=self.files.item_changed)
        self.s3 = s3.S3(
            self.database,
            self.blobs,
            self.account,
            on_object_created=self._object_created,
            on_object_deleted=self._object_deleted,
        )
        self.events = events.Events(
            self.database,
            self.account,
            self.operations,
            principal_for_role=self.iam.principal_for_role,
            service_principal=Principal(
                f"arn:{self.account.partition}:iam::{self.account.account_id}:service/events.amazonaws.com",
                "service",
                "events.amazonaws.com",
            ),
            on_delivered=self.files.delivered,
            on_delivery_failed=self.files.delivery_failed,
        )
        self.stepfunctions = stepfunctions.StepFunctions(
            self.database,
            self.account,
            self.operations,
            principal_for_role=self.iam.principal_for_role,
            write_log=self.write_log,
            on_execution_changed=self.files.execution_changed,
        )
        self.endpoint = Endpoint(self.operations, self.iam.find_credentials, self.account)
        self.lambda_ = lambda_.Lambda(
            self.database,
            self.account,
            folder=data / "functions",
            issue_credentials=self.iam.issue_credentials,
            endpoint_url=lambda: self.endpoint.url,
            write_log=self.write_log,
        )
        for service, room in self._rooms():
            self.operations.add(service, room)

    def _rooms(self) -> list[tuple[str, list[Operation]]]:
        return [
            ("dynamodb", dynamodb.operations(self.dynamodb)),
            ("events", events.operations(self.events)),
            ("iam", iam.operations(self.iam)),
            ("lambda", lambda_.operations(self.lambda_)),
            ("logs", logs.operations(self.logs)),
            ("s3", s3.operations(self.s3)),
            ("stepfunctions", stepfunctions.operations(self.stepfunctions)),
            ("sts", sts.operations(self._sts())),
            ("transfer", transfer.operations(self.transfer)),
            ("entrepot", files.operations(self.files)),
        ]

    def _sts(self) -> sts.STS:
        return sts.STS(self.account, self.iam.assume_role, self.iam.issue_session_token, self.iam.role_id)

    def services(self) -> Services:
        """Return the rooms that a stack furnishes."""
        return Services(
            self.account,
            self.operations,
            self.s3,
            self.iam,
            self.transfer,
            self.dynamodb,
            self.events,
            self.stepfunctions,
            self.lambda_,
        )

    async def furnish(self) -> None:
        """Bring the ledger to what the stack's files say, in one transaction."""
        furniture, services = Stack(self.folder, self.settings), self.services()
        await self.iam.start()
        await self.database.write(lambda tx: furniture.apply(tx, services, self.root))

    async def close(self) -> None:
        """Close what a composition opens; rooms that were started are stopped before."""
        await self.iam.stop()
        await self.blobs.close()
        await self.database.close()

    # ── what crosses between rooms ───────────────────────────────────────────────────────────────────────────────

    def _object_created(self, tx: Transaction, created: s3.ObjectCreated, call: Call) -> None:
        """The object is visible, its event is queued and its record exists: in one transaction."""
        event_id = self._publish(tx, "Object Created", created, call)
        self.files.record_upload(tx, created, call, event_id)
        if created.copied_from is not None:
            self.files.object_copied(tx, created)

    def _object_deleted(self, tx: Transaction, deleted: s3.ObjectDeleted, call: Call) -> None:
        self._publish(tx, "Object Deleted", deleted, call)

    def _publish(self, tx: Transaction, kind: str, what: Any, call: Call) -> str:
        event_id = ids.random_uuid()
        event = {
            "version": "0",
            "id": event_id,
            "detail-type": kind,
            "source": "aws.s3",
            "account": self.account.account_id,
            "time": clock.iso(clock.now_ms())[:19] + "Z",
            "region": self.account.region,
            "resources": [self.account.s3_arn(what.bucket)],
            "detail": s3.event_detail(what, call),
        }
        self.events.put_event(tx, event)
        return event_id

    def _put_metadata_item(self, tx: Transaction, table_name: str, item: dict[str, Any]) -> None:
        self.dynamodb.put_item(tx, table_name, item)

    def _audit(self, principal: Principal, permission: Permission, decision: Decision) -> None:
        """Write an audit line for every denial; allowed accesses are in the rooms' own logs."""
        if decision.allowed:
            return
        line = {
            "decision": "DENY",
            "principal": principal.arn,
            "action": permission.action,
            "resource": permission.resource,
            "statement": decision.statement,
            "reason": decision.reason,
        }
        now_ms = clock.now_ms()
        stream = clock.iso(now_ms)[:10]
        self.write_log(AUDIT_LOG_GROUP, stream, LogLine(now_ms, json.dumps(line, separators=(",", ":"))))


def _secret(folder: StackFolder) -> bytes:
    """Return the stack's master secret; raise SettingsError."""
    try:
        secret = bytes.fromhex(folder.secret_file.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{folder.show(folder.secret_file)}: cannot be used: {error}. It holds 64 hex digits, made by `entrepot init`; "
            "without it, issued access keys are void."
        ) from error
    if len(secret) < 32:
        raise SettingsError(f"{folder.show(folder.secret_file)}: too short; it holds 64 hex digits.")
    return secret


class Server:
    """A stack that serves: the rooms, their background tasks and the listeners, started and stopped in order."""

    def __init__(self, folder: StackFolder, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.data = folder.path(settings.storage.folder)
        self.started_at_ms = clock.now_ms()
        self._stops: list[tuple[str, Callable[[], Awaitable[Any]]]] = []

    async def start(self) -> Addresses:
        """Open, recover, listen; return the addresses. Raises EntrepotError, and leaves nothing running."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(self.data, self.folder)
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> Addresses:
        rooms = self.rooms = Composition(self.folder, self.settings, self.data)
        self._stops.append(("storage", rooms.close))
        rooms.operations.add("entrepot", status.operations(self))
        await self._begin("logs", rooms.logs.start(), rooms.logs.stop)
        await rooms.furnish()
        await self._operator_key()
        await rooms.transfer.start()
        await self._begin("s3", rooms.s3.start(), rooms.s3.stop)
        await self._begin("tables", rooms.dynamodb.start(), rooms.dynamodb.stop)
        host = self.settings.server.host
        try:
            await self._begin("api", rooms.endpoint.start(host, self.settings.server.api_port), rooms.endpoint.stop)
        except OSError as error:
            raise _port_error("api", self.settings.server.api_port, error) from error
        await self._begin("functions", rooms.lambda_.start(), rooms.lambda_.stop)
        await self._begin("state machines", rooms.stepfunctions.start(), rooms.stepfunctions.stop)
        await self._begin("events", rooms.events.start(), rooms.events.stop)
        self.sftp = SFTPServer(
            sftp_settings(self.folder, self.settings),
            rooms.transfer,
            rooms.s3,
            rooms.blobs,
            rooms.database,
            rooms.iam.authorize,
            rooms.write_log,
            storage_folder=self.data,
        )
        try:
            await self._begin("sftp", self.sftp.start(), self.sftp.stop)
        except OSError as error:
            raise _port_error("sftp", self.settings.server.sftp_port, error) from error
        self.addresses = Addresses(f"{_in_address(host)}:{self.sftp.port}", rooms.endpoint.url)
        self._write_run_file()
        return self.addresses

    async def _begin(self, name: str, start: Awaitable[Any], stop: Callable[[], Awaitable[Any]]) -> None:
        self._stops.append((name, stop))
        await start

    async def stop(self) -> None:
        """Stop in the opposite order: no new uploads, then no new work, then the storage."""
        (self.data / "run.json").unlink(missing_ok=True)
        while self._stops:
            name, stop = self._stops.pop()
            try:
                async with asyncio.timeout(self.settings.server.drain_timeout_s + 5):
                    await stop()
            except Exception:
                log.exception("Stopping %s failed", name)
        os.close(self._lock)

    async def _operator_key(self) -> None:
        key = await self.rooms.database.write(lambda tx: self.rooms.iam.put_user_key(tx, "operator"))
        path = self.folder.operator_file
        content = json.dumps({"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key})
        if not path.exists() or path.read_text() != content:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _write_private(path, content)

    def _write_run_file(self) -> None:
        content = {"pid": os.getpid(), "sftp": self.addresses.sftp, "api": self.addresses.api, "version": __version__}
        _write_private(self.data / "run.json", json.dumps(content))


def _write_private(path: Path, content: str) -> None:
    """Replace a file that only its owner may read, in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
    temporary.replace(path)


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _port_error(what: str, port: int, error: OSError) -> EntrepotError:
    return EntrepotError(
        f"The {what} listener cannot use port {port}: {error.strerror or error}. "
        f"End what uses it, or choose another: --{what}-port N (0 = any free port)."
    )


def _lock(data: Path, folder: StackFolder) -> int:
    """Take the data folder for this process; raise EntrepotError when another has it."""
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise EntrepotError(f"A server is running for {folder.folder} already. See `entrepot status`.") from None
    return descriptor


def sftp_settings(folder: StackFolder, settings: Settings) -> SFTPSettings:
    """Return the SFTP server's settings from `[sftp]`; raise SettingsError with the line."""
    text = folder.stack_file.read_text("utf-8")
    known = {field.name for field in dataclasses.fields(SFTPSettings)} - {"host", "port"}
    for key in settings.sftp:
        if key not in known:
            raise SettingsError(
                f"{folder.stack_file.name}:{line_of(text, ['sftp', key])}: unknown key {key!r} in [sftp]"
            )
    host_keys = settings.sftp.get("host_keys", [])
    for key in host_keys if isinstance(host_keys, list) else []:
        if not folder.path(str(key)).is_file():
            line = line_of(text, ["sftp", "host_keys"])
            raise SettingsError(f"{folder.stack_file.name}:{line}: the host key {key} does not exist")
    values = {
        **settings.sftp,
        "host": settings.server.host,
        "port": settings.server.sftp_port,
        "host_keys": [str(folder.path(str(key))) for key in host_keys],
    }
    try:
        return msgspec.convert(values, SFTPSettings)
    except msgspec.ValidationError as error:
        raise SettingsError(describe(folder.stack_file.name, text, str(error), ["sftp"])) from error


# ── what the commands call ───────────────────────────────────────────────────────────────────────────────────────────


def run(folder: StackFolder, settings: Settings, on_ready: Callable[[Addresses], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends at once."""
    for order in filter(None, settings.storage.crash_at.split(",")):
        point, _, nth = order.partition(":")
        faults.arm(point, int(nth or 1))
    uvloop.run(_serve(folder, settings, on_ready))


async def _serve(folder: StackFolder, settings: Settings, on_ready: Callable[[Addresses], None]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os._exit(130)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    server = Server(folder, settings)
    on_ready(await server.start())
    await stopping.wait()
    log.info("Stopping: no new sessions; what is under way may finish.")
    await server.stop()


def check(folder: StackFolder, settings: Settings) -> None:
    """Validate the stack by furnishing an empty ledger with it; raise SettingsError. Nothing of the stack changes."""

    async def furnish(data: Path) -> None:
        rooms = Composition(folder, settings, data)
        try:
            await rooms.furnish()
        finally:
            await rooms.close()

    sftp_settings(folder, settings)
    with tempfile.TemporaryDirectory(prefix="entrepot-check-") as scratch:
        uvloop.run(furnish(Path(scratch)))


def backup(folder: StackFolder, settings: Settings, target: Path) -> None:
    """Write a consistent copy of the ledger to a new file, also while a server runs."""

    path = str(target.absolute())

    async def copy() -> None:
        database = SQLiteDatabase(_ledger(folder, settings))
        try:
            await database.backup(path)
        finally:
            await database.close()

    uvloop.run(copy())


def scrub(folder: StackFolder, settings: Settings, progress: Callable[[int, int], None]) -> s3.ScrubReport:
    """Read all content again and compare it with its checksums, also while a server runs."""

    async def read() -> s3.ScrubReport:
        database = SQLiteDatabase(_ledger(folder, settings))
        blobs = LocalBlobStore(folder.path(settings.storage.folder))
        try:
            return await s3.scrub(database, blobs, progress)
        finally:
            await blobs.close()
            await database.close()

    return uvloop.run(read())


def _ledger(folder: StackFolder, settings: Settings) -> Path:
    path = folder.path(settings.storage.folder) / "ledger.db"
    if not path.exists():
        raise EntrepotError(f"{folder.show(path)} does not exist: this stack has never run.")
    return path
