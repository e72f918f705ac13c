"""What stands before every page: the Host header, the session, the CSRF token, and the headers of every answer."""

import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from entrepot import clock
from entrepot.console import visitors
from entrepot.console.visitors import COOKIE, TOUCH_MS, Visitor
from entrepot.database import Database

FORM_LIMIT_BYTES = 1 << 20
"""A form may be this long; the body of a dashboard is the longest."""

STRANGER_FORM_LIMIT_BYTES = 16 * 1024
"""A form of somebody who has not logged in may be this long."""

FIELDS_LIMIT = 500

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""On every answer. Styles and scripts come from files of our own only, nothing is inline."""

PUBLIC = ("/login/", "/static/")
"""What is shown without a login, besides `/login`: the way through a provider, and what the form looks like."""

METRICS = "/metrics"

_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""Headers of proxies: who comes through one is not on loopback, even if the proxy is."""

_SAFE = frozenset(("GET", "HEAD"))

log = logging.getLogger("entrepot.console")


class Guard:
    """ASGI middleware around the whole application, its errors too. Any doubt ends in a refusal."""

    def __init__(
        self, app: ASGIApp, *, database: Database, login_required: bool, hosts: frozenset[str], metrics_token: str = ""
    ) -> None:
        self._app = app
        self._metrics_token = metrics_token
        self._database = database
        self._login_required = login_required
        self._hosts = hosts
        # Without a login there is still one visitor, whose forms must carry a token that other sites cannot know.
        self._anybody = Visitor("operator", visitors.new_token(), False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in given),
                ]
            await send(message)

        refusal = await self._examine(request)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
        else:
            await self._app(scope, request.receive, send_with_headers)

    async def _examine(self, request: Request) -> Response | None:
        """Put visitor and form into the request's state; return a refusal, or None to go on."""
        if not self._host_is_ours(request):
            return PlainTextResponse(
                "This console does not answer under this name. Use its address, or name the host in [console] hosts.\n",
                421,
            )
        if _is_sub_request_of_another_site(request):
            return PlainTextResponse("The request comes from another site.\n", 403)
        visitor = await self._visitor(request)
        request.state.visitor = visitor
        path = request.scope["path"]
        if visitor is None and path == METRICS and request.method in _SAFE:
            return None if self._may_scrape(request) else _unauthorized()
        if visitor is None and path != "/login" and not path.startswith(PUBLIC):
            if request.method not in _SAFE:
                return PlainTextResponse("Log in first.\n", 401)
            query = urlencode([pair for pair in request.query_params.multi_items() if pair[0] != "notice"])
            target = request.url.path + (f"?{query}" if query else "")
            return RedirectResponse("/login?" + urlencode({"to": target}), 303)
        if request.method in _SAFE:
            return None
        if request.method != "POST":
            return PlainTextResponse("Method not allowed.\n", 405)
        return await self._examine_form(request, visitor)

    async def _examine_form(self, request: Request, visitor: Visitor | None) -> Response | None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            return PlainTextResponse("Forms are sent as application/x-www-form-urlencoded.\n", 415)
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > (FORM_LIMIT_BYTES if visitor is not None else STRANGER_FORM_LIMIT_BYTES):
                return PlainTextResponse("The form is too long.\n", 413)
        try:
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_LIMIT, errors="strict")
        except ValueError:
            return PlainTextResponse("The form cannot be read.\n", 400)
        request.state.form = {name: values[-1] for name, values in fields.items()}
        site = request.headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none"):
            return PlainTextResponse("The form comes from another site.\n", 403)
        if visitor is None or request.scope["path"] == "/login":
            wanted = request.cookies.get("entrepot_login", "")
        else:
            wanted = visitor.csrf_token
        given = request.state.form.get("csrf_token", "") or request.headers.get("x-csrf-token", "")
        if not wanted or not hmac.compare_digest(wanted.encode(), given.encode()):
            return PlainTextResponse("The form is out of date. Go back, load the page again, and send it again.\n", 403)
        return None

    def _host_is_ours(self, request: Request) -> bool:
        """A page of another site must not reach the console under a name of its own (DNS rebinding)."""
        name = _host_name(request)
        if name in self._hosts or name == "localhost":
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _may_scrape(self, request: Request) -> bool:
        """Whether somebody without a login may read the metrics: with the token, or, where there is none, on loopback."""
        if self._metrics_token:
            wanted = f"Bearer {self._metrics_token}".encode()
            return hmac.compare_digest(wanted, request.headers.get("authorization", "").encode())
        if request.client is None or any(name in request.headers for name in _FORWARDED):
            return False
        return _is_loopback(request.client.host) and _is_loopback(_host_name(request))

    async def _visitor(self, request: Request) -> Visitor | None:
        if not self._login_required:
            return self._anybody
        token = request.cookies.get(COOKIE, "")
        if not token or len(token) > 200:
            return None
        found = await self._database.read(lambda reader: visitors.find_session(reader, token))
        if found is None:
            return None
        visitor, used_at_ms = found
        if clock.now_ms() - used_at_ms > TOUCH_MS:
            await self._database.write(lambda tx: visitors.touch_session(tx, token))
        return visitor


def public_names(public_url: str) -> frozenset[str]:
    """Return the name in the address under which a proxy shows the console; none without an address."""
    name = urlsplit(public_url).hostname
    return frozenset() if name is None else frozenset((name.lower(),))


def _host_name(request: Request) -> str:
    """Return the name or address in the Host header, in lower case, without its port."""
    host = request.headers.get("host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name.strip("[]").lower()


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _is_sub_request_of_another_site(request: Request) -> bool:
    """Whether a page elsewhere makes the browser ask, as for an image: links from elsewhere are fine, their pages are seen."""
    headers = request.headers
    return headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode", "navigate") != "navigate"


def _unauthorized() -> Response:
    return PlainTextResponse(
        "Metrics are for loopback, or for who sends the token of [console] metrics_token_file.\n",
        401,
        {"www-authenticate": "Bearer"},
    )


Page = Callable[[Request], Awaitable[Response]]
