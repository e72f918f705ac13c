"""Two power cuts, as `make power-cut` does many."""

from pathlib import Path

import pytest

from tests.crash import power_cut


@pytest.mark.power_cut
@pytest.mark.timeout(200)
def test_what_was_acknowledged_survives_a_power_cut(tmp_path: Path) -> None:
    if reason := power_cut.possible():
        pytest.skip(reason)
    cuts = power_cut.run(tmp_path, rounds=2, seed=7)
    assert cuts.book.count()[1] > 10, "next to nothing was uploaded"
