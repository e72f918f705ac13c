"""The SFTP server: listens, watches over its sessions, and drains when it stops."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import asyncssh

from entrepot import __version__, clock
from entrepot.blobs import BlobStore
from entrepot.database import Database
from entrepot.errors import EntrepotError, StorageError
from entrepot.loglines import WriteLog
from entrepot.operations import Authorize
from entrepot.services.s3.service import S3
from entrepot.services.transfer import Activity, Transfer, partials
from entrepot.services.transfer import sessions as session_rows
from entrepot.services.transfer.public_keys import fingerprint_of, rsa_bits
from entrepot.sftp import algorithms
from entrepot.sftp.connection import Connection
from entrepot.sftp.login import Gate, Login
from entrepot.sftp.session import Site
from entrepot.sftp.settings import SFTPSettings

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S: Final = 2.0
"""How often idle sessions and requests of other processes to disconnect are looked for."""

EXPIRY_INTERVAL_S: Final = 600.0
"""How often parked uploads are looked through."""

DRAIN_POLL_S: Final = 0.02

FAREWELL_S: Final = 1.0
"""How long a client whose last file was closed during the drain gets to log out by itself: cut off right after the
answer to CLOSE, it would report a failure although the file arrived."""

CLOSE_TIMEOUT_S: Final = 5.0
"""How long connections get to close, after the drain."""

BACKLOG: Final = 512


class SFTPServer:
    """Serves SFTP to the users of `transfer`, on the objects of `s3`.

    `storage_folder` is what statvfs@openssh.com tells of; None says that it is not supported.
    """

    def __init__(
        self,
        settings: SFTPSettings,
        transfer: Transfer,
        s3: S3,
        blobs: BlobStore,
        database: Database,
        authorize: Authorize,
        write_log: WriteLog,
        *,
        storage_folder: Path | None = None,
    ) -> None:
        self.settings = settings
        self._draining = False
        self._site = Site(
            settings, transfer, s3, blobs, database, authorize, write_log, storage_folder, lambda: self._draining
        )
        self.gate = Gate(self._site)
        self._server: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises EntrepotError when a host key is unusable, OSError when the address is taken."""
        logging.getLogger("asyncssh").setLevel(logging.ERROR)
        options = await self._options()
        loop = asyncio.get_running_loop()
        settings = self.settings
        self._server = await loop.create_server(
            lambda: Connection(loop, options, self.gate),
            settings.host,
            settings.port,
            backlog=BACKLOG,
            reuse_port=settings.reuse_port or None,
        )
        self._site.transfer.on_disconnect = self._disconnect
        self._site.transfer.activity_of = self._activity
        self._watch = loop.create_task(self._watch_forever(), name="sftp-watch")

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop accepting, let open uploads finish until the deadline, then close every connection."""
        self._draining = True
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        deadline_s = clock.monotonic_s() + self.settings.drain_timeout_s
        if self._any_open():
            # Many channels count here, seldom: a poll is simpler than an event that all of them feed.
            while clock.monotonic_s() < deadline_s and self._any_open():  # noqa: ASYNC110
                await asyncio.sleep(DRAIN_POLL_S)
            farewell_s = min(deadline_s, clock.monotonic_s() + FAREWELL_S)
            while clock.monotonic_s() < farewell_s and self.gate.connections:  # noqa: ASYNC110
                await asyncio.sleep(DRAIN_POLL_S)
        for login in list(self.gate.connections):
            login.end("the server stopped")
        await self.gate.wait_for_tasks(CLOSE_TIMEOUT_S)
        for login in list(self.gate.connections):
            login.abort()
        await asyncio.sleep(0)
        await self.gate.wait_for_tasks(CLOSE_TIMEOUT_S)

    def _any_open(self) -> bool:
        return any(login.open_count() for login in self.gate.connections)

    # ── host keys and options ────────────────────────────────────────────────────────────────────────────────────

    async def _options(self) -> asyncssh.SSHServerConnectionOptions:
        keys = self._host_keys()
        self._site.transfer.host_key_fingerprint = fingerprint_of(keys[0].public_data)
        settings = self.settings
        options: asyncssh.SSHServerConnectionOptions = await asyncssh.SSHServerConnectionOptions.construct(
            None,
            config=None,
            server_factory=lambda: Login(self.gate),
            server_host_keys=keys,
            server_version=f"Entrepot_{__version__}",
            kex_algs=list(algorithms.KEY_EXCHANGES),
            encryption_algs=list(algorithms.CIPHERS),
            mac_algs=list(algorithms.MACS),
            signature_algs=list(algorithms.SIGNATURES),
            compression_algs=None,
            login_timeout=settings.login_grace_s,
            keepalive_interval=settings.keepalive_interval_s,
            keepalive_count_max=settings.keepalive_count,
            public_key_auth=True,
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            x509_trusted_certs=None,
            allow_pty=False,
            allow_scp=False,
            line_editor=False,
            x11_forwarding=False,
            agent_forwarding=False,
            rdns_lookup=False,
            encoding=None,
        )
        return options

    def _host_keys(self) -> Sequence[asyncssh.SSHKey]:
        keys = []
        for path in self.settings.host_keys:
            try:
                key = asyncssh.read_private_key(path)
            except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
                raise EntrepotError(
                    f"The host key {path} cannot be read: {error}. Make one with: ssh-keygen -t ed25519 -N '' -f {path}"
                ) from error
            kind = key.get_algorithm()
            bits = rsa_bits(key.public_data) if kind == "ssh-rsa" else 0
            if kind == "ssh-rsa" and bits < algorithms.HOST_KEY_RSA_MINIMUM_BITS:
                raise EntrepotError(
                    f"The host key {path} has {bits} bits; RSA needs {algorithms.HOST_KEY_RSA_MINIMUM_BITS} at least."
                )
            keys.append(key)
        if not keys:
            raise EntrepotError("The SFTP server has no host key: set host_keys in [sftp].")
        return keys

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _watch_forever(self) -> None:
        expired_s = 0.0
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            try:
                self._end_idle()
                if self.gate.logins:
                    for session_id in await self._site.database.read(session_rows.requested_disconnects):
                        self._disconnect(session_id)
                if clock.monotonic_s() - expired_s > EXPIRY_INTERVAL_S:
                    expired_s = clock.monotonic_s()
                    await self.expire_partials()
            except StorageError:
                logger.exception("The SFTP server's watch failed; it tries again")

    def _end_idle(self) -> None:
        now_s = clock.monotonic_s()
        for login in list(self.gate.logins.values()):
            if login.idle_s(now_s) > self.settings.idle_timeout_s:
                login.end("idle for too long")

    def _disconnect(self, session_id: str) -> None:
        login = self.gate.logins.get(session_id)
        if login is not None:
            login.end("disconnected by an operator")

    def _activity(self, session_id: str) -> Activity | None:
        login = self.gate.logins.get(session_id)
        return None if login is None else login.activity()

    async def expire_partials(self) -> None:
        """Discard parked uploads that nobody resumed in time."""
        for parked in await self._site.database.write(partials.expire):
            try:
                writer = await self._site.blobs.resume(parked)
            except FileNotFoundError:
                continue
            await writer.abort()
