"""The operations of Entrepot's own API that are about the server as a whole: GetStatus and ListSessions."""

import os
from typing import TYPE_CHECKING

from entrepot import clock
from entrepot.operations import AsyncOperation, Call, Operation, Permission, Permissions, Request, Response

if TYPE_CHECKING:
    from entrepot.server import Server

SESSIONS_LIMIT = 1000
"""ListSessions answers with at most this many, the newest."""


def operations(server: "Server") -> list[Operation]:
    """Return the server's own operations."""

    def permit(action: str) -> Permissions:
        resource = server.rooms.account.arn("entrepot", "server")
        return lambda _: (Permission(f"entrepot:{action}", resource),)

    async def get_status(request: Request, call: Call) -> Response:
        """GetStatus: since when, where, and how much of what there is."""
        rooms = server.rooms
        return {
            "started_at": clock.from_ms(server.started_at_ms),
            "pid": os.getpid(),
            "sftp": server.addresses.sftp,
            "api": server.addresses.api,
            "files": await rooms.database.scan(rooms.files.count_by_status),
            "sessions": len(await rooms.transfer.live_sessions()),
            "pending_deliveries": await rooms.database.read(rooms.events.count_pending),
            "dead_letters": await rooms.database.read(rooms.events.count_dead_letters),
            "dropped_log_lines": rooms.logs.statistics().dropped,
        }

    async def list_sessions(request: Request, call: Call) -> Response:
        """ListSessions: who is connected; with `live` false, ended sessions too."""
        transfer = server.rooms.transfer
        found = await (transfer.live_sessions() if request.get("live", True) else transfer.sessions(SESSIONS_LIMIT))
        return {
            "sessions": [
                {
                    "session_id": session.start.session_id,
                    "user_name": session.start.user_name,
                    "source_ip": session.start.source_ip,
                    "client_version": session.start.client,
                    "login_at": clock.from_ms(session.start.logged_in_at_ms),
                    **({"closed_at": clock.from_ms(session.closed_at_ms)} if session.closed_at_ms else {}),
                    "bytes_in": session.totals.bytes_in,
                    "bytes_out": session.totals.bytes_out,
                    "files_in": session.totals.files_in,
                    "files_out": session.totals.files_out,
                }
                for session in found
            ]
        }

    return [
        AsyncOperation("GetStatus", permit("GetStatus"), get_status),
        AsyncOperation("ListSessions", permit("ListSessions"), list_sessions),
    ]
