"""The client: two pools of connections (with TLS and without), and the limits on all of them together."""

import asyncio
import ssl
from pathlib import Path

import certifi
import httpcore

from entrepot.outbound import url
from entrepot.outbound.errors import ConnectionFailedError, InvalidRequestError, OutboundError, TimedOutError
from entrepot.outbound.messages import Request, Response
from entrepot.outbound.network import PolicedNetwork
from entrepot.outbound.policy import Policy

CONNECTIONS_LIMIT = 64
"""Connections of one pool; more requests wait for one, within their own time."""

IDLE_CONNECTIONS_LIMIT = 16
"""Connections that are kept for the next request."""

IDLE_LIMIT_S = 30.0
"""How long they are kept."""

REQUEST_LIMIT_BYTES = 8 << 20
"""Bytes of a request's body. Callers have lower limits of their own."""

USER_AGENT = "Entrepot"


class Outbound:
    """Sends requests to the outside. Make one, share it, `close` it."""

    def __init__(self, policy: Policy | None = None, *, ca_file: Path | None = None) -> None:
        """`ca_file` holds certificates (PEM) of authorities that are trusted besides the system's."""
        self._policy = policy or Policy.of()
        self._ca_file = ca_file
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}
        self._networks: list[PolicedNetwork] = []

    async def send(self, request: Request) -> Response:
        """Exchange one request; raise OutboundError when there is no answer.

        Any status is an answer. A redirect is returned, not followed.
        """
        place = url.parse(request.url)
        if len(request.body) > REQUEST_LIMIT_BYTES:
            raise InvalidRequestError(f"A request to {place.host} has a body of {len(request.body)} bytes: too large.")
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._exchange(place, request)
        except (TimeoutError, httpcore.TimeoutException):
            raise TimedOutError(f"{place.host} did not answer within {request.timeout_s:g} s.") from None
        except (httpcore.LocalProtocolError, UnicodeEncodeError):  # Its text quotes the header, which may be a secret.
            raise InvalidRequestError(f"A request to {place.host} has a malformed method or header.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError, OSError) as error:
            raise ConnectionFailedError(
                f"The exchange with {place.host} failed: {error or type(error).__name__}."
            ) from error

    async def close(self) -> None:
        """Close all connections."""
        pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            await pool.aclose()
        while self._networks:
            self._networks.pop().close()

    async def _exchange(self, place: url.Place, request: Request) -> Response:
        pool = await self._pool(place.scheme)
        async with pool.stream(
            request.method.encode("ascii"),
            httpcore.URL(
                scheme=place.scheme.encode(), host=place.host.encode(), port=place.port, target=place.target.encode()
            ),
            headers=_headers(place, request),
            content=request.body or None,
        ) as answer:
            chunks: list[bytes] = []
            size_bytes = 0
            is_whole = True
            async for chunk in answer.aiter_stream():
                chunks.append(chunk)
                size_bytes += len(chunk)
                if size_bytes > request.response_limit_bytes:
                    is_whole = False
                    break  # What follows is not read; the connection is closed.
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers)
            reason = answer.extensions.get("reason_phrase", b"").decode("latin-1")
            body = b"".join(chunks)[: request.response_limit_bytes]
            return Response(answer.status, reason, headers, body, is_whole)

    async def _pool(self, scheme: str) -> httpcore.AsyncConnectionPool:
        if scheme not in self._pools:
            tls = scheme == "https"
            # Reading the authorities takes some tens of milliseconds.
            context = await asyncio.to_thread(self._tls_context) if tls else None
            if scheme not in self._pools:
                network = PolicedNetwork(self._policy, tls=tls)
                self._networks.append(network)
                self._pools[scheme] = httpcore.AsyncConnectionPool(
                    ssl_context=context,
                    max_connections=CONNECTIONS_LIMIT,
                    max_keepalive_connections=IDLE_CONNECTIONS_LIMIT,
                    keepalive_expiry=IDLE_LIMIT_S,
                    network_backend=network,
                )
        return self._pools[scheme]

    def _tls_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context()
            context.load_verify_locations(cafile=certifi.where())
            if self._ca_file is not None:
                context.load_verify_locations(cafile=self._ca_file)
        except OSError as error:
            raise OutboundError(f"The trusted authorities ({self._ca_file}) cannot be read: {error}.") from error
        return context


def _headers(place: url.Place, request: Request) -> list[tuple[bytes, bytes]]:
    """Return the headers for the wire: the caller's, and what HTTP needs where the caller does not say it."""
    given = {name.lower() for name, _ in request.headers}
    headers = [(name, value) for name, value in request.headers if name.lower() not in _OWN]
    if "user-agent" not in given:
        headers.append(("User-Agent", USER_AGENT))
    headers.append(("Host", place.authority))
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        headers.append(("Content-Length", str(len(request.body))))
    return [(name.encode("ascii"), value.encode("utf-8")) for name, value in headers]


_OWN = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"})
"""Headers that say how a message is sent; the client alone writes them."""
