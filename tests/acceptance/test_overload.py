"""Functions that fail, crash, hang, compute, fork, allocate and print without end do not starve another customer's files."""

from pathlib import Path

from tests.acceptance.overload_site import POISONS, good_rate, poisoned, small_files, stack_with_poison, status

COUNT = 100
"""Files of a measurement: some seconds on a busy two-core machine."""

TRIES = 3


def test_poison_does_not_slow_another_customer_by_more_than_half(tmp_path: Path) -> None:
    files = small_files(tmp_path / "files", COUNT)
    with stack_with_poison(tmp_path / "stack") as stack:
        good_rate(stack, files, "warm", 30)
        quiet = min(good_rate(stack, files, f"quiet-{i}", COUNT) for i in range(2))
        among_poison = 0.0
        with poisoned(stack, *POISONS):
            for attempt in range(TRIES):  # the machine may have other things to do for a moment
                among_poison = max(among_poison, good_rate(stack, files, f"poisoned-{attempt}", COUNT))
                if among_poison >= quiet / 2:
                    break
            functions = status(stack)["functions"]
        assert functions["queued"] > 0, "there was poison left to run"
        assert functions["oldest_queued_age_ms"] > 0
        assert among_poison >= quiet / 2, f"{among_poison:.0f} files/s among poison, {quiet:.0f} without"
        assert stack.process is not None and stack.process.poll() is None
