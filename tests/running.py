"""A real Entrepot: a scaffolded stack in a folder, its server process on free ports, and stock clients for it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from entrepot.cli.scaffold import scaffold

T = TypeVar("T")

START_DEADLINE_S = 30.0
ENTREPOT = [sys.executable, "-m", "entrepot"]


def wait_for(condition: Callable[[], T | None], *, deadline_s: float = 30.0, what: str = "the condition") -> T:
    """Return the first true value of `condition`; raise AssertionError after the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {deadline_s} s")
        time.sleep(0.02)


class NotReadyError(AssertionError):
    """The server ended, with the exit code `code`, before it was ready."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stack:
    """A stack folder whose server is started and ended by the test."""

    def __init__(self, folder: Path, *, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.sftp_port = 0
        self.api = ""
        if not folder.exists():
            scaffold(folder)

    def __enter__(self) -> "Stack":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ── the process ──────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, **environment: str) -> "Stack":
        """Start `entrepot up` on free ports and wait for its ready line."""
        assert self.process is None
        self.log = (self.folder.parent / f"{self.folder.name}.server.log").open("ab")
        self.process = subprocess.Popen(
            [*ENTREPOT, "up", str(self.folder), "--sftp-port", "0", "--api-port", "0", "--console-port", "0"],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**self._environment(), **environment},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        if not line.startswith("ready "):
            code = self._ended(10)
            raise NotReadyError(
                code, f"no ready line but {line!r}; exit code {code}; its log ends:\n{self.server_log()[-3000:]}"
            )
        words = dict(word.split("=", 1) for word in line.split()[1:])
        self.sftp_port = int(words["sftp"].rpartition(":")[2])
        self.api = words["api"]
        return self

    def _environment(self) -> dict[str, str]:
        """Return this process's environment without what steers Entrepot and AWS's tools, and with the stack's own."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ENTREPOT_", "AWS_"))}
        return {**clean, **self.environment}

    def stop(self, deadline_s: float = 30.0) -> int:
        """End the server with SIGTERM; return its exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self._ended(deadline_s)

    def kill(self) -> None:
        """Kill the server as a crash would (SIGKILL)."""
        assert self.process is not None
        self.process.kill()
        self._ended(10)

    def _ended(self, deadline_s: float) -> int:
        assert self.process is not None
        try:
            code = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise AssertionError(f"the server did not stop; its log ends:\n{self.server_log()[-3000:]}") from None
        finally:
            if self.process.stdout:
                self.process.stdout.close()
            self.log.close()
            self.process = None
        return code

    def server_log(self) -> str:
        """Return what the server wrote to standard error."""
        return (self.folder.parent / f"{self.folder.name}.server.log").read_text(errors="replace")

    # ── its clients ──────────────────────────────────────────────────────────────────────────────────────────────

    def entrepot(self, *arguments: str, expect: int = 0, stdin: str = "") -> str:
        """Run a command of the CLI for this stack, with `stdin` as its input; return what it printed."""
        run = subprocess.run(
            [*ENTREPOT, *arguments, "-C", str(self.folder)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=self._environment(),
        )
        assert run.returncode == expect, f"exit code {run.returncode}\n{run.stdout}\n{run.stderr}"
        return run.stdout if expect == 0 else run.stdout + run.stderr

    def json(self, *arguments: str) -> Any:
        """Run a command with `-o json`; return what it printed, parsed."""
        return json.loads(self.entrepot(*arguments, "-o", "json"))

    def client(self, service: str) -> Any:
        """Return a botocore client with the operator's key."""
        from entrepot.cli.client import Connection

        return Connection(self.folder).client(service)

    def ssh_options(self, user: str = "demo") -> list[str]:
        """Return the options that make OpenSSH's tools log in to this server as a user, reading no configuration."""
        key = self.folder / "keys" / user
        pairs = {
            "Port": str(self.sftp_port),
            "IdentityFile": str(key),
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        return ["-F", "none", *(word for name, value in pairs.items() for word in ("-o", f"{name}={value}"))]

    def sftp(self, *commands: str, user: str = "demo", expect: int | None = 0) -> str:
        """Run OpenSSH's sftp with a batch of commands; return what it printed."""
        run = subprocess.run(
            ["sftp", *self.ssh_options(user), "-b", "-", f"{user}@127.0.0.1"],
            input="\n".join(commands) + "\n",
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert expect is None or run.returncode == expect, f"exit code {run.returncode}\n{run.stdout}\n{run.stderr}"
        return run.stdout + run.stderr

    def file_with(self, key: str, status: str) -> dict[str, Any] | None:
        """Return the row of `files` with this key and status, or None."""
        rows: list[dict[str, Any]] = self.json("files", "--limit", "1000")
        return next((row for row in rows if row["key"] == key and row["status"] == status), None)

    def delivered(self, key: str, *, deadline_s: float = 30.0) -> dict[str, Any]:
        """Wait until the file is transferred; return its row."""
        return wait_for(
            lambda: self.file_with(key, "transferred"), deadline_s=deadline_s, what=f"the delivery of {key}"
        )
