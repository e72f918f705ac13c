"""How asynchronous invocations of a function, version or alias are retried and where their outcome goes, as rows.

Source: https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionEventInvokeConfig.html
"""

import json
from dataclasses import asdict, dataclass, replace

from entrepot import clock
from entrepot.database import Reader, Row, Transaction
from entrepot.services.lambda_.configuration import LATEST, Reference

MAXIMUM_RETRY_ATTEMPTS = 2
"""AWS's default and limit."""

AGE_MINIMUM_S, AGE_LIMIT_S = 60, 21_600
"""AWS's limits for MaximumEventAgeInSeconds; the upper one is the default."""


@dataclass(frozen=True, slots=True)
class EventInvokeConfig:
    """None: not said, AWS's default holds."""

    maximum_retry_attempts: int | None = None
    maximum_event_age_s: int | None = None
    on_success_arn: str | None = None
    on_failure_arn: str | None = None
    modified_at_ms: int = 0

    @property
    def retry_attempts(self) -> int:
        """How often a failed attempt is repeated."""
        return MAXIMUM_RETRY_ATTEMPTS if self.maximum_retry_attempts is None else self.maximum_retry_attempts

    @property
    def event_age_s(self) -> int:
        """How old an event may become before it is given up."""
        return AGE_LIMIT_S if self.maximum_event_age_s is None else self.maximum_event_age_s


DEFAULT = EventInvokeConfig()


def _key(reference: Reference) -> tuple[str, str]:
    return reference.name, "" if reference.is_latest else reference.qualifier


def _read(row: Row) -> EventInvokeConfig:
    return replace(EventInvokeConfig(**json.loads(row[0])), modified_at_ms=row[1])


def find(reader: Reader, reference: Reference) -> EventInvokeConfig | None:
    """Return what is configured for exactly this function, version or alias."""
    row = reader.one(
        "SELECT document, modified_at_ms FROM lambda_event_invoke_config WHERE name = ? AND qualifier = ?",
        _key(reference),
    )
    return None if row is None else _read(row)


def of_function(reader: Reader, name: str) -> list[tuple[str, EventInvokeConfig]]:
    """Return (qualifier, what is configured for it) of a function."""
    rows = reader.all(
        "SELECT document, modified_at_ms, qualifier FROM lambda_event_invoke_config WHERE name = ? ORDER BY qualifier",
        (name,),
    )
    return [(row[2] or LATEST, _read(row)) for row in rows]


def put(tx: Transaction, reference: Reference, config: EventInvokeConfig) -> EventInvokeConfig:
    """Write it; return it as stored."""
    config = replace(config, modified_at_ms=clock.now_ms())
    tx.execute(
        "INSERT INTO lambda_event_invoke_config (name, qualifier, document, modified_at_ms) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name, qualifier) DO UPDATE SET document = excluded.document, "
        "modified_at_ms = excluded.modified_at_ms",
        (*_key(reference), json.dumps(asdict(replace(config, modified_at_ms=0))), config.modified_at_ms),
    )
    return config


def delete(tx: Transaction, reference: Reference) -> bool:
    """Remove it; False when there is none."""
    sql = "DELETE FROM lambda_event_invoke_config WHERE name = ? AND qualifier = ?"
    return tx.execute(sql, _key(reference)) > 0
