"""A Lambda service with real worker processes, as the tests of functions use it."""

import asyncio
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.loglines import LogLine
from entrepot.services.lambda_ import MIGRATIONS, FunctionConfiguration, InvocationResult, Lambda

ROLE = "arn:aws:iam::000000000000:role/demo"


@dataclass
class House:
    """A Lambda service with the log lines that it wrote."""

    lambda_: Lambda
    folder: Path
    lines: list[tuple[str, str, LogLine]] = field(default_factory=list)

    async def put(self, code: str, name: str = "demo", **settings: Any) -> None:
        folder = self.folder / f"source-{name}"
        folder.mkdir(exist_ok=True)
        (folder / "handler.py").write_text(textwrap.dedent(code))
        configuration = FunctionConfiguration(
            name, ROLE, settings.pop("handler", "handler.lambda_handler"), code_folder=folder, **settings
        )
        await self.lambda_.database.write(lambda tx: self.lambda_.put_function(tx, configuration))

    async def invoke(self, event: object = None, name: str = "demo", **options: Any) -> InvocationResult:
        return await self.lambda_.invoke(name, json.dumps(event).encode(), **options)

    async def answer(self, event: object = None, name: str = "demo") -> Any:
        result = await self.invoke(event, name)
        assert result.function_error is None, result
        return json.loads(result.payload)

    def text(self) -> str:
        return "".join(line.message for _, _, line in self.lines)


async def until(condition: Callable[[], bool], deadline_s: float = 15.0) -> None:
    end = clock.monotonic_s() + deadline_s
    while not condition():
        assert clock.monotonic_s() < end, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def alive(mark: str) -> list[int]:
    """Return the living processes whose name is the mark, or whose arguments contain it, as the machine numbers them."""
    found = []
    for name in (entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        try:
            state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
            words = Path(f"/proc/{name}/cmdline").read_bytes().decode().split("\0")
            comm = Path(f"/proc/{name}/comm").read_text().strip()
        except OSError:
            continue
        if state not in "ZX" and (comm == mark or mark in words):
            found.append(int(name))
    return found


def mark() -> str:
    """Return a number of seconds that no other test sleeps."""
    return f"1000.{ids.random_hex(6)}".translate(str.maketrans("abcdef", "012345"))


async def open_house(folder: Path, **options: Any) -> House:
    """Start the service in a folder; `close_house` it."""
    database = SQLiteDatabase(folder / "ledger.db")
    database.migrate(MIGRATIONS)
    lines: list[tuple[str, str, LogLine]] = []
    lambda_ = Lambda(
        database,
        Account(),
        folder=folder / "lambda",
        issue_credentials=lambda role, session: SimpleNamespace(  # type: ignore[arg-type,return-value]
            access_key_id="ASIAEXAMPLE", secret_access_key="secret", session_token=role, expires_at_ms=None
        ),
        endpoint_url=lambda: "http://127.0.0.1:4566",
        write_log=lambda group, stream, line: lines.append((group, stream, line)),
        **options,
    )
    await lambda_.start()
    return House(lambda_, folder, lines)


async def close_house(house: House) -> None:
    await house.lambda_.stop()
    await house.lambda_.database.close()
