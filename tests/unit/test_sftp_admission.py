"""Admission: bounds, random early refusal, penalties; with a clock and dice of our own."""

from dataclasses import replace

import pytest

from entrepot.sftp.admission import Admission, Offence, Refusal, source_of
from entrepot.sftp.settings import SFTPSettings


class World:
    def __init__(self, **settings: object) -> None:
        self.now_s = 1000.0
        self.roll = 0.999
        self.admission = Admission(
            replace(SFTPSettings(), **settings),  # type: ignore[arg-type]
            lambda: self.now_s,
            lambda: self.roll,
        )


def test_start_ups_are_refused_at_random_from_ten_on_and_always_from_a_hundred_on() -> None:
    world = World()
    for _ in range(10):
        world.roll = 0.0
        assert world.admission.arrive("192.0.2.1") is None
    world.roll = 0.29
    assert world.admission.arrive("192.0.2.2") is Refusal.STARTUPS
    world.roll = 0.31
    assert world.admission.arrive("192.0.2.2") is None
    world.roll = 0.9999
    while world.admission.startups < 100:
        assert world.admission.arrive("192.0.2.3") is None
    assert world.admission.arrive("192.0.2.4") is Refusal.STARTUPS
    for _ in range(95):
        world.admission.logged_in()
    world.roll = 0.0
    assert world.admission.arrive("192.0.2.4") is None


def test_a_refused_connection_is_not_counted() -> None:
    world = World(connections=1)
    assert world.admission.arrive("192.0.2.1") is None
    assert world.admission.arrive("192.0.2.1") is Refusal.FULL
    world.admission.leave("192.0.2.1", logged_in=False)
    assert (world.admission.connections, world.admission.startups) == (0, 0)
    assert world.admission.arrive("192.0.2.1") is None


def test_one_source_cannot_take_all() -> None:
    world = World(connections_per_source=2)
    assert world.admission.arrive("192.0.2.1") is None
    assert world.admission.arrive("192.0.2.1") is None
    assert world.admission.arrive("192.0.2.1") is Refusal.SOURCE_FULL
    assert world.admission.arrive("192.0.2.2") is None


def test_penalties_grow_and_are_sat_out() -> None:
    world = World()
    for _ in range(3):
        assert world.admission.arrive("192.0.2.1") is None
        world.admission.leave("192.0.2.1", logged_in=False)
        world.admission.charge("192.0.2.1", Offence.REFUSED_KEY)
    assert world.admission.arrive("192.0.2.1") is Refusal.PENALISED
    assert world.admission.arrive("192.0.2.2") is None
    world.now_s += 1
    assert world.admission.arrive("192.0.2.1") is None, "less than the minimum is left"
    world.admission.charge("192.0.2.1", Offence.REFUSED_KEY)
    assert world.admission.arrive("192.0.2.1") is Refusal.PENALISED
    for _ in range(1000):
        world.admission.charge("192.0.2.1", Offence.GRACE_EXCEEDED)
    world.now_s += 600 - 14
    assert world.admission.arrive("192.0.2.1") is None, "the maximum is ten minutes"


def test_exempt_networks_are_never_penalised() -> None:
    world = World(penalty_exempt=("192.0.2.0/24",))
    for _ in range(100):
        world.admission.charge("192.0.2.9", Offence.GRACE_EXCEEDED)
    assert world.admission.arrive("192.0.2.9") is None


def test_the_memory_for_sources_is_bounded() -> None:
    world = World(penalty_sources=100)
    for _ in range(10):
        world.admission.charge("198.51.100.1", Offence.GRACE_EXCEEDED)
    for number in range(5000):
        world.admission.charge(f"203.0.{number // 256}.{number % 256}", Offence.NO_ATTEMPT)
    assert len(world.admission._sources) <= 100
    assert world.admission.arrive("198.51.100.1") is Refusal.PENALISED, "the worst are remembered longest"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("unknown", "unknown"),
    ],
)
def test_ipv6_sources_count_by_their_network(address: str, name: str) -> None:
    assert source_of(address) == name
