"""Login and logout."""

import asyncio
import logging
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from entrepot import clock
from entrepot.console import render, visitors
from entrepot.console.pages.forms import field
from entrepot.console.visitors import COOKIE
from entrepot.database import Database

FAILURES_LIMIT = 10
"""Failed logins from one address before it has to wait."""

WAIT_S = 60.0
"""How long an address waits after the limit; it doubles with every further failure, up to an hour."""

ADDRESSES_LIMIT = 10_000

log = logging.getLogger("entrepot.console")


async def form(request: Request) -> Response:
    """The form, with a token of its own."""
    return _form(request, "")


def _form(request: Request, problem: str, status_code: int = 200) -> Response:
    token = visitors.new_token()
    request.state.visitor = None
    answer = render.page(
        request, "login.html", status_code, section="", problem=problem, login_token=token, to=_target(request)
    )
    secure = request.url.scheme == "https"
    answer.set_cookie(
        "entrepot_login", token, max_age=3_600, httponly=True, samesite="strict", secure=secure, path="/login"
    )
    return answer


async def login(request: Request) -> Response:
    """Check the form; begin a session under a token that is new."""
    address = request.client.host if request.client is not None else ""
    failures: dict[str, tuple[int, float]] = request.app.state.more.setdefault("failures", {})
    count, until_s = failures.get(address, (0, 0.0))
    if clock.monotonic_s() < until_s:
        return _form(request, "Too many failed logins from your address. Wait a while.", 429)
    database: Database = request.app.state.database
    name, password, code = field(request, "name"), request.state.form.get("password", ""), field(request, "code")
    known = await database.read(lambda reader: visitors.secrets_of(reader, name))
    nobody = await asyncio.to_thread(visitors.nobody)
    hashed, totp = known or (nobody, "")
    right = await asyncio.to_thread(visitors.check_password, password, hashed) and known is not None
    if right and totp:
        step = visitors.totp_step(totp, code, clock.now_ms() // 1000)
        right = step is not None and await database.write(lambda tx: visitors.use_totp(tx, name, step))
    if not right:
        if len(failures) >= ADDRESSES_LIMIT:
            failures.clear()
        wait_s = min(3_600.0, WAIT_S * 2 ** max(0, count + 1 - FAILURES_LIMIT)) if count + 1 >= FAILURES_LIMIT else 0.0
        failures[address] = (count + 1, clock.monotonic_s() + wait_s)
        log.warning("A login to the console failed: user %r from %s.", name[:100], address)
        return _form(request, "Name, password or code is wrong.", 401)
    failures.pop(address, None)
    token = await database.write(lambda tx: visitors.open_session(tx, name))
    log.info("%s logged in to the console from %s.", name, address)
    answer = RedirectResponse(_target(request), 303)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, path="/")
    answer.delete_cookie("entrepot_login", path="/login")
    return answer


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
    wanted: str = form_fields.get("to", "") or request.query_params.get("to", "")
    parts = urlsplit(wanted)
    inside = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return wanted if inside and "\\" not in wanted and wanted.isprintable() else "/"


ROUTES = [
    Route("/login", form, methods=["GET"], name="login"),
    Route("/login", login, methods=["POST"], name="login_form"),
    Route("/logout", logout, methods=["POST"], name="logout"),
]
