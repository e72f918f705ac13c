"""The short crash run: the same rounds as `make crash`, a few of them."""

from pathlib import Path

import pytest

from tests.crash.rounds import Rounds

ROUNDS = 6


@pytest.mark.timeout(300)
def test_no_promise_breaks_when_the_server_is_killed(tmp_path: Path) -> None:
    lines: list[str] = []
    rounds = Rounds(tmp_path / "stack", seed=20_26, report=lines.append)
    try:
        rounds.run(ROUNDS)
    finally:
        if rounds.stack.process is not None:
            rounds.stack.kill()
    sent, acknowledged = rounds.book.count()
    assert len(lines) == ROUNDS
    assert rounds.proofs >= 2, "next to no life was reconciled"
    assert acknowledged > 0, f"nothing of {sent} uploads was acknowledged"
