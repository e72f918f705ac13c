"""`python -m tests.crash --rounds 300`: the long run, with its report."""

import argparse
import tempfile
import time
from pathlib import Path

from tests.crash.rounds import Rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="entrepot-crash-") as folder:
        rounds = Rounds(Path(folder) / "stack", arguments.seed, lambda line: print(line, flush=True))
        try:
            rounds.run(arguments.rounds)
        except BaseException:
            print(rounds.stack.server_log()[-5000:])
            if rounds.stack.process is not None:
                rounds.stack.kill()
            raise
        book = rounds.book
        print(
            f"\n{arguments.rounds} rounds (seed {arguments.seed}) in {time.monotonic() - began:.0f} s: "
            f"{len(book.sent)} files sent, {len(book.acknowledged)} acknowledged.\n"
            "0 acknowledged files lost, 0 partial files delivered, 0 duplicate executions or deliveries, "
            "0 stuck executions."
        )
        for point, count in sorted(rounds.deaths.items()):
            print(f"  {count:4} × {point}")


if __name__ == "__main__":
    main()
