"""Sessions: who is connected, what they transfer, and who was."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot.console import render
from entrepot.console.pages.forms import ask, done, field

ENDED_SHOWN = 50
"""Ended sessions on the page, the newest."""


async def sessions(request: Request) -> Response:
    """The page."""
    return render.page(request, "sessions.html", section="sessions", **await gathered(request))


async def fragment(request: Request) -> Response:
    """The tables alone, for their refreshing."""
    return render.page(request, "sessions_tables.html", section="sessions", **await gathered(request))


async def gathered(request: Request) -> dict[str, Any]:
    """Return the sessions, of one user when the address names one."""
    found = (await ask(request)("entrepot", "ListSessions", live=False))["sessions"]
    live_ones = (await ask(request)("entrepot", "ListSessions", live=True))["sessions"]
    user = request.query_params.get("user", "").strip()
    ended = [session for session in found if "closed_at" in session]
    if user:
        live_ones = [session for session in live_ones if session["user_name"] == user]
        ended = [session for session in ended if session["user_name"] == user]
    return {"live_sessions": live_ones, "ended": ended[:ENDED_SHOWN], "user": user, "more": len(ended) > ENDED_SHOWN}


async def disconnect(request: Request) -> Response:
    """End a session."""
    session_id = field(request, "session_id")
    request.app.state.console.note(request, "DisconnectSession", session_id)
    await ask(request)("entrepot", "DisconnectSession", session_id=session_id)
    return done("/sessions", "The session is disconnected.")


ROUTES = [
    Route("/sessions", sessions, name="sessions"),
    Route("/fragments/sessions", fragment, name="sessions_fragment"),
    Route("/sessions/disconnect", disconnect, methods=["POST"], name="session_disconnect"),
]
