"""Access tokens of the OAuth client credentials grant, kept until shortly before they expire, in memory only.

Source: RFC 6749, section 4.4; when tokens are renewed:
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-target-connection-auth.html
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from entrepot import clock
from entrepot.outbound import OutboundError, Request, Response, Send
from entrepot.services.events.errors import TargetError

TOKENS_LIMIT = 1000
"""Tokens that are kept; of more, the oldest are asked for anew."""

EXPIRES_BEFORE_S = 60
"""A token that expires so soon is renewed before it is used."""

EXPIRES_DEFAULT_S = 300
"""How long a token is kept whose server does not say how long it is valid."""

EXPIRES_LIMIT_S = 86_400
"""How long a token is kept at most."""

TOKEN_LIMIT = 16_384
"""Characters of a token."""

ANSWER_LIMIT_BYTES = 65_536
"""Bytes of the authorization endpoint's answer."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token. `kind` stands before it in the Authorization header (`Bearer`)."""

    kind: str
    text: str
    expires_at_s: float


class Tokens:
    """Tokens by the version of the connection that they are for."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._tokens: dict[str, Token] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def token(self, version: str, parameters: Mapping[str, Any], *, renew: bool) -> Token:
        """Return a token for OAuthParameters with their secrets; raise TargetError. `renew`: not the one that is kept."""
        before = self._tokens.get(version)
        if not renew and before is not None and before.expires_at_s > clock.monotonic_s():
            return before
        lock = self._locks.setdefault(version, asyncio.Lock())
        async with lock:  # Many deliveries that need the same token ask once.
            kept = self._tokens.get(version)
            if kept is None or kept is before or kept.expires_at_s <= clock.monotonic_s():
                kept = await self._ask(parameters)
                self._tokens.pop(version, None)
                self._tokens[version] = kept
                for oldest in list(self._tokens)[:-TOKENS_LIMIT]:
                    del self._tokens[oldest]
        if not lock.locked():
            self._locks.pop(version, None)
        return kept

    async def _ask(self, parameters: Mapping[str, Any]) -> Token:
        try:
            answer = await self._send(_request(parameters))
        except OutboundError as error:
            raise _refused(f"The authorization endpoint gave no answer: {error}") from None
        if not 200 <= answer.status < 300:
            raise _refused(f"The authorization endpoint answered with HTTP status {answer.status}.")
        return _token(answer)


def _refused(reason: str) -> TargetError:
    # The connection may be mended while the event waits.
    return TargetError(reason, dead_letter_code="NO_PERMISSIONS", retryable=True)


def _parameters(given: Mapping[str, Any], kind: str) -> dict[str, str]:
    entries = (given.get("OAuthHttpParameters") or {}).get(kind) or ()
    return {entry["Key"]: entry.get("Value") or "" for entry in entries if entry.get("Key")}


def _request(parameters: Mapping[str, Any]) -> Request:
    """Return the request for a token: a form, or JSON where the connection's headers say so; with GET all in the query."""
    client = parameters["ClientParameters"]
    headers, query = _parameters(parameters, "HeaderParameters"), _parameters(parameters, "QueryStringParameters")
    form = {
        "grant_type": "client_credentials",
        "client_id": client["ClientID"],
        "client_secret": client["ClientSecret"],
        **_parameters(parameters, "BodyParameters"),
    }
    named = {name.lower(): value for name, value in headers.items()}
    url, body = parameters["AuthorizationEndpoint"], b""
    if parameters["HttpMethod"] == "GET":
        query |= form
    else:
        kind = named.get("content-type", "application/x-www-form-urlencoded")
        body = (json.dumps(form) if "json" in kind else urlencode(form)).encode()
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        headers["Content-Type"] = kind
    if query:
        url += ("&" if "?" in url else "?") + urlencode(query)
    if "accept" not in named:
        headers["Accept"] = "application/json"
    return Request(parameters["HttpMethod"], url, tuple(headers.items()), body, response_limit_bytes=ANSWER_LIMIT_BYTES)


def _token(answer: Response) -> Token:
    """Return the token of an answer. Source: RFC 6749, section 5.1."""
    try:
        document = json.loads(answer.body)
        text, kind = document["access_token"], document.get("token_type") or "Bearer"
        expires_in_s = float(document.get("expires_in") or EXPIRES_DEFAULT_S)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _refused("The authorization endpoint's answer has no access token.") from None
    if not isinstance(text, str) or not isinstance(kind, str) or not 0 < len(text) <= TOKEN_LIMIT:
        raise _refused("The authorization endpoint's answer has no access token.")
    valid_s = min(max(expires_in_s - EXPIRES_BEFORE_S, 1.0), EXPIRES_LIMIT_S) if expires_in_s == expires_in_s else 1.0
    return Token("Bearer" if kind.lower() == "bearer" else kind, text, clock.monotonic_s() + valid_s)
