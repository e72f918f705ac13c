"""`python -m tests.crash.workflows --rounds 300`: the long run, with its report."""

import argparse
import tempfile
import time
from pathlib import Path

from tests.crash.workflows.points import POINTS
from tests.crash.workflows.rounds import ENDED, RANDOM, STARTING, Rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="a line for every round")
    parser.add_argument("--keep", type=Path, help="a new folder for the stack, which stays")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="entrepot-crash-") as folder:
        run(arguments.keep or Path(folder) / "stack", arguments.seed, arguments.rounds, verbose=arguments.verbose)


def run(folder: Path, seed: int, count: int, *, verbose: bool) -> None:
    """Run the rounds, and print what they found; raise AssertionError on the first broken promise."""
    began_s = time.monotonic()

    def report(line: str) -> None:
        if verbose or "proved" in line:
            print(line, flush=True)

    rounds = Rounds(folder, seed, report)
    try:
        rounds.run(count)
    except BaseException:
        print(f"seed {seed}, round {rounds.number}; the server's log ends:\n{rounds.stack.server_log()[-5000:]}")
        raise
    finally:
        if rounds.stack.process is not None:
            rounds.stack.kill()
    took_s = time.monotonic() - began_s
    print(
        f"\n{count} rounds (seed {seed}) in {took_s:.0f} s ({took_s / count:.1f} s a round), {rounds.proofs} proofs: "
        f"{rounds.executions} executions with {rounds.events} events compared.\n"
        "0 executions lost or stuck, 0 effects repeated or lost, 0 histories with gaps, 0 timers lost or early, "
        "0 tokens answered twice.\nDeaths:"
    )
    for point in (RANDOM, STARTING, ENDED, *POINTS):
        print(f"  {rounds.deaths[point]:4} × {point}")


if __name__ == "__main__":
    main()
