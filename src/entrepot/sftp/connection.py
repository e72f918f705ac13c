"""One SSH connection: asyncssh's, with admission before the first byte, counted attempts, and SHA-2 signatures only.

The overrides are few and small; each says what asyncssh does otherwise.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

import asyncssh
from asyncssh.constants import DISC_NO_MORE_AUTH_METHODS_AVAILABLE, MSG_IGNORE
from asyncssh.packet import SSHPacket

from entrepot.sftp import algorithms
from entrepot.sftp.admission import Refusal
from entrepot.sftp.settings import SSH_PACKET_LIMIT_BYTES, WINDOW_BYTES

if TYPE_CHECKING:
    from entrepot.sftp.login import Gate

REFUSED_TEXT: Final = {
    Refusal.PENALISED: b"Not allowed at this time\r\n",
    Refusal.STARTUPS: b"Exceeded MaxStartups\r\n",
    Refusal.FULL: b"Too many connections\r\n",
    Refusal.SOURCE_FULL: b"Too many connections\r\n",
}

_SIGNATURES: Final = frozenset(name.encode() for name in algorithms.SIGNATURES)


class SFTPServerChannel(asyncssh.SSHServerChannel[bytes]):
    """A channel that takes no environment: asyncssh would keep all that a client sends."""

    def _process_env_request(self, packet: SSHPacket) -> bool:
        return False


class Connection(asyncssh.SSHServerConnection):
    """The server's end of a connection."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions, gate: "Gate"
    ) -> None:
        super().__init__(loop, options)
        self.gate = gate
        self.kex_name = ""
        self.address = ""
        self.failures = 0
        self._refused = False
        self._method = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Judge the source before anything is said or computed."""
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else "unknown"
        refusal = self.gate.arrive(self.address)
        if refusal is None:
            super().connection_made(transport)
            return
        self._refused = True
        self._cancel_login_timer()
        stream = cast(asyncio.Transport, transport)
        stream.write(REFUSED_TEXT[refusal])
        stream.close()

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        if not self._refused:
            super().data_received(data, datatype)

    def eof_received(self) -> None:
        if not self._refused:
            super().eof_received()

    def connection_lost(self, exc: Exception | None = None) -> None:
        if not self._refused:
            super().connection_lost(exc)

    async def reload_config(self) -> None:
        """Nothing here depends on the user; asyncssh would build all options anew for every login."""

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """Leave out the empty IGNORE packet that asyncssh puts before every packet.

        It hides the IV of CBC ciphers. There are none here, and it doubles the cost of a reply.
        """
        if pkttype != MSG_IGNORE:
            super().send_packet(pkttype, *args, handler=handler)

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        kex = self._kex
        if kex is not None and not self.kex_name:
            self.kex_name = kex.algorithm.decode()
        super().send_newkeys(k, h)

    async def _finish_userauth(self, begin_auth: bool, method: bytes, packet: SSHPacket) -> None:
        self._method = method
        await super()._finish_userauth(begin_auth, method, packet)

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Refuse signatures of algorithms that were not offered; asyncssh would verify SHA-1, too."""
        if signature:
            length = int.from_bytes(signature[:4], "big")
            if signature[4 : 4 + length] not in _SIGNATURES:
                return False
        return await super().validate_public_key(username, key_data, msg, signature)

    def send_userauth_failure(self, partial_success: bool) -> None:
        """Count refused attempts; the first `none`, by which clients ask for the methods, is free (as in OpenSSH)."""
        if self._method != b"none" or self.failures:
            self.failures += 1
        if self.failures >= self.gate.site.settings.authentication_attempts:
            self.disconnect(DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures")
            return
        super().send_userauth_failure(partial_success)

    def create_sftp_channel(self) -> SFTPServerChannel:
        """Return a channel for raw bytes with our window."""
        self._update_recv_pktlen(SSH_PACKET_LIMIT_BYTES)
        return SFTPServerChannel(
            self, self._loop, False, False, False, 0, 0, None, "strict", WINDOW_BYTES, SSH_PACKET_LIMIT_BYTES
        )
