"""From a connection to a session: who may log in, and what begins and ends with it.

An unknown user takes the same path as a known one: the same look-ups, one comparison for each key there is, the same
answer.
"""

import asyncio
import base64
import binascii
import hmac
import logging
import random
from collections.abc import Coroutine
from typing import Any, Final, cast

import asyncssh
from asyncssh.constants import DISC_TOO_MANY_CONNECTIONS

from entrepot import clock, ids
from entrepot.database import Reader
from entrepot.errors import StorageError
from entrepot.services.transfer import Activity, SessionStart, User
from entrepot.services.transfer import sessions as session_rows
from entrepot.services.transfer.public_keys import fingerprint_of
from entrepot.services.transfer.users import USER_NAME
from entrepot.sftp.admission import Admission, Offence, Refusal
from entrepot.sftp.channel import Channel, UserLoad
from entrepot.sftp.connection import Connection
from entrepot.sftp.session import ERROR_STREAM, Peer, Session, Site

logger = logging.getLogger(__name__)

NO_KEY: Final = base64.b64encode(bytes(51)).decode()
"""Compared where a user has no key, so that it takes the same steps."""

REFUSALS_LOGGED_PER_S: Final = 1
"""Refused connections beyond this rate are counted, not logged one by one: the log is not for attackers to fill."""

CLIENT_LIMIT_CHARACTERS: Final = 128


class Gate:
    """What all connections share: admission, the live logins, and the tasks that outlive a connection."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.admission = Admission(site.settings, clock.monotonic_s, random.SystemRandom().random)
        self.logins: dict[str, Login] = {}
        self.connections: set[Login] = set()
        self._loads: dict[str, UserLoad] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused = 0
        self._refusal_logged_s = 0.0

    def arrive(self, address: str) -> Refusal | None:
        """Count a connection in, or say why it is refused, and log that at a bounded rate."""
        refusal = self.admission.arrive(address)
        if refusal is not None:
            self._refused += 1
            now_s = clock.monotonic_s()
            if now_s - self._refusal_logged_s >= 1 / REFUSALS_LOGGED_PER_S:
                self._refusal_logged_s = now_s
                members = {
                    "activity-type": "ERROR",
                    "message": f"Connection refused: {refusal.value}",
                    "source-ip": address,
                    "refused-since-last-line": self._refused,
                    "resource-arn": self.site.transfer.server_arn,
                }
                self._refused = 0
                self.site.log(ERROR_STREAM, members)
        return refusal

    def run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task that `wait_for_tasks` waits for."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait_for_tasks(self, timeout_s: float) -> None:
        """Wait for all tasks, at most so long."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    def load_of(self, user_name: str) -> UserLoad:
        """Return what the user's sessions have queued; `release_load` it."""
        load = self._loads.setdefault(user_name, UserLoad())
        load.sessions += 1
        return load

    def release_load(self, user_name: str) -> None:
        """Count a session of the user out."""
        load = self._loads[user_name]
        load.sessions -= 1
        if load.sessions == 0:
            del self._loads[user_name]


class Login(asyncssh.SSHServer):
    """asyncssh's view of one connection's owner: authentication, then the session."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.session: Session | None = None
        self.channels: list[Channel] = []
        self._connection: Connection | None = None
        self._validated: tuple[User, str, str] | None = None
        self._end_reason = ""
        self._logged_in = False

    # ── what asyncssh calls ──────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = cast(Connection, conn)
        self.gate.connections.add(self)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Return whether the key is one of the user's."""
        data = key.public_data
        known_name = USER_NAME.fullmatch(username) is not None
        looked_up = username if known_name else "-"
        user = await self._find(looked_up)
        bodies = [stored.body for stored in user.ssh_public_keys] if user is not None else []
        matches = False
        for body in bodies or [f"ssh-ed25519 {NO_KEY}"]:
            matches |= hmac.compare_digest(_key_data(body), data)
        if user is None or not matches:
            self._log_refused(username, key)
            return False
        self._validated = (user, key.get_algorithm(), fingerprint_of(data))
        return True

    async def _find(self, user_name: str) -> User | None:
        """Look the user up; whatever goes wrong means no."""
        transfer = self.gate.site.transfer

        def find(reader: Reader) -> User | None:
            return transfer.find_user(reader, user_name)

        try:
            return await transfer.database.read(find)
        except StorageError:
            logger.exception("Users could not be looked up; logins are refused")
            return None

    def _log_refused(self, username: str, key: asyncssh.SSHKey) -> None:
        assert self._connection is not None
        self.gate.site.log(
            ERROR_STREAM,
            {
                "activity-type": "AUTH_FAILURE",
                "method": "publickey",
                "user": printable(username),
                "source-ip": self._connection.address,
                "client": self._client(),
                "message": f"{key.get_algorithm()} {fingerprint_of(key.public_data)}",
                "resource-arn": self.gate.site.transfer.server_arn,
            },
        )

    async def auth_completed(self) -> None:
        """Begin the session: authentication has succeeded."""
        connection = self._connection
        assert connection is not None
        self._logged_in = True
        self.gate.admission.logged_in()
        if self._validated is None or self._validated[0].user_name != connection.get_extra_info("username"):
            connection.abort()
            return
        user, key_type, fingerprint = self._validated
        site, transfer = self.gate.site, self.gate.site.transfer
        live = await transfer.database.read(lambda reader: session_rows.count_live(reader, user.user_name))
        # Sessions of this process may be younger than their rows.
        here = sum(
            login.session is not None and login.session.user.user_name == user.user_name
            for login in self.gate.connections
        )
        if max(live, here) >= site.settings.sessions_per_user:
            self._end_reason = "too many sessions"
            connection.disconnect(DISC_TOO_MANY_CONNECTIONS, "Too many sessions of this user")
            return
        peer = Peer(
            connection.address,
            int(connection.get_extra_info("peername")[1]),
            self._client(),
            key_type,
            fingerprint,
            f"{connection.get_extra_info('recv_cipher')},{connection.get_extra_info('send_cipher')}",
            connection.kex_name,
        )
        self._begin(Session(site, user, peer, ids.random_hex(8)))

    def _begin(self, session: Session) -> None:
        self.session = session
        self.gate.logins[session.session_id] = self
        peer = session.peer
        start = SessionStart(
            session.session_id,
            session.user.user_name,
            peer.source_ip,
            peer.source_port,
            peer.client,
            peer.key_fingerprint,
            clock.now_ms(),
        )
        session.log_connected()
        recorded = session.site.database.write(lambda tx: session_rows.open_session(tx, start))
        self.gate.run(self._record(recorded, start.session_id), "sftp-session-open")

    async def _record(self, write: Any, session_id: str) -> None:
        """Wait for a session's row, which the session itself does not; if it fails, the session goes on."""
        try:
            await write
        except StorageError as error:
            logger.error("The row of session %s could not be written: %s", session_id, error)

    def session_requested(self) -> Any:
        """Open one more SFTP channel."""
        session, connection = self.session, self._connection
        self.channels = [channel for channel in self.channels if not channel.is_over]
        if session is None or connection is None:
            return False
        if len(self.channels) >= session.site.settings.channels_per_session:
            return False
        channel = Channel(session, self.gate.load_of(session.user.user_name), self._channel_ended)
        self.channels.append(channel)
        return connection.create_sftp_channel(), channel

    def _channel_ended(self, channel: Channel) -> None:
        self.gate.release_load(channel.session.user.user_name)

    def connection_lost(self, exc: Exception | None) -> None:
        connection = self._connection
        assert connection is not None
        self.gate.connections.discard(self)
        admission = self.gate.admission
        admission.leave(connection.address, logged_in=self._logged_in)
        if not self._logged_in:
            if connection.failures:
                admission.charge(connection.address, Offence.REFUSED_KEY)
            elif exc is not None and "Login timeout" in str(exc):
                admission.charge(connection.address, Offence.GRACE_EXCEEDED)
            else:
                admission.charge(connection.address, Offence.NO_ATTEMPT)
        if self.session is not None:
            reason = self._end_reason or (printable(str(exc)) if exc is not None else "closed by the client")
            self.gate.run(self._end(self.session, reason), "sftp-session-end")

    async def _end(self, session: Session, reason: str) -> None:
        """Wait for the channels to put away what was open, then close the session's row."""
        tasks = [channel.task for channel in self.channels if channel.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        self.gate.logins.pop(session.session_id, None)
        totals = session.totals()
        session.log("DISCONNECTED", bytes_in=totals.bytes_in, bytes_out=totals.bytes_out, message=reason)
        await self._record(
            session.site.database.write(lambda tx: session_rows.close_session(tx, session.session_id, reason, totals)),
            session.session_id,
        )

    # ── what the server calls ────────────────────────────────────────────────────────────────────────────────────

    def idle_s(self, now_s: float) -> float:
        """Return how long nothing was asked; 0 while something is under way."""
        if any(channel.is_busy for channel in self.channels):
            return 0.0
        return now_s - max((channel.last_activity_s for channel in self.channels), default=now_s)

    def open_count(self) -> int:
        """Return how many files are open or being closed."""
        return sum(channel.files.open_uploads for channel in self.channels)

    def activity(self) -> Activity | None:
        """Return what the session did so far and does now; None before the login is complete."""
        if self.session is None:
            return None
        files = tuple(file for channel in self.channels for file in channel.files.transfers())
        return Activity(self.session.totals(), files)

    def end(self, reason: str) -> None:
        """Close the connection."""
        self._end_reason = self._end_reason or reason
        if self._connection is not None:
            self._connection.close()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._connection is not None:
            self._connection.abort()

    def _client(self) -> str:
        assert self._connection is not None
        return printable(str(self._connection.get_extra_info("client_version", "")))


def printable(text: str) -> str:
    """Return text from outside, fit for a log line."""
    return "".join(c if c.isprintable() else "?" for c in text[:CLIENT_LIMIT_CHARACTERS])


def _key_data(body: str) -> bytes:
    """Return the wire form of a stored key, which was validated when it was stored."""
    try:
        return base64.b64decode(body.split(None, 2)[1])
    except (binascii.Error, IndexError):
        return b""
