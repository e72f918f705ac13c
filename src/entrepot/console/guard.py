"""What stands before every page: the Host header, the session, the CSRF token, and the headers of every answer."""

import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from entrepot import clock
from entrepot.console import visitors
from entrepot.console.visitors import COOKIE, TOUCH_MS, Visitor
from entrepot.database import Database

FORM_LIMIT_BYTES = 64 * 1024
"""A form may be this long."""

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

PUBLIC = ("/login", "/static/")
"""What is shown without a login: the form, and what it looks like."""

_SAFE = frozenset(("GET", "HEAD"))

log = logging.getLogger("entrepot.console")


class Guard:
    """ASGI middleware. Any doubt ends in a refusal."""

    def __init__(self, app: ASGIApp, *, database: Database, login_required: bool, hosts: frozenset[str]) -> None:
        self._app = app
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
        visitor = await self._visitor(request)
        request.state.visitor = visitor
        public = request.url.path.startswith(PUBLIC) or request.url.path == "/login"
        if visitor is None and not public:
            if request.method not in _SAFE:
                return PlainTextResponse("Log in first.\n", 401)
            target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
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
            if len(body) > FORM_LIMIT_BYTES:
                return PlainTextResponse("The form is too long.\n", 413)
        try:
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_LIMIT, errors="strict")
        except ValueError:
            return PlainTextResponse("The form cannot be read.\n", 400)
        request.state.form = {name: values[-1] for name, values in fields.items()}
        site = request.headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none"):
            return PlainTextResponse("The form comes from another site.\n", 403)
        wanted = visitor.csrf_token if visitor is not None else request.cookies.get("entrepot_login", "")
        given = request.state.form.get("csrf_token", "") or request.headers.get("x-csrf-token", "")
        if not wanted or not hmac.compare_digest(wanted.encode(), given.encode()):
            return PlainTextResponse("The form is out of date. Go back, load the page again, and send it again.\n", 403)
        return None

    def _host_is_ours(self, request: Request) -> bool:
        """A page of another site must not reach the console under a name of its own (DNS rebinding)."""
        host = request.headers.get("host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.strip("[]").lower()
        if name in self._hosts or name == "localhost":
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

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


Page = Callable[[Request], Awaitable[Response]]
