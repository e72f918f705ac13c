"""What other rooms do for the logs, as typed callables that the composition passes in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from entrepot.outbound.messages import Send

Dimensions: TypeAlias = tuple[tuple[str, str], ...]

RecordMetric: TypeAlias = Callable[[str, str, Dimensions, float, str, int], None]
"""`record(namespace, name, dimensions, value, unit, at_ms)`: adds a value to a metric; from any thread, never blocks."""

InvokeFunction: TypeAlias = Callable[[str, bytes, str], Awaitable[None]]
"""`invoke(function_arn, payload, source_arn)`: starts an asynchronous invocation; an empty payload only asks whether the
function could be invoked. Raises AwsError."""


@dataclass(frozen=True, slots=True)
class DeliveryStream:
    """A delivery to OpenSearch or Elasticsearch: `[log_deliveries.NAME]`.

    `index` has strftime's fields, filled in with the event's time (UTC). `send` exchanges the requests.
    """

    name: str
    url: str
    index: str
    user: str
    password_file: Path | None
    send: Send


def no_metric(namespace: str, name: str, dimensions: Dimensions, value: float, unit: str, at_ms: int) -> None:
    """Record nothing: for a log store without metrics beside it."""
