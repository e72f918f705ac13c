"""A request and its answer, and the type of what sends them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

RESPONSE_LIMIT_BYTES = 262_144
"""Bytes of an answer's body that are read, unless a request says otherwise."""

TIMEOUT_S = 5.0
"""Time for the whole exchange, unless a request says otherwise."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `headers` need no Host and no Content-Length.

    `timeout_s` is for everything, from the look-up of the name to the last byte that is read.
    """

    method: str
    url: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    timeout_s: float = TIMEOUT_S
    response_limit_bytes: int = RESPONSE_LIMIT_BYTES


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. `is_whole` is False when its body was longer than the request's limit: `body` is then the beginning."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_whole: bool

    def header(self, name: str) -> str | None:
        """Return the first header of a name, in whatever case."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)


Send: TypeAlias = Callable[[Request], Awaitable[Response]]
"""`send(request)`: exchanges one request; raises OutboundError."""
