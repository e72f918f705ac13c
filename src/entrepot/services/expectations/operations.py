"""The edge: Entrepot's own operations on expectations, in the shape of its model (`aws/models/entrepot`)."""

from typing import Any

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.operations import (
    Call,
    Operation,
    Permission,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.expectations import outcomes
from entrepot.services.expectations.book import every
from entrepot.services.expectations.expectation import Expectation, expectation_of
from entrepot.services.expectations.outcomes import OUTCOMES_LIMIT, Outcome
from entrepot.services.expectations.service import Expectations
from entrepot.services.expectations.windows import next_window

DEFAULT_OUTCOMES = 30


def operations(expectations: Expectations) -> list[Operation]:
    """Return the operations of `expectations`."""

    def permit(action: str) -> Permissions:
        def needed(request: Request) -> tuple[Permission, ...]:
            resource = f"expectation/{request.get('name', '*')}"
            return (Permission(f"entrepot:{action}", expectations.account.arn("entrepot", resource)),)

        return needed

    def list_expectations(reader: Reader, request: Request, call: Call) -> Response:
        """ListExpectations: all, by name, each with its newest outcome and its next deadline."""
        return {"expectations": [_expectation(reader, one) for one in every(reader)]}

    def get_expectation(reader: Reader, request: Request, call: Call) -> Response:
        """GetExpectation: one, with its newest outcomes, newest first."""
        one = expectations.find(reader, request["name"])
        limit = min(request.get("limit") or DEFAULT_OUTCOMES, OUTCOMES_LIMIT)
        recent = outcomes.newest(reader, one.name, limit)
        return {"expectation": _expectation(reader, one), "outcomes": [_outcome(outcome) for outcome in recent]}

    def put_expectation(tx: Transaction, request: Request, call: Call) -> Response:
        """PutExpectation: the whole definition; what is not given has its default."""
        wanted = expectation_of(request)
        expectations.put(tx, wanted)
        return {"expectation": _expectation(tx, wanted)}

    def delete_expectation(tx: Transaction, request: Request, call: Call) -> Response:
        """DeleteExpectation: with its outcomes."""
        expectations.delete(tx, request["name"])
        return {}

    return [
        ReadOperation("ListExpectations", permit("ListExpectations"), list_expectations),
        ReadOperation("GetExpectation", permit("GetExpectation"), get_expectation),
        WriteOperation("PutExpectation", permit("PutExpectation"), put_expectation),
        WriteOperation("DeleteExpectation", permit("DeleteExpectation"), delete_expectation),
    ]


def _expectation(reader: Reader, one: Expectation) -> dict[str, Any]:
    """Return an expectation as the API shows it."""
    shown: dict[str, Any] = {
        "name": one.name,
        "description": one.description,
        "key_pattern": one.key_pattern,
        "source_bucket": one.source_bucket,
        "customer_id": one.customer_id,
        "by": one.schedule.by,
        "time_zone": one.schedule.time_zone,
        "days": list(one.schedule.days),
        "holidays": list(one.schedule.holidays),
        "window_s": one.schedule.window_s,
        "grace_s": one.schedule.grace_s,
        "minimum_size_bytes": one.minimum_size_bytes,
        "maximum_files": one.maximum_files,
    }
    window = next_window(one.schedule, clock.now_ms() + 1)
    if window is not None:
        shown |= {"next_window": window.date, "next_deadline": clock.from_ms(window.deadline_at_ms)}
    for outcome in outcomes.newest(reader, one.name, 1):
        shown["last_outcome"] = _outcome(outcome)
    return shown


def _outcome(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as the API shows it; what no file tells is left out."""
    shown: dict[str, Any] = {
        "window": outcome.window_date,
        "deadline": clock.from_ms(outcome.deadline_at_ms),
        "closes": clock.from_ms(outcome.closes_at_ms),
        "outcome": outcome.kind,
        "decided": clock.from_ms(outcome.decided_at_ms),
        "files": outcome.files,
        "small_files": outcome.small_files,
    }
    if outcome.file_id is not None and outcome.file_arrived_at_ms is not None:
        shown |= {
            "file_id": outcome.file_id,
            "key": outcome.file_key,
            "size_bytes": outcome.file_size_bytes,
            "arrived": clock.from_ms(outcome.file_arrived_at_ms),
        }
    return shown
