"""A URL taken apart for the wire. Source: RFC 3986."""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from entrepot.outbound.errors import InvalidRequestError

URL_LIMIT = 8192
"""Characters of a URL."""

_PORTS = {"http": 80, "https": 443}
_SAFE = "/?%:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes. `host` is ASCII (a name, or an address without brackets), `target` path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse(url: str) -> Place:
    """Take a URL apart; raise InvalidRequestError."""
    if len(url) > URL_LIMIT:
        raise InvalidRequestError(f"A URL has {len(url)} characters; at most {URL_LIMIT} can be sent.")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
        target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        # Without their query: it may hold a secret.
        if parts.scheme not in _PORTS or not host or parts.username is not None or any(ord(c) < 33 for c in url):
            raise InvalidRequestError(
                f"{parts.scheme[:20]}://{host[:200]} cannot be called: a URL is http:// or https://, with a host, without a "
                "user, spaces or control characters."
            )
        host = host if host.isascii() else host.encode("idna").decode()
    except (ValueError, UnicodeError):
        raise InvalidRequestError("A URL is malformed; it cannot be called.") from None
    return Place(parts.scheme, host, _PORTS[parts.scheme] if port is None else port, target)
