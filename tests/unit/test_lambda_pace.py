"""How fast a function may print."""

import pytest

from entrepot.services.lambda_ import pace
from entrepot.services.lambda_.output import INVOCATION_LIMIT_EVENTS, Output
from entrepot.services.lambda_.pace import BURST_BYTES, DROPPED_PART, EVENT_COST_BYTES, RATE_BYTES_PER_S, Pace


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(pace.clock, "monotonic_s", lambda: now[0])
    return now


def test_a_burst_is_free_and_a_debt_is_waited_for(at: list[float]) -> None:
    allowance = Pace()
    allowance.spend(BURST_BYTES)
    assert allowance.wait_s() == 0
    allowance.spend(RATE_BYTES_PER_S * 3)
    assert allowance.wait_s() == pytest.approx(3)
    at[0] += 2
    assert allowance.wait_s() == pytest.approx(1)
    at[0] += 1000
    allowance.spend(0)
    allowance.spend(BURST_BYTES + RATE_BYTES_PER_S)
    assert allowance.wait_s() == pytest.approx(1), "nobody saves more than a burst"


def test_empty_lines_cost_as_events_and_dropped_bytes_little() -> None:
    written: list[str] = []
    output = Output(lambda _, text: written.append(text))
    output.begin()
    assert output.feed(b"\n" * 100) == 100 + 100 * EVENT_COST_BYTES
    while not output.is_full:
        output.feed(b"\n" * 10_000)
    assert len(written) < INVOCATION_LIMIT_EVENTS
    assert output.feed(b"x" * 64_000) == 64_000 / DROPPED_PART
    output.end()
    assert "were dropped, because one invocation may log" in written[-1]
