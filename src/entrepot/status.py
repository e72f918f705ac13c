"""The operations of Entrepot's own API that are about the server as a whole: GetStatus, ListSessions, DisconnectSession."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from entrepot import clock
from entrepot.composition import Composition
from entrepot.operations import AsyncOperation, Call, Operation, Permission, Permissions, Request, Response
from entrepot.services.files.errors import ResourceNotFoundError
from entrepot.services.transfer import Session

SESSIONS_LIMIT = 1000
"""ListSessions answers with at most this many, the newest."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running server answers."""

    sftp: str
    api: str
    console: str = ""

    def ready_line(self) -> str:
        """Return the line that `up` prints when the server serves."""
        return f"ready sftp={self.sftp} api={self.api}"


async def _functions(rooms: Composition) -> Response:
    """Return what GetStatus tells about functions."""
    statistics = rooms.lambda_.pool.statistics()
    queued, oldest_at_ms = await rooms.database.read(rooms.lambda_.async_invocations.backlog)
    return {
        "workers": statistics.workers,
        "busy": statistics.busy,
        "waiting": statistics.waiting,
        "oldest_age_ms": int(statistics.oldest_age_s * 1000),
        "queued": queued,
        "oldest_queued_age_ms": max(0, clock.now_ms() - oldest_at_ms) if queued else 0,
        "by_function": [
            dict(zip(("name", "idle", "busy", "starting", "waiting"), (name, *counts), strict=True))
            for name, counts in rooms.lambda_.pool.all_counts().items()
        ],
        "missing_isolation": [str(gap) for gap in rooms.lambda_.pool.isolation.gaps],
    }


def operations(rooms: Composition, addresses: Callable[[], Addresses], started_at_ms: int) -> list[Operation]:
    """Return the operations about a server; `addresses` is asked when somebody asks."""

    def permit(action: str) -> Permissions:
        resource = rooms.account.arn("entrepot", "server")
        return lambda _: (Permission(f"entrepot:{action}", resource),)

    async def get_status(request: Request, call: Call) -> Response:
        """GetStatus: since when, where, and how much of what there is."""
        return {
            "started_at": clock.from_ms(started_at_ms),
            "pid": os.getpid(),
            "sftp": addresses().sftp,
            "api": addresses().api,
            "files": await rooms.database.scan(rooms.files.count_by_status),
            "sessions": len(await rooms.transfer.live_sessions()),
            "pending_deliveries": await rooms.database.read(rooms.events.count_pending),
            "dead_letters": await rooms.database.read(rooms.events.count_dead_letters),
            "dropped_log_lines": rooms.logs.statistics().dropped,
            "functions": await _functions(rooms),
        }

    async def list_sessions(request: Request, call: Call) -> Response:
        """ListSessions: who is connected; with `live` false, ended sessions too."""
        transfer = rooms.transfer
        found = await (transfer.live_sessions() if request.get("live", True) else transfer.sessions(SESSIONS_LIMIT))
        return {"sessions": [_session(rooms, session) for session in found]}

    async def disconnect_session(request: Request, call: Call) -> Response:
        """DisconnectSession: end a live session; what it uploads is not published."""
        if not await rooms.transfer.disconnect(request["session_id"]):
            raise ResourceNotFoundError(f"No session {request['session_id']} is connected.")
        return {}

    return [
        AsyncOperation("GetStatus", permit("GetStatus"), get_status),
        AsyncOperation("ListSessions", permit("ListSessions"), list_sessions),
        AsyncOperation("DisconnectSession", permit("DisconnectSession"), disconnect_session),
    ]


def _session(rooms: Composition, session: Session) -> Response:
    """Return a session; of one that lives in this process, what it did until now and what it transfers."""
    start, totals = session.start, session.totals
    shown: Response = {
        "session_id": start.session_id,
        "user_name": start.user_name,
        "source_ip": start.source_ip,
        "client_version": start.client,
        "key_fingerprint": start.key_fingerprint,
        "login_at": clock.from_ms(start.logged_in_at_ms),
    }
    if session.closed_at_ms is not None:
        shown |= {"closed_at": clock.from_ms(session.closed_at_ms), "reason": session.reason or ""}
    elif (activity := rooms.transfer.activity_of(start.session_id)) is not None:
        totals = activity.totals
        shown["transfers"] = [
            {"path": file.path, "direction": file.direction, "bytes_done": file.bytes_done} for file in activity.files
        ]
    return shown | {
        "bytes_in": totals.bytes_in,
        "bytes_out": totals.bytes_out,
        "files_in": totals.files_in,
        "files_out": totals.files_out,
    }
