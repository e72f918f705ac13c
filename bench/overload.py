"""Overload by numbers: how fast a good customer's files arrive among functions that do everything wrong, beside the quiet rate.

`python -m bench.overload` prints the ratios, of each poison alone and of all at once. Only ratios of one run can be compared.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.overload_site import POISONS, good_rate, poisoned, small_files, stack_with_poison, status

COUNT = 300


@dataclass(frozen=True)
class Row:
    """What one poison did to the good customer's files."""

    poison: str
    quiet_per_s: float
    poisoned_per_s: float
    oldest_age_s: float

    def __str__(self) -> str:
        ratio = self.poisoned_per_s / self.quiet_per_s
        return (
            f"{self.poison:<14} {ratio:5.2f} of quiet   ({self.poisoned_per_s:.0f} of {self.quiet_per_s:.0f} files/s; "
            f"its own oldest event is {self.oldest_age_s:.0f} s old)"
        )


def measure(scale: int = 1) -> Iterator[Row]:
    """Yield a row for each poison, then one for all at once; every one on a server of its own."""
    for name, kinds in [*((name, (name,)) for name in POISONS), ("all at once", tuple(POISONS))]:
        with tempfile.TemporaryDirectory() as folder:
            yield _measure(Path(folder), name, kinds, COUNT // scale)


def _measure(folder: Path, name: str, kinds: tuple[str, ...], count: int) -> Row:
    files = small_files(folder / "files", count)
    with stack_with_poison(folder / "stack") as stack:
        good_rate(stack, files, "warm", min(50, count))
        quiet = good_rate(stack, files, "quiet", count, deadline_s=120)
        with poisoned(stack, *kinds):
            rate = good_rate(stack, files, "poisoned", count, deadline_s=240)
            functions = status(stack)["functions"]
    return Row(name, quiet, rate, functions["oldest_queued_age_ms"] / 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the files")
    for row in measure(3 if parser.parse_args().quick else 1):
        print(row, flush=True)


if __name__ == "__main__":
    main()
