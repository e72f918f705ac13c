"""The console's application: routes, listener, and what pages share."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from entrepot import ids
from entrepot.console import pages, render
from entrepot.console.ask import Ask
from entrepot.console.guard import Guard, public_names
from entrepot.console.oidc import Oidc, OidcSettings
from entrepot.console.visitors import Visitor
from entrepot.database import Database
from entrepot.errors import AccessDeniedError, AwsError, StorageError
from entrepot.listener import Listener
from entrepot.operations import Call, Operations, Principal
from entrepot.outbound import Send

STOP_DEADLINE_S = 2.0
"""Pages under way may end within this time; streams are cut."""

VENDOR = render.FOLDER / "static" / "vendor"
"""Where the build puts the scripts of npm packages; without them pages show the same, and do not move."""

NOT_FOUND = frozenset(
    ("ResourceNotFoundException", "ResourceNotFound", "ExecutionDoesNotExist", "StateMachineDoesNotExist", "NoSuchKey")
)
"""Errors of operations that mean: there is no such page."""

log = logging.getLogger("entrepot.console")

Audit = Callable[[Visitor, str, str, str], None]
"""`audit(visitor, source_ip, action, resource)`: one line for every change that somebody makes here."""


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """How the console is reached: `login_required` is what follows from `[console] login` and the address.

    `public_url` is how browsers reach it where that is not its own address; `metrics_token` opens `/metrics` ("" for none).
    """

    host: str
    port: int
    stack_name: str
    login_required: bool
    hosts: frozenset[str] = frozenset()
    public_url: str = ""
    metrics_token: str = ""
    oidc: OidcSettings | None = None


class Console:
    """The console over the operations of a server."""

    def __init__(
        self,
        operations: Operations,
        database: Database,
        settings: ConsoleSettings,
        *,
        principal_for: Callable[[str], Principal],
        audit: Audit,
        exposition: Callable[[], bytes] = lambda: b"",
        send: Send | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self._operations = operations
        self._settings = settings
        self._principal_for = principal_for
        self._audit = audit
        self.port = 0
        self.app = Starlette(
            routes=self._routes(),
            exception_handlers={AwsError: self._failed, StorageError: self._broken, HTTPException: self._missing},
        )
        state = self.app.state
        state.console = self
        state.database = database
        state.login_required = settings.login_required
        state.stack_name = settings.stack_name
        state.public_url = settings.public_url
        state.oidc = Oidc(settings.oidc, send) if settings.oidc is not None and send is not None else None
        state.sections = pages.SECTIONS
        state.vendor = frozenset(path.name for path in VENDOR.glob("*")) if VENDOR.is_dir() else frozenset()
        state.exposition = exposition
        state.more = more or {}
        # Around all of it, so that answers to what nobody expected have the guard's headers, too.
        self.guarded = Guard(
            self.app,
            database=database,
            login_required=settings.login_required,
            hosts=settings.hosts | public_names(settings.public_url),
            metrics_token=settings.metrics_token,
        )
        self._listener = Listener(self.guarded)

    def _routes(self) -> Sequence[BaseRoute]:
        static = StaticFiles(directory=render.FOLDER / "static")
        return [*pages.routes(), Mount("/static", static, name="static")]

    async def start(self) -> str:
        """Listen; return the address. Raises OSError when the port is taken."""
        self.port = await self._listener.start(self._settings.host, self._settings.port)
        missing = [name for name in pages.SCRIPTS if name not in self.app.state.vendor]
        if missing:
            log.info(
                "The console runs without %s: its charts are plain pictures. `make assets` (needs npm) builds them.",
                ", ".join(missing),
            )
        return f"{self._settings.host}:{self.port}"

    async def stop(self) -> None:
        """Stop listening; end what is open."""
        pages.live.close(self.app)
        await self._listener.stop(STOP_DEADLINE_S)

    # ── for pages ────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, request: Request) -> Ask:
        """Return how a page asks, with the rights of its visitor."""
        visitor: Visitor = request.state.visitor
        client = request.client.host if request.client is not None else ""
        call = Call(self._principal_for(visitor.name), ids.random_uuid(), source_ip=client, user_agent="console")
        return Ask(self._operations, call)

    def note(self, request: Request, action: str, resource: str) -> None:
        """Write down that a visitor changes something."""
        client = request.client.host if request.client is not None else ""
        self._audit(request.state.visitor, client, action, resource)

    # ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _failed(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, AwsError)
        status = 403 if isinstance(error, AccessDeniedError) else 404 if error.code in NOT_FOUND else error.status
        return render.page(request, "error.html", status, section="", title=error.code, message=error.message)

    async def _broken(self, request: Request, error: Exception) -> Response:
        return render.page(
            request, "error.html", 503, section="", title="The storage does not answer", message=str(error)
        )

    async def _missing(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        title = "There is no such page" if error.status_code == 404 else "This cannot be done"
        return render.page(request, "error.html", error.status_code, section="", title=title, message=error.detail)
