"""What a poller of an event source works with."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from entrepot.arns import Account
from entrepot.database import Database
from entrepot.operations import Call
from entrepot.services.lambda_.configuration import FunctionConfiguration
from entrepot.services.lambda_.destinations import Destinations
from entrepot.services.lambda_.event_source_mappings import EventSourceMapping
from entrepot.services.lambda_.invocation import InvocationResult
from entrepot.services.lambda_.neighbours import Neighbours

DRAIN_LIMIT_S = 5.0
"""How long batches in flight may take when a poller ends; later ones are repeated by its successor."""

Report: TypeAlias = Callable[[str], Awaitable[None]]
"""Says how the last batch went: LastProcessingResult."""


class Invoke(Protocol):
    """`Lambda.invoke`, as far as a poller needs it."""

    async def __call__(self, name: str, payload: bytes, *, qualifier: str = "") -> InvocationResult: ...


async def end_tasks(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Let tasks come to their end, and cancel those that take longer than DRAIN_LIMIT_S."""
    running = list(tasks)
    if not running:
        return
    try:
        _, late = await asyncio.wait(running, timeout=DRAIN_LIMIT_S)
    finally:
        for task in running:
            task.cancel()
    await asyncio.gather(*late, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class SourcePorts:
    """`call_as_function` gives the caller of a mapping's operations: its function's role. Raises AwsError."""

    database: Database
    neighbours: Neighbours
    destinations: Destinations
    invoke: Invoke
    account: Account
    call_as_function: Callable[[EventSourceMapping], Awaitable[Call]]
    function_of: Callable[[EventSourceMapping], Awaitable[FunctionConfiguration]]
