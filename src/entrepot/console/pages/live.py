"""Server-sent events: a page is told that something changed, and fetches the part that shows it.

A stream says only "changed"; what is shown comes from the page's own fragment, through the same gate as the page. One look at
the ledger every second serves every open page.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from entrepot.console.pages.forms import ask

INTERVAL_S = 1.0
"""How often a stream looks whether anything changed."""

STREAMS_LIMIT = 200
"""Open streams, at most."""

SILENCE_S = 15.0
"""A comment is sent after this long, so that a gone browser is noticed."""


async def stream(request: Request) -> Response:
    """Answer with events until the browser goes."""
    state = request.app.state
    if getattr(state, "streams", 0) >= STREAMS_LIMIT:
        return PlainTextResponse("Too many pages are open.\n", 503)
    return StreamingResponse(_events(request), media_type="text/event-stream")


async def _events(request: Request) -> AsyncIterator[bytes]:
    state = request.app.state
    state.streams = getattr(state, "streams", 0) + 1
    asking = ask(request)
    known: Any = None
    silent_s = 0.0
    try:
        yield b"retry: 3000\n\n"
        while not getattr(state, "closing", False):
            seen = await asking("entrepot", "GetStatus")
            mark = (seen["files"], seen["sessions"], seen["pending_deliveries"])
            if known is not None and mark != known:
                silent_s = 0.0
                yield b"event: changed\ndata: \n\n"
            elif silent_s >= SILENCE_S:
                silent_s = 0.0
                yield b": here\n\n"
            known = mark
            silent_s += INTERVAL_S
            await asyncio.sleep(INTERVAL_S)
    finally:
        state.streams -= 1


def close(app: Starlette) -> None:
    """End every stream."""
    app.state.closing = True


ROUTES = [Route("/events", stream, name="events")]
