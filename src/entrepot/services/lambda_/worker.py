"""One worker: a child process that runs awslambdaric with one function's handler, from its start to its end.

The process leads a session of its own, so that everything it starts can be killed with it. It sees the environment that
AWS documents and nothing of the server's. One invocation runs at a time.

Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.loglines import LogLine, WriteLog
from entrepot.sandbox import python
from entrepot.sandbox.guard import TELEMETRY
from entrepot.services.lambda_ import processes
from entrepot.services.lambda_.configuration import FunctionConfiguration
from entrepot.services.lambda_.invocation import TAIL_LIMIT_BYTES, Invocation, error_payload, exit_reason
from entrepot.services.lambda_.isolation import Isolation, Process, Sandbox, needs_fresh_interpreter
from entrepot.services.lambda_.output import Output
from entrepot.services.lambda_.pace import Pace
from entrepot.services.lambda_.runtime_api import RuntimeApi, is_connection_of
from entrepot.services.lambda_.runtimes import layer_variables, node_start

INIT_LIMIT_S = 30.0
"""A worker that has not asked for work after this time is ended. (AWS: 10 s; a laptop may be busy.)"""

DATA_SLACK_BYTES = 256 * 1024 * 1024
"""RLIMIT_DATA is twice the function's memory and this: threads' stacks count there though they are never resident. It
stops a sudden huge allocation (MemoryError); the watchdog, which measures what is resident, stops the rest."""

LONG_AFTER_S = 1.0
"""A worker that is busy with one invocation (or starts) for longer no longer counts against the pool's worker limit."""

MINIMUM_LIFETIME_S = 60.0
"""However short its credentials live, a worker serves this long."""

PIPE_BYTES = 256 * 1024
"""What a worker can print before it must be read."""

READ_BYTES = 16 * 1024
"""Read of a worker's output at a time: it may be as many lines, and others must have their turn soon. What is only counted and
dropped is read in one piece."""

READ_PAUSE_S = 0.01
"""After a read that found more than READ_BYTES: each one lets other threads run, which may keep the processor for as long."""

READS_AT_END = PIPE_BYTES // READ_BYTES
"""At most this many reads to collect what was printed before an invocation ended."""

HOG_PROCESSOR_S = 0.25
"""An invocation that takes more processor time than this gives way to shorter ones. A worker that takes more while it has no
invocation is ended: on AWS nothing runs then."""

WATCH_FIRST_S, WATCH_LAST_S = 0.05, 0.5
"""How often a busy worker is looked at: at intervals that grow with its invocation, from this to that."""

OUT_OF_MEMORY = ("Runtime.OutOfMemory", "Error: Runtime exited with error: signal: killed")
"""What AWS says when a function takes more memory than it has."""

_log = logging.getLogger("entrepot.lambda")


class WorkerCredentials(Protocol):
    """Temporary credentials of a function's role."""

    @property
    def access_key_id(self) -> str: ...
    @property
    def secret_access_key(self) -> str: ...
    @property
    def session_token(self) -> str | None: ...
    @property
    def expires_at_ms(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all workers share."""

    account: Account
    code: Path
    scratch: Path
    issue_credentials: Callable[[str, str], WorkerCredentials]
    endpoint_url: Callable[[], str]
    write_log: WriteLog
    isolation: Isolation = field(default_factory=Isolation)
    node_modules: Path | None = None


class Owner(Protocol):
    """The pool, as a worker sees it."""

    def on_ready(self, worker: "Worker") -> None:
        """The worker can take an invocation."""
        ...

    def on_hog(self, worker: "Worker") -> None:
        """The worker's invocation computes for long, and gives way from now on."""
        ...

    def on_end(self, worker: "Worker") -> None:
        """The worker's process is gone; its invocation has been answered."""
        ...


class Worker:
    """A worker process. `start()` it once; it ends by itself or by `end()`."""

    def __init__(
        self,
        configuration: FunctionConfiguration,
        surroundings: Surroundings,
        owner: Owner,
        pace: Pace,
        *,
        gives_way: bool = False,
    ) -> None:
        self.configuration = configuration
        self.state: Literal["starting", "idle", "busy", "ended"] = "starting"
        self.started_at_s = self.idle_since_s = self.turn_at_s = clock.monotonic_s()
        self.expires_at_s = float("inf")
        self.retiring = False
        self.invocation: Invocation | None = None
        self.init_error: bytes | None = None
        self.has_served = False
        self._surroundings = surroundings
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._id = ids.random_hex(16)
        self._log_group = configuration.log_group_name
        self._log_stream = f"{clock.now():%Y/%m/%d}/[{configuration.version}]{self._id}"
        self._output = Output(self._log)
        self._pace = pace
        self._pause: asyncio.TimerHandle | None = None
        self.gives_way = gives_way
        self.watch_at_s = self.started_at_s + WATCH_FIRST_S
        self._processor_mark_s: float | None = None
        self._early: list[tuple[int, str]] = []
        self._init_s = 0.0
        self._verdict: tuple[str, str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reply: Callable[[Invocation], None] | None = None
        self._server: asyncio.Server | None = None
        self._connections: list[RuntimeApi] = []
        self._sandbox: Sandbox | None = None
        self._pipe = -1
        self._folder = surroundings.scratch / self._id

    @property
    def is_started(self) -> bool:
        """Whether there is a process, or may be one any moment."""
        return self._sandbox is not None and self.state != "ended"

    def is_long(self, now_s: float) -> bool:
        """Whether its invocation or its start takes long without computing, so that the pool does not wait for it."""
        return self.state in ("busy", "starting") and now_s - self.turn_at_s > LONG_AFTER_S and not self.gives_way

    @property
    def pid(self) -> int:
        """The process id, 0 before it is known."""
        return self._sandbox.pid if self._sandbox else 0

    # ── beginning and end ────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Start the process; OSError when the system does not let us."""
        self._server = await self._loop.create_server(self._connect, "127.0.0.1", 0)
        if self.state == "ended":
            self._server.close()
            return
        port = self._server.sockets[0].getsockname()[1]
        self._folder.mkdir(parents=True, mode=0o755)
        self._pipe, write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        with contextlib.suppress(OSError):  # the system allows less
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            self._sandbox = self._surroundings.isolation.start(self._process(), self._environment(port), write_end)
        finally:
            os.close(write_end)
        self._loop.add_reader(self._pipe, self._read_output)
        self._sandbox.watch(self._on_exit)
        self._timer = self._loop.call_later(INIT_LIMIT_S, self._on_init_timeout)

    def _connect(self) -> RuntimeApi:
        connection = RuntimeApi(self)
        self._connections = [*(other for other in self._connections if other.is_open), connection]
        return connection

    def _process(self) -> Process:
        """Return what is to run."""
        configuration = self.configuration
        memory_bytes = configuration.memory_size_mb * 1024 * 1024
        command, read_only = self._command()
        return Process(
            name=configuration.name,
            command=command,
            handler=configuration.handler,
            task=self._task_root,
            layers=self._layers,
            folder=self._folder,
            read_only=read_only,
            memory_bytes=memory_bytes,
            data_bytes=2 * memory_bytes + DATA_SLACK_BYTES,
            file_bytes=configuration.ephemeral_storage_mb * 1024 * 1024,
            nice=processes.HOG_NICE if self.gives_way else processes.NICE,
        )

    def _command(self) -> tuple[Sequence[str], Sequence[str]]:
        """Return what to execute (nothing: the handler runs in a fork of the launcher), and what it must read for that."""
        configuration = self.configuration
        if configuration.runtime.startswith("nodejs"):
            seen_as = self._surroundings.isolation.task_path(self._task_root)
            start = node_start(
                configuration.runtime, configuration.handler, self._task_root, seen_as, self._surroundings.node_modules
            )
            return start.command, start.read_only
        code = [self._task_root, *([self._layers / "python"] if self._layers else [])]
        fresh = needs_fresh_interpreter(code, configuration.environment)
        return (python.fresh_command(configuration.handler) if fresh else ()), ()

    def _credentials(self) -> WorkerCredentials:
        """Return credentials of the function's role, and note when this worker must end for them."""
        configuration = self.configuration
        credentials = self._surroundings.issue_credentials(configuration.role_arn, configuration.name)
        if credentials.expires_at_ms is not None:
            lifetime_s = (credentials.expires_at_ms - clock.now_ms()) / 1000
            margin = 0.1 + 0.15 * int(self._id[:4], 16) / 0xFFFF  # differs, so that workers do not end all at once
            usable_s = lifetime_s * (1 - margin) - configuration.timeout_s
            self.expires_at_s = clock.monotonic_s() + max(usable_s, MINIMUM_LIFETIME_S)
        return credentials

    @property
    def _layers(self) -> Path | None:
        name = self.configuration.layers_folder
        return self._surroundings.code / name if name else None

    @property
    def _task_root(self) -> Path:
        return self._surroundings.code / self.configuration.code_sha256

    def _environment(self, port: int) -> dict[str, str]:
        """Return everything the process sees: AWS's documented variables and the function's own."""
        configuration, region = self.configuration, self._surroundings.account.region
        credentials, isolation = self._credentials(), self._surroundings.isolation
        scratch = isolation.scratch_path(self._folder)
        variables = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TZ": ":UTC",
            "AWS_EC2_METADATA_DISABLED": "true",
            **configuration.environment,
            "HOME": scratch,
            "TMPDIR": scratch,
            "_HANDLER": configuration.handler,
            "LAMBDA_TASK_ROOT": isolation.task_path(self._task_root),
            "LAMBDA_RUNTIME_DIR": sys.prefix,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{configuration.runtime}",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_LAMBDA_FUNCTION_NAME": configuration.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration.memory_size_mb),
            "AWS_LAMBDA_FUNCTION_VERSION": configuration.version,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": self._log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": self._log_stream,
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
            "_LAMBDA_TELEMETRY_LOG_FD": str(TELEMETRY),
        }
        if credentials.session_token is not None:
            variables["AWS_SESSION_TOKEN"] = credentials.session_token
        variables.setdefault("AWS_ENDPOINT_URL", self._surroundings.endpoint_url())
        if self._layers:
            seen_as = isolation.layers_path(self._layers)
            variables |= layer_variables(configuration.runtime, self._layers, variables, seen_as)
        return variables

    def end(self, verdict: tuple[str, str] | None = None) -> None:
        """Kill the process and all it started. `verdict` is (errorType, text) for the invocation under way."""
        self._verdict = self._verdict or verdict
        if self._sandbox is None:
            self.state = "ended"
            if self._server is not None:
                self._server.close()
            return
        if self.state != "ended":
            self._sandbox.kill()

    def _on_exit(self) -> None:
        """The process and all it started have ended: answer its invocation, clean up, tell the pool."""
        sandbox = self._sandbox
        assert sandbox is not None
        if sandbox.error is not None:
            _log.error("A process for the function %s could not be made: %s", self.configuration.name, sandbox.error)
            self._verdict = self._verdict or ("Runtime.ExitError", f"Error: {sandbox.error}")
        if sandbox.events.out_of_memory_kills:
            self._verdict = self._verdict or OUT_OF_MEMORY
        self._drain_output()
        self.state = "ended"
        self._loop.remove_reader(self._pipe)
        if self._pause is not None:
            self._pause.cancel()
        os.close(self._pipe)
        self._pipe = -1
        self._cancel_timer()
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.close()
        if self.invocation is not None:
            self._fail_invocation(sandbox.returncode)
        else:
            self._output.end()
        self._loop.run_in_executor(None, _clean_up, self._folder, sandbox)
        self._owner.on_end(self)

    def _fail_invocation(self, returncode: int) -> None:
        """The process ended in the middle: say why, as AWS does."""
        invocation = self.invocation
        assert invocation is not None
        error_type, text = self._verdict or ("Runtime.ExitError", f"Error: {exit_reason(returncode)}")
        message = f"RequestId: {invocation.request_id} {text}"
        if error_type == "Sandbox.Timedout":
            self._log(clock.now_ms(), f"{clock.iso(clock.now_ms())} {invocation.request_id} {text[7:]}\n\n")
        else:
            self._log(clock.now_ms(), f"{message}\n{error_type}\n")
        self._finish(error_payload(error_type, message), "Unhandled", status=error_type)

    def fail_init(self, invocation: Invocation) -> None:
        """Answer an invocation that waited for this worker, which could not load the handler."""
        assert self.state == "ended"
        self._take(invocation)
        for timestamp_ms, text in self._early:
            self._tail(text)
            self._write(timestamp_ms, text)
        self._early.clear()
        if self.init_error is not None:
            document = _object(self.init_error)
            document["requestId"] = invocation.request_id
            payload, status = json.dumps(document).encode(), str(document.get("errorType", "Runtime.Unknown"))
            self._finish(payload, "Unhandled", status=status)
        else:
            assert self._sandbox is not None
            self._fail_invocation(self._sandbox.returncode)

    # ── what it takes of the machine ─────────────────────────────────────────────────────────────────────────────

    def family(self) -> list[int]:
        """Return the process and all its descendants, those included whose parents are gone."""
        assert self._sandbox is not None
        guard_pid = self._sandbox.guard_pid
        return processes.family(guard_pid)[1:] if guard_pid else []

    def watch(self) -> None:
        """End the worker when it takes more memory or processes than it may, or computes when nobody asked it to."""
        now_s = clock.monotonic_s()
        self.watch_at_s = now_s + min(max(WATCH_FIRST_S, (now_s - self.turn_at_s) / 4), WATCH_LAST_S)
        family = self.family()
        if processes.resident_bytes(family) > self.configuration.memory_size_mb * 1024 * 1024:
            self.end(OUT_OF_MEMORY)
        elif len(family) > processes.PROCESS_LIMIT:
            self.end(("Runtime.ExitError", f"Error: more than {processes.PROCESS_LIMIT} processes; signal: killed"))
        elif self.state == "idle" or not self.gives_way:
            self._watch_processor(family)

    def _watch_processor(self, family: list[int]) -> None:
        """Let a long computation give way; end what computes between invocations, when on AWS nothing runs."""
        taken_s = processes.processor_s(family)
        if self._processor_mark_s is None:
            self._processor_mark_s = taken_s
        elif taken_s - self._processor_mark_s < HOG_PROCESSOR_S:
            return
        elif self.state == "busy":
            self.gives_way = True
            processes.lower_priority(family)
            self._owner.on_hog(self)
        elif self.state == "idle":
            _log.warning(
                "Function %s: a worker computed between invocations, which AWS does not let it do; it is ended.",
                self.configuration.name,
            )
            self.retiring = True
            self.end()

    # ── what the runtime asks ────────────────────────────────────────────────────────────────────────────────────

    def is_own_connection(self, peer_port: int, own_port: int) -> bool:
        """Say whether a connection to the Runtime API comes from this worker's process."""
        if self._sandbox is not None and self.state != "ended":
            self._sandbox.read()  # it may have told its number just now
            if is_connection_of(self.pid, peer_port, own_port):
                return True
        _log.warning("A process other than worker %d of %s tried its Runtime API.", self.pid, self.configuration.name)
        return False

    def on_next(self, reply: Callable[[Invocation], None]) -> None:
        """The runtime is ready for work."""
        if self.state == "starting":
            self._cancel_timer()
            self._init_s = clock.monotonic_s() - self.started_at_s
            self._drain_output()
        elif self.invocation is not None:
            self.end(("Runtime.ExitError", "Error: Runtime asked for the next event before it answered"))
            return
        self._reply = reply
        if self.gives_way and self.has_served:
            self.gives_way = False
            self.retiring = not processes.raise_priority(self.family())
        self.state = "idle"
        self._processor_mark_s = None
        self.idle_since_s = clock.monotonic_s()
        self._owner.on_ready(self)

    def run(self, invocation: Invocation) -> None:
        """Hand an invocation to the waiting runtime."""
        assert self.state == "idle" and self._reply is not None
        self.state = "busy"
        self._processor_mark_s = None
        timeout_s = self.configuration.timeout_s
        invocation.deadline_ms = clock.now_ms() + timeout_s * 1000
        self._take(invocation)
        for timestamp_ms, text in self._early:
            self._write(timestamp_ms, text)
        self._early.clear()
        self._timer = self._loop.call_later(timeout_s, self._on_timeout)
        reply, self._reply = self._reply, None
        reply(invocation)

    def _take(self, invocation: Invocation) -> None:
        self.invocation = invocation
        invocation.started_at_s = self.turn_at_s = clock.monotonic_s()
        self.watch_at_s = self.turn_at_s + WATCH_FIRST_S
        self._output.begin()
        self._log(clock.now_ms(), f"START RequestId: {invocation.request_id} Version: {self.configuration.version}\n")

    def on_response(self, request_id: str, payload: bytes | None) -> bool:
        """The handler has answered; None when with more than Lambda takes."""
        if self.invocation is None or self.invocation.request_id != request_id or self.state != "busy":
            return False
        if payload is None:
            text = "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
            error = error_payload("Function.ResponseSizeTooLarge", text)
            self._log(clock.now_ms(), text + "\n")
            self._finish(error, "Unhandled", status="Function.ResponseSizeTooLarge")
        else:
            self._finish(payload, None)
        return True

    def on_error(self, request_id: str, payload: bytes) -> bool:
        """The handler has raised."""
        if self.invocation is None or self.invocation.request_id != request_id or self.state != "busy":
            return False
        self._finish(payload, "Unhandled")
        return True

    def on_init_error(self, payload: bytes) -> None:
        """The handler could not be loaded; the process ends itself now."""
        if self.state == "starting":
            self.init_error = payload

    def _on_timeout(self) -> None:
        self.end(("Sandbox.Timedout", f"Error: Task timed out after {self.configuration.timeout_s:.2f} seconds"))

    def _on_init_timeout(self) -> None:
        self.end(("Sandbox.Timedout", f"Error: Task timed out after {INIT_LIMIT_S:.2f} seconds"))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, payload: bytes, function_error: str | None, *, status: str = "") -> None:
        """Write the closing lines and answer the invocation."""
        invocation = self.invocation
        assert invocation is not None
        self._cancel_timer()
        if self.state == "busy":
            self._drain_output()
        self._output.end()
        duration_ms = (clock.monotonic_s() - invocation.started_at_s) * 1000
        self._report(invocation.request_id, duration_ms, status)
        self.invocation = None
        self.has_served = True
        invocation.finish(payload, function_error)

    def _report(self, request_id: str, duration_ms: float, status: str) -> None:
        init_ms, self._init_s = self._init_s * 1000, 0.0
        size_mb = self.configuration.memory_size_mb
        used_mb = min(size_mb, processes.peak_memory_mb(self.pid)) or size_mb
        parts = [
            f"REPORT RequestId: {request_id}",
            f"Duration: {duration_ms:.2f} ms",
            f"Billed Duration: {int(duration_ms + init_ms) + 1} ms",
            f"Memory Size: {size_mb} MB",
            f"Max Memory Used: {used_mb} MB",
        ]
        if init_ms:
            parts.append(f"Init Duration: {init_ms:.2f} ms")
        if status:
            timed_out = status == "Sandbox.Timedout"
            parts.append("Status: timeout" if timed_out else f"Status: error\tError Type: {status}")
        now_ms = clock.now_ms()
        self._log(now_ms, f"END RequestId: {request_id}\n")
        self._log(now_ms, "\t".join(parts) + "\t\n")

    # ── what it prints ───────────────────────────────────────────────────────────────────────────────────────────

    def _read_output(self) -> None:
        """Read a little; when the function prints faster than it may, not again for a while: its writes wait then."""
        more = self._read()
        wait_s = max(self._pace.wait_s(), READ_PAUSE_S if more else 0.0)
        if wait_s > 0 and self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            self._pause = self._loop.call_later(wait_s, self._resume_reading)

    def _resume_reading(self) -> None:
        self._pause = None
        if self._pipe >= 0:
            self._loop.add_reader(self._pipe, self._read_output)

    def _drain_output(self) -> None:
        """Read what has been printed, for the end of an invocation cannot wait."""
        for _ in range(READS_AT_END):
            if not self._read():
                return

    def _read(self) -> bool:
        """Read once; return whether there may be more."""
        size_bytes = PIPE_BYTES if self._output.is_full else READ_BYTES
        try:
            data = os.read(self._pipe, size_bytes)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._pipe)
            return False
        self._pace.spend(self._output.feed(data))
        return len(data) >= READ_BYTES

    def _log(self, timestamp_ms: int, text: str) -> None:
        """Write an event; before the first invocation it is kept, to follow that one's START as in AWS."""
        if self.state == "starting" and self.invocation is None:
            if len(self._early) < 1_000:
                self._early.append((timestamp_ms, text))
            return
        self._tail(text)
        self._write(timestamp_ms, text)

    def _tail(self, text: str) -> None:
        if self.invocation is not None and self.invocation.want_tail:
            tail = self.invocation.tail
            tail += text.encode()
            if not text.endswith("\n"):
                tail += b"\n"
            del tail[:-TAIL_LIMIT_BYTES]

    def _write(self, timestamp_ms: int, text: str) -> None:
        self._surroundings.write_log(self._log_group, self._log_stream, LogLine(timestamp_ms, text))


def _object(payload: bytes) -> dict[str, object]:
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(payload)
        if isinstance(document, dict):
            return document
    return {"errorMessage": payload[:1000].decode(errors="replace"), "errorType": "Runtime.Unknown"}


def _clean_up(folder: Path, sandbox: Sandbox) -> None:
    """Remove what is left of an ended worker."""
    sandbox.remove_group()
    shutil.rmtree(folder, ignore_errors=True)
