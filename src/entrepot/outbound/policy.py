"""Which addresses may be reached, and which without TLS."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

DENIED_NETWORKS = ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "0.0.0.0/8", "::/128", "224.0.0.0/4", "ff00::/8")
"""Denied unless the operator says otherwise: link-local addresses (where clouds answer with a machine's credentials),
unspecified ones (which reach this machine) and multicast."""

PLAIN_HTTP_NETWORKS = ("127.0.0.0/8", "::1/128")
"""Where plain HTTP may go unless the operator says otherwise: this machine. Everything else needs TLS, as on AWS."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses as a translating network writes them. Source: RFC 6052, section 2.1."""


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


@dataclass(frozen=True, slots=True)
class Policy:
    """The addresses that are denied, and those that plain HTTP may go to."""

    denied_networks: tuple[Network, ...]
    plain_http_networks: tuple[Network, ...]

    @staticmethod
    def of(
        denied_networks: Iterable[str] = DENIED_NETWORKS, plain_http_networks: Iterable[str] = PLAIN_HTTP_NETWORKS
    ) -> "Policy":
        """Return the policy of networks as text (`10.0.0.0/8`, `fe80::/10`); raise ValueError."""
        return Policy(_networks(denied_networks), _networks(plain_http_networks))

    def allows(self, address: str, *, tls: bool) -> bool:
        """Return whether an address (as text, without a name) may be reached."""
        spellings = _spellings(ipaddress.ip_address(address.partition("%")[0]))
        if any(_inside(spelling, self.denied_networks) for spelling in spellings):
            return False
        return tls or any(_inside(spelling, self.plain_http_networks) for spelling in spellings)


def _inside(address: _Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _spellings(address: _Address) -> list[_Address]:
    """Return an address, and the IPv4 address that it stands for, so that no spelling goes round a policy."""
    found: list[_Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            found.append(address.ipv4_mapped)
        if address.sixtofour is not None:
            found.append(address.sixtofour)
        if address in _NAT64:
            found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found
