"""A server's life: start in order, serve, stop in the opposite order; and what the commands do with a stack's storage."""

import asyncio
import dataclasses
import fcntl
import gc
import ipaddress
import json
import logging
import os
import signal
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from entrepot import __version__, access, clock, faults, status
from entrepot.blobs.local import LocalBlobStore
from entrepot.composition import Composition
from entrepot.console import Console, ConsoleSettings, OidcSettings
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.errors import EntrepotError
from entrepot.services import s3
from entrepot.settings import OidcSection, Settings, SettingsError, StackFolder, describe, line_of
from entrepot.sftp import SFTPServer, SFTPSettings
from entrepot.status import Addresses

log = logging.getLogger("entrepot")

GC_THRESHOLD = 10_000
"""Young objects before Python looks for cycles among them. With its 700 a busy server spends 5% of its time on that, or more, and
finds next to nothing: nothing on the path of a file makes cycles."""


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
        self.console_settings = console_settings(self.folder, self.settings)
        rooms = self.rooms = Composition(self.folder, self.settings, self.data)
        self._stops.append(("storage", rooms.close))
        rooms.operations.add("entrepot", status.operations(rooms, lambda: self.addresses, self.started_at_ms))
        rooms.operations.add("entrepot", access.operations(rooms))
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
        self._stops.append(("live tails", rooms.logs.end_tails))
        await self._begin("queues", rooms.sqs.start(), rooms.sqs.stop)
        await self._begin("metrics", rooms.cloudwatch.start(), rooms.cloudwatch.stop)
        if rooms.tracing is not None:
            await self._begin("tracing", rooms.tracing.start(), rooms.tracing.stop)
        await self._begin("telemetry", rooms.telemetry.start(rooms.levels, rooms.usage), rooms.telemetry.stop)
        await self._begin("topics", rooms.sns.start(), rooms.sns.stop)
        await self._begin("functions", rooms.lambda_.start(), rooms.lambda_.stop)
        await self._begin("state machines", rooms.stepfunctions.start(), rooms.stepfunctions.stop)
        await self._begin("events", rooms.events.start(), rooms.events.stop)
        await self._begin("expectations", rooms.expectations.start(), rooms.expectations.stop)
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
        self.addresses = dataclasses.replace(self.addresses, console=await self._start_console())
        self._write_run_file()
        return self.addresses

    async def _start_console(self) -> str:
        """Serve the console; return its URL. Files go their way without it: a port that is taken is told, not fatal."""
        settings, rooms = self.settings, self.rooms
        wanted = self.console_settings
        console = Console(
            rooms.operations,
            rooms.database,
            wanted,
            principal_for=rooms.console_principal,
            audit=rooms.audit_console,
            exposition=rooms.telemetry.exposition,
            send=rooms.outbound.send,
        )
        try:
            await self._begin("console", console.start(), console.stop)
        except OSError as error:
            log.error("There is no console: %s", _port_error("console", settings.server.console_port, error))
            return ""
        return f"http://{_in_address(wanted.host)}:{console.port}"

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
        content = {
            "pid": os.getpid(),
            "sftp": self.addresses.sftp,
            "api": self.addresses.api,
            "console": self.addresses.console,
            "region": self.settings.stack.region,
            "version": __version__,
        }
        _write_private(self.data / "run.json", json.dumps(content))


def _write_private(path: Path, content: str) -> None:
    """Replace a file that only its owner may read, in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
    temporary.replace(path)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def console_settings(folder: StackFolder, settings: Settings) -> ConsoleSettings:
    """Return how the console is reached, and who comes in; raise SettingsError."""
    section = settings.console
    host = section.host or settings.server.host
    return ConsoleSettings(
        host,
        settings.server.console_port,
        settings.stack.name,
        login_required=section.login == "always" or not (host == "localhost" or _is_loopback(host)),
        hosts=frozenset(name.lower() for name in section.hosts),
        public_url=section.public_url,
        metrics_token=_secret_text(folder, section.metrics_token_file, "[console]"),
        oidc=_oidc(folder, settings.oidc),
    )


def _oidc(folder: StackFolder, section: OidcSection) -> OidcSettings | None:
    """Return the provider of logins to the console, None without one; raise SettingsError."""
    if not section.issuer:
        return None
    where = f"{folder.show(folder.stack_file)}: [oidc]"
    if not section.client_id or section.client_secret_file is None:
        raise SettingsError(f"{where} needs client_id and client_secret_file.")
    if not section.emails and not section.groups:
        raise SettingsError(f"{where} names neither emails nor groups: nobody could log in.")
    return OidcSettings(
        section.issuer,
        section.client_id,
        _secret_text(folder, section.client_secret_file, "[oidc]"),
        section.emails,
        section.groups,
        section.groups_claim,
        section.scopes,
    )


def _secret_text(folder: StackFolder, name: str | None, section: str) -> str:
    """Return the secret in a file, "" where no file is named; raise SettingsError."""
    if name is None:
        return ""
    path = folder.path(name)
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{folder.show(path)}: cannot be read, for {section}: {error}") from error
    if not text:
        raise SettingsError(f"{folder.show(path)}: is empty; {section} needs a secret in it.")
    return text


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _port_error(what: str, port: int, error: OSError) -> EntrepotError:
    return EntrepotError(
        f"The {what} listener cannot use port {port}: {os.strerror(error.errno) if error.errno else error}. "
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
        "drain_timeout_s": settings.server.drain_timeout_s,
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
    os.umask(0o077)  # whatever the data folder's own mode, what is written there is the owner's alone
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
    if server.addresses.console:
        log.info("The console is at %s", server.addresses.console)
    gc.collect()
    gc.freeze()  # What is there now stays: later collections need not walk it.
    gc.set_threshold(GC_THRESHOLD)
    gc.enable()
    await stopping.wait()
    log.info("Stopping: no new sessions; what is under way may finish.")
    await server.stop()


def check(folder: StackFolder, settings: Settings) -> list[str]:
    """Validate the stack by furnishing an empty ledger with it; raise SettingsError. Nothing of the stack changes.

    Return what this machine lacks to isolate functions; EntrepotError when the settings insist on it.
    """

    async def furnish(data: Path) -> list[str]:
        rooms = Composition(folder, settings, data)
        try:
            await rooms.furnish()
            return [str(gap) for gap in await rooms.lambda_.pool.isolation.check()]
        finally:
            await rooms.close()

    sftp_settings(folder, settings)
    console_settings(folder, settings)
    with tempfile.TemporaryDirectory(prefix="entrepot-check-") as scratch:
        return uvloop.run(furnish(Path(scratch)))


def backup(folder: StackFolder, settings: Settings, target: Path) -> None:
    """Write a consistent copy of the ledger to a new file, also while a server runs."""

    os.umask(0o077)  # the copy holds the content of small files
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
