"""The short run of the workflows' rounds: the same as in `make crash`, a few of them."""

from pathlib import Path

import pytest

from tests.crash.workflows.rounds import Rounds

ROUNDS = 5


@pytest.mark.timeout(300)
def test_no_workflow_suffers_when_the_server_is_killed(tmp_path: Path) -> None:
    lines: list[str] = []
    rounds = Rounds(tmp_path / "stack", seed=20_26, report=lines.append)
    try:
        rounds.run(ROUNDS, proof_every=ROUNDS + 1)
    finally:
        if rounds.stack.process is not None:
            rounds.stack.kill()
    assert len(lines) == ROUNDS + 1
    assert rounds.executions >= 10, "next to nothing was executed"
