"""Provisioned concurrency: how many workers of a version or alias are kept ready, as rows.

Source: https://docs.aws.amazon.com/lambda/latest/dg/provisioned-concurrency.html
"""

from dataclasses import dataclass

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.services.lambda_ import functions


@dataclass(frozen=True, slots=True)
class ProvisionedConcurrency:
    """So many workers are kept ready for a version, named directly or by an alias."""

    function_name: str
    qualifier: str
    requested: int
    modified_at_ms: int


_COLUMNS = "name, qualifier, requested, modified_at_ms"


def find(reader: Reader, name: str, qualifier: str) -> ProvisionedConcurrency | None:
    """Return what was asked for a version or an alias, or None."""
    row = reader.one(
        f"SELECT {_COLUMNS} FROM lambda_provisioned_concurrency WHERE name = ? AND qualifier = ?",  # noqa: S608
        (name, qualifier),
    )
    return None if row is None else ProvisionedConcurrency(*row)


def of_function(reader: Reader, name: str) -> list[ProvisionedConcurrency]:
    """Return all of a function by qualifier."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM lambda_provisioned_concurrency WHERE name = ? ORDER BY qualifier",  # noqa: S608
        (name,),
    )
    return [ProvisionedConcurrency(*row) for row in rows]


def put(tx: Transaction, name: str, qualifier: str, requested: int) -> ProvisionedConcurrency:
    """Ask for so many."""
    found = ProvisionedConcurrency(name, qualifier, requested, clock.now_ms())
    tx.execute(
        f"INSERT INTO lambda_provisioned_concurrency ({_COLUMNS}) VALUES (?, ?, ?, ?) "  # noqa: S608
        "ON CONFLICT (name, qualifier) DO UPDATE SET requested = excluded.requested, modified_at_ms = excluded.modified_at_ms",
        (name, qualifier, requested, found.modified_at_ms),
    )
    return found


def delete(tx: Transaction, name: str, qualifier: str) -> bool:
    """Ask for none; False when none was asked for."""
    return (
        tx.execute("DELETE FROM lambda_provisioned_concurrency WHERE name = ? AND qualifier = ?", (name, qualifier)) > 0
    )


def by_version(reader: Reader, name: str) -> dict[str, int]:
    """Return how many workers each version keeps ready, its aliases' share included."""
    warm: dict[str, int] = {}
    for entry in of_function(reader, name):
        alias = None if entry.qualifier.isdigit() else functions.find_alias(reader, name, entry.qualifier)
        version = alias.version if alias else entry.qualifier
        warm[version] = warm.get(version, 0) + entry.requested
    return warm
