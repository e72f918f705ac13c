"""Who may connect: bounds, random early refusal of connections that do not log in, and penalties by source address.

Pure: it knows no sockets, and time and chance are handed in. The rules are OpenSSH's MaxStartups and PerSourcePenalties
(sshd_config(5)).
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from entrepot.sftp.settings import SFTPSettings

IPV6_PREFIX_BITS: Final = 64
"""IPv6 sources are counted by their /64: one customer has a whole one."""


class Refusal(Enum):
    """Why a connection is not taken; the value goes to the log."""

    FULL = "the server has reached its limit of connections"
    SOURCE_FULL = "this source has reached its limit of connections"
    PENALISED = "this source is penalised for what it did before"
    STARTUPS = "too many connections have not logged in yet"


class Offence(Enum):
    """What a source is charged for."""

    REFUSED_KEY = "penalty_refused_key_s"
    NO_ATTEMPT = "penalty_no_attempt_s"
    GRACE_EXCEEDED = "penalty_grace_exceeded_s"


@dataclass(slots=True)
class _Source:
    connections: int = 0
    penalty_until_s: float = 0.0


@dataclass(slots=True)
class Admission:
    """Counts connections and charges. `clock_s` is monotonic; `chance` returns a number in [0, 1)."""

    settings: SFTPSettings
    clock_s: Callable[[], float]
    chance: Callable[[], float]
    connections: int = 0
    startups: int = 0
    _sources: dict[str, _Source] = field(default_factory=dict)

    def arrive(self, address: str) -> Refusal | None:
        """Count a new connection in, or say why not. Whoever came in must `leave`."""
        name = source_of(address)
        source = self._sources.get(name, _Source())
        refusal = self._judge(address, source)
        if refusal is not None:
            return refusal
        self.connections += 1
        self.startups += 1
        source.connections += 1
        self._sources[name] = source
        return None

    def _judge(self, address: str, source: _Source) -> Refusal | None:
        settings = self.settings
        if source.penalty_until_s - self.clock_s() >= settings.penalty_minimum_s and not self._exempt(address):
            return Refusal.PENALISED
        if self.connections >= settings.connections:
            return Refusal.FULL
        if source.connections >= settings.connections_per_source:
            return Refusal.SOURCE_FULL
        if self.chance() < self._refusal_probability():
            return Refusal.STARTUPS
        return None

    def _refusal_probability(self) -> float:
        begin, full = self.settings.startups_begin, self.settings.startups_full
        rate = self.settings.startups_rate_percent / 100
        if self.startups < begin:
            return 0.0
        if self.startups >= full:
            return 1.0
        return rate + (1 - rate) * (self.startups - begin) / max(full - begin, 1)

    def logged_in(self) -> None:
        """A connection has logged in: it is no start-up any more."""
        self.startups -= 1

    def leave(self, address: str, *, logged_in: bool) -> None:
        """Count a connection out."""
        self.connections -= 1
        if not logged_in:
            self.startups -= 1
        name = source_of(address)
        source = self._sources[name]
        source.connections -= 1
        if source.connections == 0 and source.penalty_until_s <= self.clock_s():
            del self._sources[name]

    def charge(self, address: str, offence: Offence) -> None:
        """Add an offence's seconds to what the source still has to sit out."""
        if self._exempt(address):
            return
        now_s = self.clock_s()
        name = source_of(address)
        source = self._sources.get(name)
        if source is None:
            self._make_room(now_s)
            source = self._sources[name] = _Source()
        seconds: float = getattr(self.settings, offence.value)
        until_s = max(source.penalty_until_s, now_s) + seconds
        source.penalty_until_s = min(until_s, now_s + self.settings.penalty_maximum_s)

    def _exempt(self, address: str) -> bool:
        if not self.settings.penalty_exempt:
            return False
        ip = ipaddress.ip_address(address)
        return any(ip in ipaddress.ip_network(network, strict=False) for network in self.settings.penalty_exempt)

    def _make_room(self, now_s: float) -> None:
        """Forget sources that sat it out; if there are still too many, those that have the least left."""
        if len(self._sources) < self.settings.penalty_sources:
            return
        idle = [name for name, source in self._sources.items() if source.connections == 0]
        idle.sort(key=lambda name: self._sources[name].penalty_until_s)
        keep = self.settings.penalty_sources * 3 // 4
        for name in idle:
            if len(self._sources) <= keep and self._sources[name].penalty_until_s > now_s:
                break
            del self._sources[name]


def source_of(address: str) -> str:
    """Return the name under which an address is counted."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, IPV6_PREFIX_BITS), strict=False).network_address)
    return str(ip)
