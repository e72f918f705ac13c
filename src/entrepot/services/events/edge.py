"""What all of the edge shares: names and ARNs of buses, pages, and the checks of what every request may have."""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from entrepot.database import Reader, Transaction
from entrepot.operations import (
    Call,
    Operation,
    Permissions,
    ReadOperation,
    Request,
    Response,
    WriteOperation,
)
from entrepot.services.events.errors import LimitExceededError, ValidationError
from entrepot.services.events.input import compact
from entrepot.services.events.rules import DEFAULT_BUS
from entrepot.services.events.service import Events

PAGE_LIMIT = 100
"""Entries of one page."""

PATTERN_LIMIT = 4096
"""Characters of an event pattern."""

DESCRIPTION_LIMIT = 512
"""Characters of a description."""

Read: TypeAlias = Callable[[Events, Reader, Request, Call], Response]
Write: TypeAlias = Callable[[Events, Transaction, Request, Call], Response]

_NAME = re.compile(r"[.\-_A-Za-z0-9]+")


def reads(events: Events) -> Callable[[str, Permissions, Read], Operation]:
    """Return what makes an operation of a function that reads."""
    return lambda name, permissions, run: ReadOperation(
        name, permissions, lambda reader, request, call: run(events, reader, request, call)
    )


def writes(events: Events) -> Callable[[str, Permissions, Write], Operation]:
    """Return what makes an operation of a function that writes."""
    return lambda name, permissions, run: WriteOperation(
        name, permissions, lambda tx, request, call: run(events, tx, request, call)
    )


def bus_name_of(name_or_arn: str | None) -> str:
    """Return the bus that a request names, by name or ARN; none named: the default bus."""
    given = name_or_arn or DEFAULT_BUS
    return given.rsplit("event-bus/", 1)[-1] if given.startswith("arn:") else given


def bus_arn(events: Events, bus_name: str) -> str:
    """Return the ARN of a bus."""
    return events.account.arn("events", f"event-bus/{bus_name}")


def page(names: list[str], request: Request) -> tuple[list[str], dict[str, str]]:
    """Return the names after NextToken, at most Limit, and the token for what follows."""
    after = request.get("NextToken") or ""
    rest = [name for name in sorted(names) if name > after]
    limit = min(request.get("Limit") or PAGE_LIMIT, PAGE_LIMIT)
    return rest[:limit], {"NextToken": rest[limit - 1]} if len(rest) > limit else {}


def tag_map(given: Any) -> dict[str, str]:
    """Return AWS's list of tags as a mapping."""
    return {tag["Key"]: tag["Value"] for tag in given or ()}


def check_name(name: str, member: str, limit: int) -> None:
    """Raise ValidationError unless a name has AWS's form."""
    failed = "Value '{}' at '{}' failed to satisfy constraint: Member must {}"
    if len(name) > limit:
        raise one_error(failed.format(name[:300], member, f"have length less than or equal to {limit}"))
    if not _NAME.fullmatch(name):
        raise one_error(failed.format(name, member, "satisfy regular expression pattern: [\\.\\-_A-Za-z0-9]+"))


def not_in_enumeration(member: str, value: str, known: Iterable[str]) -> ValidationError:
    """Return AWS's error for a value that an enumeration does not have."""
    return one_error(
        f"Value '{value[:100]}' at '{member}' failed to satisfy constraint: Member must satisfy enum value set: "
        f"[{', '.join(known)}]"
    )


def one_error(text: str) -> ValidationError:
    """Return AWS's words for one member that is not valid."""
    return ValidationError(f"1 validation error detected: {text}")


def check_description(request: Request) -> None:
    """Raise ValidationError for a description that is too long."""
    if len(request.get("Description") or "") > DESCRIPTION_LIMIT:
        raise ValidationError(f"Description must not be longer than {DESCRIPTION_LIMIT} characters.")


def check_text(request: Request) -> None:
    """Raise ValidationError for text that is no Unicode (a lone surrogate), which nothing could store."""
    plain = {name: value for name, value in request.items() if isinstance(value, str | dict | list)}
    try:
        compact(plain).encode()
    except UnicodeEncodeError:
        raise ValidationError("The request has text that is not valid Unicode.") from None


def check_pattern_length(pattern: str) -> None:
    """Raise LimitExceededError for a pattern that is too long."""
    if len(pattern) > PATTERN_LIMIT:
        raise LimitExceededError(f"The event pattern has more than {PATTERN_LIMIT} characters.")
