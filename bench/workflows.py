"""State machines by numbers: transitions and starts a second, large Maps, and very many executions that wait.

`python -m bench.workflows` prints them. What a client would limit is measured in-process, on the real ledger with every
commit forced to disk; what is the API's is measured through a server, with clients in processes of their own.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import uvloop

from bench.measure import resident_bytes
from entrepot import settings
from entrepot.blobs import Blob
from entrepot.cli.client import Connection
from entrepot.composition import Composition
from entrepot.database import Transaction
from entrepot.settings import StackFolder
from tests.running import Stack

T = TypeVar("T")

IN_FLIGHT = 64
"""Callers in-process that start executions at the same time."""

CLIENT_PROCESSES = 2
"""Processes that start executions over the API, each with 16 connections."""

INLINE_ITEMS = 6_000
"""A history may have 25,000 events, and an iteration with one state has four: no inline Map can be much larger."""

DISTRIBUTED_ITEMS = 10_000
ALLOW_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
INPUT = '{"file_id":"2026-11-23/orders.csv","customer":"acme","size":4096}'


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    value: str


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def chain(*kinds: str) -> dict[str, Any]:
    """Return a machine of these states in a row: "pass", "item" (dynamodb:updateItem), "copy" (aws-sdk:s3:copyObject)."""
    tasks = {
        "item": (
            "arn:aws:states:::dynamodb:updateItem",
            {
                "TableName": "FileTransferMetadata",
                "Key": {"file_id": {"S.$": "$$.Execution.Name"}},
                "UpdateExpression": "SET n = :n",
                "ExpressionAttributeValues": {":n": {"N": "1"}},
            },
        ),
        "copy": (
            "arn:aws:states:::aws-sdk:s3:copyObject",
            {"Bucket": "bench-target", "Key.$": "$$.Execution.Name", "CopySource": "bench-source/file"},
        ),
    }
    states: dict[str, Any] = {}
    for number, kind in enumerate(kinds):
        state: dict[str, Any] = {"Type": "Pass"}
        if kind in tasks:
            resource, parameters = tasks[kind]
            state = {"Type": "Task", "Resource": resource, "Parameters": parameters, "ResultPath": None}
        following = {"Next": f"S{number + 1}"} if number + 1 < len(kinds) else {"End": True}
        states[f"S{number}"] = {**state, **following}
    return {"StartAt": "S0", "States": states}


def map_machine(mode: str) -> dict[str, Any]:
    """Return a machine that is one Map over `$.items` with a Pass."""
    processor = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}
    if mode == "DISTRIBUTED":
        processor["ProcessorConfig"] = {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    state = {"Type": "Map", "ItemsPath": "$.items", "ItemProcessor": processor, "ResultPath": None, "End": True}
    return {"StartAt": "M", "States": {"M": state}}


WAIT = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 864_000, "End": True}}}


# ── in-process ───────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def folders() -> Iterator[Path]:
    """Yield the folder of a stack whose state machines may do everything, with two more buckets."""
    with TemporaryDirectory(prefix="entrepot-bench-") as name:
        stack = Stack(Path(name) / "stack")
        path = stack.folder / "stack.toml"
        path.write_text(path.read_text() + "\n[buckets.bench-source]\n[buckets.bench-target]\n")
        (stack.folder / "policies" / "transfer-workflow.json").write_text(json.dumps(ALLOW_ALL))
        yield stack.folder


class Rooms:
    """All rooms of a stack, without listeners; a state machine named bench; and how long they worked."""

    def __init__(self, folder: Path) -> None:
        place = StackFolder(folder)
        self.composition = Composition(place, settings.load(place, {}), folder / "data")
        self.machine_arn = ""

    async def __aenter__(self) -> "Rooms":
        rooms = self.composition
        await rooms.logs.start()
        await rooms.furnish()
        await rooms.stepfunctions.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        rooms = self.composition
        await rooms.stepfunctions.stop()
        await rooms.logs.stop()
        await rooms.close()

    async def write(self, work: Callable[[Transaction], T]) -> T:
        return await self.composition.database.write(work)

    async def create(self, definition: dict[str, Any]) -> None:
        rooms = self.composition
        role_arn = rooms.account.iam_arn("role/transfer-workflow")
        text = json.dumps(definition)
        make = partial(rooms.stepfunctions.create_state_machine, name="bench", definition=text, role_arn=role_arn)
        self.machine_arn = (await self.write(make)).arn

    def begin(self, input_text: str, count: int, tx: Transaction) -> None:
        """Start some executions in one transaction."""
        for _ in range(count):
            self.composition.stepfunctions.start_execution(tx, self.machine_arn, None, input_text)

    async def run(self, input_text: str, count: int) -> tuple[float, float]:
        """Start executions, each in a write of its own, and wait for all; return (seconds, CPU seconds)."""
        numbers = iter(range(count))

        async def caller() -> None:
            for _ in numbers:
                await self.write(partial(self.begin, input_text, 1))

        began_s, cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller() for _ in range(min(IN_FLIGHT, count))))
        while await self.statuses() != {"SUCCEEDED"}:
            await asyncio.sleep(0.02)
        return time.perf_counter() - began_s, time.process_time() - cpu_s

    async def statuses(self) -> set[str]:
        """Return the statuses of all executions; raise RuntimeError when one failed."""
        rows = await self.composition.database.read(
            lambda reader: reader.all("SELECT status FROM execution WHERE status <> 'SUCCEEDED' LIMIT 1")
        )
        found = {str(row[0]) for row in rows} or {"SUCCEEDED"}
        if not found <= {"RUNNING", "SUCCEEDED"}:
            raise RuntimeError(f"An execution is {found}.")
        return found


async def transitions(folder: Path, definition: dict[str, Any], input_text: str, count: int, states: int) -> str:
    """Return what `count` executions with `states` transitions each took, as text."""
    async with Rooms(folder) as rooms:
        await rooms.create(definition)
        s3 = rooms.composition.s3
        content = Blob(None, b"x" * 4096, 4096, bytes(32))
        await rooms.write(lambda tx: s3.publish(tx, "bench-source", "file", content, rooms.composition.root))
        wall_s, cpu_s = await rooms.run(input_text, count)
    total = count * states
    return f"{total / wall_s:,.0f}/s ({cpu_s / total * 1e6:,.0f} µs of CPU each)"


async def furnished_bytes(folder: Path) -> int:
    """Return the size of the ledger of a stack that has done nothing yet."""
    async with Rooms(folder):
        pass
    return ledger_bytes(folder)


async def wait_for_ever(folder: Path, count: int) -> None:
    """Fill a ledger with executions that wait, 500 a transaction."""
    async with Rooms(folder) as rooms:
        await rooms.create(WAIT)
        for first in range(0, count, 500):
            await rooms.write(partial(rooms.begin, INPUT, min(500, count - first)))


# ── through a server ─────────────────────────────────────────────────────────────────────────────────────────────────


def start_rate(folder: Path, count: int) -> str:
    """Return StartExecution's rate over the API, with the CPU seconds of server and clients a call."""
    with Stack(folder) as stack:
        assert stack.process is not None
        client = stack.client("stepfunctions")
        role_arn = "arn:aws:iam::000000000000:role/transfer-workflow"
        machine_arn = client.create_state_machine(
            name="bench-start", definition=json.dumps(chain("pass")), roleArn=role_arn
        )["stateMachineArn"]
        connection = Connection(folder)
        order = {
            "url": stack.api,
            "region": "us-east-1",
            "key_id": connection.key["access_key_id"],
            "secret": connection.key["secret_access_key"],
            "machine_arn": machine_arn,
            "count": count // CLIENT_PROCESSES,
        }
        processes = [_light_client(order) for _ in range(CLIENT_PROCESSES)]
        began_s, cpu_s = time.perf_counter(), cpu_seconds(stack.process.pid)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        clients_s = sum(json.loads(process.communicate(timeout=300)[0])["cpu_s"] for process in processes)
        wall_s, cpu_s = time.perf_counter() - began_s, cpu_seconds(stack.process.pid) - cpu_s
    return (
        f"{count / wall_s:,.0f}/s (CPU a call: {cpu_s / count * 1e6:,.0f} µs the server, "
        f"{clients_s / count * 1e6:,.0f} µs the client)"
    )


def _light_client(order: dict[str, Any]) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.light_client"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "connected\n"
    return process


def waiting(count: int) -> list[Figure]:
    """Measure a server on a ledger with `count` waiting executions beside the same server with none."""
    with folders() as folder:
        stack = Stack(folder)
        uvloop.run(wait_for_ever(folder, 1))
        size_before = ledger_bytes(folder)
        empty_s, _, empty_bytes, empty_cpu_s = _start(stack)
        uvloop.run(wait_for_ever(folder, count))
        size = (ledger_bytes(folder) - size_before) / count
        ready_s, first_s, full_bytes, full_cpu_s = _start(stack)
    shown = f"{count:,} waiting executions"
    return [
        Figure(f"start with {shown}: to `ready`", f"{ready_s:.2f} s (with none {empty_s:.2f} s)"),
        Figure(f"start with {shown}: StartExecution answered after", f"{first_s:.2f} s"),
        Figure("CPU of the first 5 s after `ready`", f"{full_cpu_s:.2f} s (with none {empty_cpu_s:.2f} s)"),
        Figure("resident memory a waiting execution", f"{max(0, full_bytes - empty_bytes) / count:,.0f} bytes"),
        Figure("ledger a waiting execution", f"{size:,.0f} bytes"),
    ]


def _start(stack: Stack) -> tuple[float, float, int, float]:
    """Return (seconds to ready, to an answer of StartExecution, resident bytes, CPU seconds) of a start."""
    began_s = time.perf_counter()
    stack.start()
    ready_s = time.perf_counter() - began_s
    try:
        assert stack.process is not None
        cpu_s = cpu_seconds(stack.process.pid)
        client = stack.client("stepfunctions")
        arn = "arn:aws:states:us-east-1:000000000000:stateMachine:bench"
        client.start_execution(stateMachineArn=arn, input=INPUT)
        first_s = time.perf_counter() - began_s
        time.sleep(5)
        return ready_s, first_s, resident_bytes(stack.process.pid), cpu_seconds(stack.process.pid) - cpu_s
    finally:
        stack.stop()


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def ledger_bytes(folder: Path) -> int:
    """Return the size of a stopped stack's ledger."""
    return (folder / "data" / "ledger.db").stat().st_size


# ── all of it ────────────────────────────────────────────────────────────────────────────────────────────────────────


def measure(scale: int = 1, only: str = "") -> Iterator[Figure]:
    """Yield every figure; `scale` divides the work, `only` is part of the name of the wanted ones."""

    def wanted(name: str) -> bool:
        return only in name

    pass_chain, mix = ["pass"] * 10, ["pass", "item", "pass", "copy", "pass"] * 2
    items = json.dumps({"items": list(range(INLINE_ITEMS // scale))})
    runs: list[tuple[str, dict[str, Any], str, int, int]] = [
        ("transitions: ten Pass states", chain(*pass_chain), INPUT, 5_000, 10),
        ("transitions: six Pass, two updateItem, two copyObject", chain(*mix), INPUT, 1_500, 10),
        ("executions of one Pass state, in-process", chain("pass"), INPUT, 10_000, 1),
    ]
    for name, definition, input_text, count, states in runs:
        if wanted(name):
            with folders() as folder:
                number, empty = max(64, count // scale), uvloop.run(furnished_bytes(folder))
                yield Figure(name, uvloop.run(transitions(folder, definition, input_text, number, states)))
                stored = (ledger_bytes(folder) - empty) / number
                yield Figure(f"{name}: ledger", f"{stored:,.0f} bytes an execution, all tables")
    if wanted("map inline"):
        with folders() as folder:
            length = INLINE_ITEMS // scale
            text = uvloop.run(transitions(folder, map_machine("INLINE"), items, 1, length))
            yield Figure(f"map inline: iterations of one Map over {length:,} items", text)
    if wanted("map distributed"):
        with folders() as folder:
            length, empty = DISTRIBUTED_ITEMS // scale, uvloop.run(furnished_bytes(folder))
            text = json.dumps({"items": list(range(length))})
            done = uvloop.run(transitions(folder, map_machine("DISTRIBUTED"), text, 1, length))
            yield Figure(f"map distributed: child executions of one Map over {length:,} items", done)
            yield Figure(
                "map distributed: ledger", f"{(ledger_bytes(folder) - empty) / length:,.0f} bytes a child execution"
            )
    if wanted("start"):
        with folders() as folder:
            yield Figure("StartExecution over the API", start_rate(folder, 8_000 // scale))
    if wanted("waiting"):
        yield from waiting(100_000 // scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument(
        "--only",
        default="",
        help="part of a name: transitions, executions, map inline, map distributed, start, waiting",
    )
    arguments = parser.parse_args()
    for figure in measure(10 if arguments.quick else 1, arguments.only):
        print(f"{figure.what}: {figure.value}", flush=True)


if __name__ == "__main__":
    main()
