"""What the handlers of forms share."""

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from entrepot.console.ask import Ask


def ask(request: Request) -> Ask:
    """Return how this request's page asks."""
    made: Ask = request.app.state.console.ask(request)
    return made


def field(request: Request, name: str, default: str = "") -> str:
    """Return a field of the form that was sent."""
    value: str = request.state.form.get(name, default)
    return value.strip()


def done(path: str, notice: str) -> Response:
    """Lead on to a page that says what was done."""
    return RedirectResponse(f"{path}{'&' if '?' in path else '?'}{urlencode({'notice': notice})}", 303)
