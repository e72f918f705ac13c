"""One invocation: what goes in, what comes out, and the texts that AWS gives when something goes wrong.

Source: https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html and
https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html
"""

import asyncio
import json
import signal
from dataclasses import dataclass, field

from entrepot import clock

PAYLOAD_LIMIT_BYTES = 6_291_456
"""A synchronous request payload. AWS's limit (6 MB)."""

RESPONSE_LIMIT_BYTES = 6_291_556
"""A synchronous response payload. AWS's limit."""

TAIL_LIMIT_BYTES = 4_096
"""LogType Tail returns this much of the end of the log."""


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """`payload` is JSON text. With `function_error` ("Unhandled") it is `{"errorType": …, "errorMessage": …, …}`."""

    request_id: str
    payload: bytes
    function_error: str | None = None
    log_tail: bytes = b""
    executed_version: str = "$LATEST"

    def error(self) -> tuple[str, str] | None:
        """Return (errorType, errorMessage) of a failed invocation, else None."""
        if self.function_error is None:
            return None
        try:
            document = json.loads(self.payload)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            return "Unknown", self.payload[:1000].decode(errors="replace")
        return str(document.get("errorType", "Unknown")), str(document.get("errorMessage", ""))


@dataclass(eq=False, slots=True)
class Invocation:
    """An invocation on its way; `future` gets its InvocationResult."""

    request_id: str
    function_arn: str
    payload: bytes
    client_context: str
    want_tail: bool
    future: "asyncio.Future[InvocationResult]"
    queued_at_s: float = field(default_factory=clock.monotonic_s)
    started_at_s: float = 0.0
    deadline_ms: int = 0
    trace_id: str = ""
    tail: bytearray = field(default_factory=bytearray)
    version: str = "$LATEST"

    def finish(self, payload: bytes, function_error: str | None = None) -> None:
        """Answer whoever waits."""
        if not self.future.done():
            self.future.set_result(
                InvocationResult(self.request_id, payload, function_error, bytes(self.tail), self.version)
            )

    def fail(self, error_type: str, message: str) -> None:
        """Answer with an error of the platform (not of the handler)."""
        self.finish(error_payload(error_type, message), "Unhandled")


def error_payload(error_type: str, message: str) -> bytes:
    """Return the payload of an error that the platform found."""
    return json.dumps({"errorType": error_type, "errorMessage": message}, separators=(",", ":")).encode()


def exit_reason(returncode: int) -> str:
    """Return how AWS words the end of a runtime: `Runtime exited with error: exit status 1`."""
    if returncode == 0:
        return "Runtime exited without providing a reason"
    if returncode > 0:
        return f"Runtime exited with error: exit status {returncode}"
    names = {
        signal.SIGKILL: "killed",
        signal.SIGSEGV: "segmentation fault",
        signal.SIGTERM: "terminated",
        signal.SIGABRT: "aborted",
        signal.SIGINT: "interrupt",
        signal.SIGBUS: "bus error",
        signal.SIGILL: "illegal instruction",
        signal.SIGFPE: "floating point exception",
        signal.SIGHUP: "hangup",
        signal.SIGPIPE: "broken pipe",
    }
    return f"Runtime exited with error: signal: {names.get(signal.Signals(-returncode), str(-returncode))}"
