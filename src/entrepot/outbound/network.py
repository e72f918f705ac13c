"""Connections: the name is looked up once, every address is checked, and the connection goes to the checked address.

So a name cannot lead elsewhere between check and connection, whatever its DNS server says.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpcore

from entrepot.outbound.errors import ConnectionFailedError, DeniedError, UnknownHostError
from entrepot.outbound.policy import Policy

ADDRESSES_LIMIT = 8
"""Addresses of one name that are tried."""

RESOLVING_LIMIT = 4
"""Names that are looked up at the same time."""


class PolicedNetwork(httpcore.AsyncNetworkBackend):
    """httpcore's network, restricted by a policy. `tls` says whether what connects here will speak TLS."""

    def __init__(self, policy: Policy, *, tls: bool) -> None:
        self._policy = policy
        self._tls = tls
        self._network = httpcore.AnyIOBackend()
        # Threads of its own: a name server that hangs holds up nobody else's work.
        self._resolver = ThreadPoolExecutor(RESOLVING_LIMIT, "outbound-names")

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a name that answers; raise OutboundError."""
        addresses = await self._look_up(host, port)
        for address in addresses:
            if not self._policy.allows(address, tls=self._tls):
                raise DeniedError(self._refusal(host, address))
        failure: Exception | None = None
        for address in addresses[:ADDRESSES_LIMIT]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise ConnectionFailedError(f"{host} port {port} cannot be reached: {failure}.") from failure

    async def _look_up(self, host: str, port: int) -> list[str]:
        """Return a name's addresses, each once."""
        try:
            return [str(ipaddress.ip_address(host.partition("%")[0]))]
        except ValueError:
            pass
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._resolver, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError) as error:
            temporary = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
            shape = ConnectionFailedError if temporary else UnknownHostError
            raise shape(f"The name {host} cannot be resolved: {error}.") from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        """End the threads; look-ups under way end by themselves."""
        self._resolver.shutdown(wait=False, cancel_futures=True)

    def _refusal(self, host: str, address: str) -> str:
        where = host if host == address else f"{host} ({address})"
        if not self._tls and self._policy.allows(address, tls=True):
            return f"{where} must be called with https; see plain_http_networks in [outbound] of stack.toml."
        return f"{where} must not be called: it is in denied_networks in [outbound] of stack.toml."

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: nothing is called through the file system."""
        raise DeniedError(f"{path} must not be called.")

    async def sleep(self, seconds: float) -> None:
        """Wait, as httpcore asks."""
        await asyncio.sleep(seconds)
