"""A logged-in user: who it is, what it may do, what it did, and the lines it writes to the log.

Lines have the fields of AWS Transfer's structured logs, one JSON object each:
https://docs.aws.amazon.com/transfer/latest/userguide/cw-structure-logs.html
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from entrepot import clock
from entrepot.blobs import BlobStore
from entrepot.database import Database
from entrepot.loglines import LogLine, WriteLog
from entrepot.operations import Authorize, Call, Decision, Permission
from entrepot.services.s3.service import S3
from entrepot.services.transfer import SessionTotals, Transfer, User
from entrepot.sftp.paths import HomeDirectory, Place
from entrepot.sftp.settings import SFTPSettings
from entrepot.sftp.status import permission_denied

ERROR_STREAM: Final = "ERRORS"
"""The log stream of what happens before a login, as AWS names it."""

DENIALS_LOGGED_PER_SESSION: Final = 1000
"""A session that is denied more often is not logged any further: one client must not fill the log."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the server works with: its settings and the rooms that it was given."""

    settings: SFTPSettings
    transfer: Transfer
    s3: S3
    blobs: BlobStore
    database: Database
    authorize: Authorize
    write_log: WriteLog
    storage_folder: Path | None
    is_draining: Callable[[], bool]

    def log(self, stream: str, members: Mapping[str, object]) -> None:
        """Write one line to the server's log group."""
        line = msgspec.json.encode(members).decode()
        self.write_log(self.transfer.log_group, stream, LogLine(clock.now_ms(), line))


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection, and what was negotiated with it."""

    source_ip: str
    source_port: int
    client: str = ""
    key_type: str = ""
    key_fingerprint: str = ""
    ciphers: str = ""
    kex: str = ""


class Session:
    """One login. All channels of the connection share it."""

    def __init__(self, site: Site, user: User, peer: Peer, session_id: str) -> None:
        self.site = site
        self.user = user
        self.peer = peer
        self.session_id = session_id
        self.home = HomeDirectory(user)
        self.principal = site.transfer.principal(user)
        self.stream = f"{user.user_name}.{session_id}"
        self.bytes_in = 0
        self.bytes_out = 0
        self.files_in = 0
        self.files_out = 0
        self._requests = 0
        self._denials = 0

    def totals(self) -> SessionTotals:
        """Return what the session did so far."""
        return SessionTotals(self.bytes_in, self.bytes_out, self.files_in, self.files_out)

    def call(self) -> Call:
        """Return the identity of one more request, for events and logs."""
        self._requests += 1
        return Call(
            self.principal,
            f"{self.session_id}{self._requests:08x}".upper(),
            self.peer.source_ip,
            self.session_id,
            self.peer.client,
        )

    # ── permission ───────────────────────────────────────────────────────────────────────────────────────────────

    def decide(self, action: str, bucket: str, key: str | None, context: Mapping[str, str] | None = None) -> Decision:
        """Ask IAM for one action on an object (or on the bucket, with key None)."""
        site = self.site
        arn = site.transfer.account.s3_arn(bucket, key)
        return site.authorize(
            self.principal, Permission(action, arn, {"aws:SourceIp": self.peer.source_ip, **(context or {})})
        )

    def require(
        self,
        operation: str,
        place: Place,
        action: str,
        bucket: str,
        key: str | None,
        context: Mapping[str, str] | None = None,
    ) -> Decision:
        """Return IAM's decision if it allows; else write the audit line and raise PERMISSION_DENIED."""
        decision = self.decide(action, bucket, key, context)
        if not decision.allowed:
            self.denied(operation, place, action, decision)
        return decision

    def denied(self, operation: str, place: Place, action: str, decision: Decision) -> None:
        """Write the audit line that names the statement that decided, and raise PERMISSION_DENIED."""
        self._denials += 1
        if self._denials <= DENIALS_LOGGED_PER_SESSION:
            self.log(
                "ERROR",
                operation=operation,
                path=place.object_path,
                message="ACCESS_DENIED",
                action=action,
                statement=decision.statement,
                reason=decision.reason,
                user=self.user.user_name,
                role=self.user.role_arn,
            )
        raise permission_denied()

    def require_list(self, operation: str, place: Place, prefix: str) -> Decision:
        """Require s3:ListBucket with the prefix."""
        bucket = place.located().bucket
        return self.require(operation, place, "s3:ListBucket", bucket, None, list_context(prefix))

    # ── log ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def log(self, activity_type: str, **members: object) -> None:
        """Write one line of the session; underscores in names stand for hyphens."""
        line: dict[str, object] = {name.replace("_", "-"): value for name, value in members.items()}
        line["activity-type"] = activity_type
        line["resource-arn"] = self.site.transfer.server_arn
        line["session-id"] = self.session_id
        self.site.log(self.stream, line)

    def log_connected(self) -> None:
        """Write the line of a login."""
        peer, user = self.peer, self.user
        self.log(
            "CONNECTED",
            role=user.role_arn,
            user=user.user_name,
            source_ip=peer.source_ip,
            client=peer.client,
            home_dir=str(self.home.start),
            ciphers=peer.ciphers,
            kex=peer.kex,
            ssh_public_key_type=peer.key_type,
            ssh_public_key_fingerprint=peer.key_fingerprint,
        )


def list_context(prefix: str) -> dict[str, str]:
    """Return the condition keys of a listing of one folder."""
    return {"s3:prefix": prefix, "s3:delimiter": "/"}
