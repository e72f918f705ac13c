"""Login and logout."""

import asyncio
import hmac
import ipaddress
import logging
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from entrepot import clock
from entrepot.console import render, visitors
from entrepot.console.oidc import CODE_LIMIT_CHARS, Attempt, Oidc, OidcError, carried
from entrepot.console.pages.forms import field
from entrepot.console.visitors import COOKIE
from entrepot.database import Database, Transaction

FAILURES_LIMIT = 10
"""Failed logins from one address before it has to wait."""

WAIT_S = 60.0
WAIT_LIMIT_S = 3_600.0
"""How long an address waits after the limit; it doubles with every further failure, up to an hour."""

CHECKS_AT_ONCE = 2
"""Passwords that are checked at the same time: each takes 32 MiB."""

ADDRESSES_LIMIT = 10_000

OIDC_COOKIE = "entrepot_oidc"

log = logging.getLogger("entrepot.console")


async def form(request: Request) -> Response:
    """The form, with a token of its own."""
    return _form(request, "")


def _form(request: Request, problem: str, status_code: int = 200) -> Response:
    token = visitors.new_token()
    request.state.visitor = None
    answer = render.page(
        request,
        "login.html",
        status_code,
        section="",
        problem=problem,
        login_token=token,
        to=_target(request),
        provider=request.app.state.oidc is not None,
    )
    answer.set_cookie(
        "entrepot_login",
        token,
        max_age=3_600,
        httponly=True,
        samesite="strict",
        secure=_is_secure(request),
        path="/login",
    )
    return answer


async def login(request: Request) -> Response:
    """Check the form; begin a session under a token that is new."""
    address = _address(request)
    failures: Failures = request.app.state.more.setdefault("failures", Failures())
    if failures.waits(address):
        return _form(request, "Too many failed logins from your address. Wait a while.", 429)
    failures.count(address)  # before it is known, so that many at the same time are no way around
    name = field(request, "name")
    checking: asyncio.Semaphore = request.app.state.more.setdefault("checking", asyncio.Semaphore(CHECKS_AT_ONCE))
    async with checking:
        right = await _check(
            request.app.state.database, name, request.state.form.get("password", ""), field(request, "code")
        )
    if not right:
        log.warning("A login to the console failed: user %r from %s.", name[:100], address)
        return _form(request, "Name, password or code is wrong.", 401)
    failures.forget(address)
    token = await _open_session(request, name)
    log.info("%s logged in to the console from %s.", name, address)
    answer = RedirectResponse(_target(request), 303)
    _set_session(request, answer, token)
    answer.delete_cookie("entrepot_login", path="/login")
    return answer


async def _check(database: Database, name: str, password: str, code: str) -> bool:
    """Whether a user has this password and this one-time code; takes as long for a user that is not known."""
    known = await database.read(lambda reader: visitors.secrets_of(reader, name))
    nobody = await asyncio.to_thread(visitors.nobody)
    hashed, totp = known or (nobody, "")
    right = await asyncio.to_thread(visitors.check_password, password, hashed) and known is not None
    if right and totp:
        step = visitors.totp_step(totp, code, clock.now_ms() // 1000)
        right = step is not None and await database.write(lambda tx: visitors.use_totp(tx, name, step))
    return right


class Failures:
    """Logins that failed, by address: after some, an address has to wait, longer every time. In memory, and bounded."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float]] = {}

    def waits(self, address: str) -> bool:
        """Whether an address has to wait now."""
        return clock.monotonic_s() < self._known.get(_network(address), (0, 0.0))[1]

    def count(self, address: str) -> None:
        """Count an attempt."""
        network = _network(address)
        count = self._known.pop(network, (0, 0.0))[0] + 1
        if len(self._known) >= ADDRESSES_LIMIT:
            del self._known[next(iter(self._known))]
        wait_s = WAIT_S * 2 ** min(count - FAILURES_LIMIT, 6) if count >= FAILURES_LIMIT else 0.0
        self._known[network] = (count, clock.monotonic_s() + min(wait_s, WAIT_LIMIT_S))

    def forget(self, address: str) -> None:
        """Forget an address, which has logged in."""
        self._known.pop(_network(address), None)


def _network(address: str) -> str:
    """Return what one party has for itself: an IPv4 address, or 64 bits of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


async def _open_session(request: Request, name: str) -> str:
    """Begin a session, and end the one that the browser had; return its token."""
    database: Database = request.app.state.database
    former = request.cookies.get(COOKIE, "")

    def replace(tx: Transaction) -> str:
        visitors.close_session(tx, former)
        return visitors.open_session(tx, name)

    return await database.write(replace)


def _set_session(request: Request, answer: Response, token: str) -> None:
    """Put a session's token where scripts and other sites do not reach it."""
    answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=_is_secure(request), path="/")


def _is_secure(request: Request) -> bool:
    """Whether browsers reach the console through TLS."""
    public_url: str = request.app.state.public_url
    return request.url.scheme == "https" or public_url.startswith("https:")


# ── through a provider ───────────────────────────────────────────────────────────────────────────────────────────────


async def provider(request: Request) -> Response:
    """Send the browser to the provider; a cookie keeps what must come back."""
    oidc: Oidc | None = request.app.state.oidc
    if oidc is None:
        raise HTTPException(404, "No provider is configured.")
    attempt = Attempt.begin(_target(request))
    try:
        url = await oidc.login_url(attempt, _redirect_uri(request))
    except OidcError as error:
        log.error("The login provider cannot be used: %s", error)
        return _form(request, "The login provider does not answer as it should; the server's log says more.", 502)
    answer = RedirectResponse(url, 303)
    # Lax, because the provider's answer is a navigation from another site.
    answer.set_cookie(
        OIDC_COOKIE,
        attempt.as_cookie(),
        max_age=600,
        httponly=True,
        samesite="lax",
        secure=_is_secure(request),
        path="/login/oidc",
    )
    return answer


async def callback(request: Request) -> Response:
    """Take the provider's answer; begin a session for whoever may come in."""
    oidc: Oidc | None = request.app.state.oidc
    if oidc is None:
        raise HTTPException(404, "No provider is configured.")
    query = request.query_params
    attempt, address = carried(request.cookies.get(OIDC_COOKIE, "")), _address(request)
    if attempt is None or not hmac.compare_digest(query.get("state", "").encode(), attempt.state.encode()):
        return _without_attempt(_form(request, "This login was not begun here, or took too long. Try again.", 403))
    code = query.get("code", "")
    if not code or len(code) > CODE_LIMIT_CHARS:
        log.warning("The provider refused a login to the console from %s: %.200r.", address, query.get("error", ""))
        return _without_attempt(_form(request, "The login provider did not let you in.", 403))
    try:
        name = await oidc.finish(attempt, code, _redirect_uri(request))
    except OidcError as error:
        log.warning("A login to the console through the provider failed, from %s: %s", address, error)
        return _without_attempt(_form(request, "You may not log in here; the server's log says why.", 403))
    token = await _open_session(request, name)
    log.info("%s logged in to the console through the provider from %s.", name, address)
    # Not a redirect: the browser would follow one without the cookie, which is for navigations within this site only.
    request.state.visitor = None
    answer = render.page(request, "welcome.html", section="", to=_inside(attempt.target))
    _set_session(request, answer, token)
    return _without_attempt(answer)


def _without_attempt(answer: Response) -> Response:
    answer.delete_cookie(OIDC_COOKIE, path="/login/oidc")
    return answer


def _redirect_uri(request: Request) -> str:
    base = request.app.state.public_url or f"{request.url.scheme}://{request.headers['host']}"
    return f"{base}/login/oidc/callback"


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def logout(request: Request) -> Response:
    """End the session."""
    token = request.cookies.get(COOKIE, "")
    if token:
        await request.app.state.database.write(lambda tx: visitors.close_session(tx, token))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/")
    return answer


def _target(request: Request) -> str:
    """Return where to go after the login: a page of the console, never elsewhere."""
    form_fields = getattr(request.state, "form", {})
    return _inside(form_fields.get("to", "") or request.query_params.get("to", ""))


def _inside(wanted: str) -> str:
    """Return an address if it is one of the console, else that of its first page."""
    parts = urlsplit(wanted)
    inside = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return wanted if inside and "\\" not in wanted and wanted.isprintable() else "/"


ROUTES = [
    Route("/login", form, methods=["GET"], name="login"),
    Route("/login", login, methods=["POST"], name="login_form"),
    Route("/login/oidc", provider, methods=["GET"], name="login_provider"),
    Route("/login/oidc/callback", callback, methods=["GET"], name="login_callback"),
    Route("/logout", logout, methods=["POST"], name="logout"),
]
