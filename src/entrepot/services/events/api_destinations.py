"""API destinations: HTTP endpoints that rules call, each through a connection.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-api-destinations.html
"""

from dataclasses import dataclass

from entrepot.database import Reader, Transaction

METHODS = ("POST", "GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")

RATE_DEFAULT_PER_S = 300
"""Invocations a second, where a destination does not say."""

_COLUMNS = (
    "name, destination_id, description, connection_arn, invocation_endpoint, http_method, rate_limit_per_s, "
    "created_at_ms, modified_at_ms"
)


@dataclass(frozen=True, slots=True)
class ApiDestination:
    """One API destination. `invocation_endpoint` is a URL in which each `*` is a path parameter."""

    name: str
    destination_id: str
    description: str
    connection_arn: str
    invocation_endpoint: str
    http_method: str
    rate_limit_per_s: int
    created_at_ms: int
    modified_at_ms: int

    @property
    def resource(self) -> str:
        """The end of its ARN."""
        return f"api-destination/{self.name}/{self.destination_id}"


def is_api_destination(arn: str) -> bool:
    """Return whether an ARN is an API destination's."""
    return ":events:" in arn and ":api-destination/" in arn


def find(reader: Reader, name: str) -> ApiDestination | None:
    """Return an API destination by name."""
    row = reader.one(f"SELECT {_COLUMNS} FROM events_api_destination WHERE name = ?", (name,))  # noqa: S608
    return None if row is None else ApiDestination(*row)


def find_by_arn(reader: Reader, arn: str) -> ApiDestination | None:
    """Return an API destination by its ARN."""
    found = find(reader, arn.partition(":api-destination/")[2].partition("/")[0])
    return found if found is not None and arn.endswith(f":{found.resource}") else None


def all_destinations(reader: Reader, limit: int) -> list[ApiDestination]:
    """Return API destinations by name."""
    rows = reader.all(f"SELECT {_COLUMNS} FROM events_api_destination ORDER BY name LIMIT ?", (limit,))  # noqa: S608
    return [ApiDestination(*row) for row in rows]


def put(tx: Transaction, destination: ApiDestination) -> None:
    """Create or replace an API destination."""
    tx.execute("DELETE FROM events_api_destination WHERE name = ?", (destination.name,))
    tx.execute(
        f"INSERT INTO events_api_destination ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            destination.name, destination.destination_id, destination.description, destination.connection_arn,
            destination.invocation_endpoint, destination.http_method, destination.rate_limit_per_s,
            destination.created_at_ms, destination.modified_at_ms,
        ),
    )  # fmt: skip


def delete(tx: Transaction, name: str) -> None:
    """Delete an API destination."""
    tx.execute("DELETE FROM events_api_destination WHERE name = ?", (name,))
