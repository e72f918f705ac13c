"""What a poller of an event source works with."""

from collections.abc import Awaitable, Callable
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

Report: TypeAlias = Callable[[str], Awaitable[None]]
"""Says how the last batch went: LastProcessingResult."""


class Invoke(Protocol):
    """`Lambda.invoke`, as far as a poller needs it."""

    async def __call__(self, name: str, payload: bytes, *, qualifier: str = "") -> InvocationResult: ...


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
