"""One call of an API destination: the request that it is, and what the answer means for the delivery.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-api-destinations.html
"""

import json
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

from entrepot import clock
from entrepot.outbound import (
    DeniedError,
    InvalidRequestError,
    OutboundError,
    Request,
    Response,
    TimedOutError,
    UnknownHostError,
)
from entrepot.services.events.api_destinations import ApiDestination
from entrepot.services.events.connections import ConnectionParameters
from entrepot.services.events.errors import TargetError
from entrepot.services.events.input import compact, value_at

TIMEOUT_S = 5.0
"""How long an endpoint has to answer, as on AWS."""

ANSWER_LIMIT_BYTES = 4096
"""Bytes of an answer that are read: only its beginning is told, when it is an error."""

TOLD_LIMIT = 256
"""Characters of an answer that an error tells."""

SECRET_LEAST = 4
"""Characters of the shortest value that is looked for in an answer, so as not to be told."""

RETRIED = frozenset({401, 407, 409, 429})
"""Statuses below 500 after which a delivery is tried again."""

UNAUTHORIZED = frozenset({401, 407})
"""Statuses after which an OAuth token is renewed."""

_OWN_HEADERS: Mapping[str, str] = {"User-Agent": "Amazon/EventBridge/ApiDestinations", "Range": "bytes=0-1048575"}


def request_of(
    destination: ApiDestination,
    added: ConnectionParameters,
    http_parameters: Mapping[str, Any],
    event: Mapping[str, Any],
    input_text: str,
) -> Request:
    """Return the request that delivers a target's input. `http_parameters` are the target's HttpParameters.

    Where the connection and the target name the same parameter, the connection's counts. Raises TargetError.
    """
    query = {name: _value(value, event) for name, value in (http_parameters.get("QueryStringParameters") or {}).items()}
    query |= dict(added.query)
    url = _with_path(destination.invocation_endpoint, http_parameters.get("PathParameterValues") or (), event)
    if query:
        url += ("&" if "?" in url else "?") + urlencode(query, quote_via=quote)
    headers: dict[str, tuple[str, str]] = {"content-type": ("Content-Type", "application/json; charset=utf-8")}
    for name, value in (http_parameters.get("HeaderParameters") or {}).items():
        headers[name.lower()] = (name, _value(value, event))
    for name, value in (*added.headers, *_OWN_HEADERS.items()):
        headers[name.lower()] = (name, value)
    return Request(
        destination.http_method, url, tuple(headers.values()), _body(added, input_text).encode(), TIMEOUT_S,
        ANSWER_LIMIT_BYTES,
    )  # fmt: skip


def _value(value: str, event: Mapping[str, Any]) -> str:
    """Return a parameter's value: itself, or what is in the event where it is a JSON path."""
    if not value.startswith("$"):
        return value
    found = value_at(event, value)
    return found if isinstance(found, str) else "" if found is None else compact(found)


def _with_path(endpoint: str, values: "tuple[str, ...] | list[str]", event: Mapping[str, Any]) -> str:
    path, mark, query = endpoint.partition("?")
    parts = path.split("*")
    if len(parts) - 1 > len(values):
        raise TargetError(
            f"The endpoint has {len(parts) - 1} path parameters (*), but the target gives {len(values)} in "
            "HttpParameters.PathParameterValues.",
            dead_letter_code="INVALID_PARAMETER", retryable=False,
        )  # fmt: skip
    filled = parts[0]
    for value, part in zip(values, parts[1:], strict=False):
        filled += quote(_value(value, event), safe="") + part
    return filled + mark + query


def _body(added: ConnectionParameters, input_text: str) -> str:
    """Return the body: the input, with the connection's parameters where it is an object."""
    if not added.body:
        return input_text
    document = json.loads(input_text)
    return compact({**document, **dict(added.body)}) if isinstance(document, dict) else input_text


def check_answer(answer: Response, added: ConnectionParameters) -> None:
    """Raise TargetError unless an endpoint took the event. What it answers is told without what the connection added."""
    if 200 <= answer.status < 300:
        return
    told = _without(added, answer.body.decode("utf-8", "replace"))[:TOLD_LIMIT]
    retryable = answer.status in RETRIED or answer.status >= 500
    after_ms = retry_after_ms(answer.header("retry-after"))
    raise TargetError(
        f"Unable to invoke ApiDestination endpoint: API destination returned HTTP status {answer.status} with payload: {told}",
        dead_letter_code="THROTTLING" if answer.status == 429 else "ERROR_FROM_TARGET" if answer.status >= 500 else
        "SDK_CLIENT_ERROR",
        retryable=retryable and after_ms >= 0,
        retry_after_ms=max(after_ms, 0),
    )  # fmt: skip


def _without(added: ConnectionParameters, text: str) -> str:
    """Return a text without secrets: some endpoints repeat what they were sent."""
    for _, value in (*added.headers, *added.query, *added.body):
        spellings = {value, value.rpartition(" ")[2], quote(value), quote(value, safe="")}
        for secret in sorted(spellings, key=len, reverse=True):  # The whole before its parts.
            if len(secret) >= SECRET_LEAST:
                text = text.replace(secret, "***")
    return text


def retry_after_ms(header: str | None) -> int:
    """Return what Retry-After asks for, in milliseconds: 0 without one, negative where it says never again.

    Source: RFC 9110, section 10.2.3 (seconds, or a date).
    """
    if header is None:
        return 0
    text = header.strip()
    try:
        return int(float(text) * 1000) if len(text) < 20 else 0
    except (ValueError, OverflowError):
        pass
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError):
        return 0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(int(at.timestamp() * 1000) - clock.now_ms(), 0)


def no_answer(error: OutboundError) -> TargetError:
    """Return what it means for a delivery that there was no answer."""
    message = f"Unable to invoke ApiDestination endpoint: {error}"
    if isinstance(error, TimedOutError):
        return TargetError(message, dead_letter_code="TIMEOUT", retryable=True)
    if isinstance(error, InvalidRequestError):
        return TargetError(message, dead_letter_code="INVALID_PARAMETER", retryable=False)
    final = isinstance(error, DeniedError | UnknownHostError)
    return TargetError(message, dead_letter_code="CONNECTION_FAILURE", retryable=not final)
