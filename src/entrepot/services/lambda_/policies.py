"""Resource policies: which services, accounts and roles may invoke a function, version or alias, as rows.

Source: https://docs.aws.amazon.com/lambda/latest/dg/access-control-resource-based.html
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entrepot import ids
from entrepot.database import Reader, Row, Transaction
from entrepot.services.lambda_.errors import PolicyLengthExceededError

LIMIT_BYTES = 20_480
"""A policy's text. AWS's limit."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The statements of one resource, in AWS's JSON."""

    qualifier: str
    statements: tuple[Mapping[str, Any], ...]
    revision_id: str

    @property
    def text(self) -> str:
        """The policy's document."""
        document = {"Version": "2012-10-17", "Id": "default", "Statement": list(self.statements)}
        return json.dumps(document, separators=(",", ":"))


def _read(row: Row) -> Policy:
    return Policy(row[0], tuple(json.loads(row[1])), row[2])


def find(reader: Reader, name: str, qualifier: str) -> Policy | None:
    """Return the policy of a function (qualifier ""), version or alias, or None."""
    row = reader.one(
        "SELECT qualifier, statements, revision_id FROM lambda_policy WHERE name = ? AND qualifier = ?",
        (name, qualifier),
    )
    return None if row is None else _read(row)


def of_function(reader: Reader, name: str) -> list[Policy]:
    """Return all policies of a function, its versions and its aliases."""
    rows = reader.all("SELECT qualifier, statements, revision_id FROM lambda_policy WHERE name = ?", (name,))
    return [_read(row) for row in rows]


def put(tx: Transaction, name: str, qualifier: str, statements: Sequence[Mapping[str, Any]]) -> None:
    """Write the statements; none of them removes the policy. PolicyLengthExceededError when they are too long."""
    if not statements:
        tx.execute("DELETE FROM lambda_policy WHERE name = ? AND qualifier = ?", (name, qualifier))
        return
    policy = Policy(qualifier, tuple(statements), ids.random_uuid())
    if len(policy.text) > LIMIT_BYTES:
        raise PolicyLengthExceededError(
            f"The final policy size ({len(policy.text)}) is bigger than the limit ({LIMIT_BYTES}).", Type="User"
        )
    tx.execute(
        "INSERT INTO lambda_policy (name, qualifier, statements, revision_id) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name, qualifier) DO UPDATE SET statements = excluded.statements, revision_id = excluded.revision_id",
        (name, qualifier, json.dumps(list(policy.statements)), policy.revision_id),
    )
