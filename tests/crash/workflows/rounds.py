"""The rounds: lives of one server in which executions go on that earlier lives began, and new ones begin, until it dies."""

import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import botocore.exceptions
import botocore.parsers

from tests.crash import lives
from tests.crash.clients import Api
from tests.crash.workflows.book import Book
from tests.crash.workflows.clients import Clients
from tests.crash.workflows.points import MOMENTS, POINTS, TRANSITIONS
from tests.crash.workflows.reconcile import Proof
from tests.crash.workflows.stack import make_queues, make_stack, make_topic_and_activity
from tests.running import NotReadyError

WORKING_S: Final = (0.2, 3.0)
"""Shortest and longest life, once it serves, before a death at random."""

ARMED_S: Final = 2.5
"""A server that does not reach its point while it works for so long dies at random."""

PROOF_EVERY: Final = 5
"""Rounds after which one life is neither armed nor killed until everything is proven."""

STARTING, RANDOM, ENDED = "while starting", "at random", "by SIGTERM, at work"

STOP_S: Final = 45.0
"""A server that is told to end ends within this time, whatever is under way."""

DISCONNECTED: Final = (
    botocore.exceptions.ConnectionError,
    botocore.exceptions.HTTPClientError,
    botocore.parsers.ResponseParserError,
)
"""What a client meets when the server dies: before, during or in the middle of the answer."""


class Rounds:
    """Round after round on one stack. `report` is told one line per round."""

    def __init__(self, folder: Path, seed: int, report: Callable[[str], None]) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.stack = make_stack(folder)
        self.book = Book()
        self.report = report
        self.deaths: Counter[str] = Counter()
        self.number = 0
        self.proofs = 0
        self.executions = 0
        self.events = 0

    def run(self, rounds: int, *, proof_every: int = PROOF_EVERY) -> None:
        """Run the rounds and the last proof; raise AssertionError on the first broken promise."""
        self.stack.start()
        make_queues(Api(self.stack))
        make_topic_and_activity(Api(self.stack))
        assert self.stack.stop() == 0
        for _ in range(rounds):
            self.number += 1
            began_s = time.monotonic()
            death = self.one_round()
            self.book.died()
            self.deaths[death] += 1
            line = f"round {self.number}: died {death} after {time.monotonic() - began_s:.1f} s"
            if self.number % proof_every == 0:
                line = f"{line}; {self._prove(last=False)}"
            self.report(f"{line}; {len(self.book.runs)} executions pending")
        self.report(self._prove(last=True))
        self._check_ledger()

    def one_round(self) -> str:
        """Start (maybe armed at a point, maybe killed before it serves), work, die; return how it died."""
        point = self.random.choice((*POINTS, *[""] * 5))
        self.book.born()
        if not point and self.random.random() < 0.3:
            lives.kill_while_starting(self.stack, self.random.uniform(0.3, 2.5))
            return STARTING
        nths = (1, 2, 3, 5, 8, 13, 34, 89) if point in TRANSITIONS else (1, 1, 1, 2, 3)
        try:
            self.stack.start(**({"ENTREPOT_STORAGE_CRASH_AT": f"{point}:{self.random.choice(nths)}"} if point else {}))
        except NotReadyError as death:
            assert point and death.code == -signal.SIGKILL, f"the server did not start: {death}"
            return point
        with_function = point in MOMENTS or self.random.random() < 0.3
        gently = not point and self.random.random() < 0.3
        duration_s = ARMED_S if point else self.random.uniform(*WORKING_S)
        alive = self._work(duration_s, with_function=with_function, gently=gently)
        return ENDED if gently else RANDOM if alive or not point else point

    def _work(self, duration_s: float, *, with_function: bool, gently: bool) -> bool:
        """Let the clients work until the server dies at its point, or is killed (`gently`: told to end); say whether it was."""
        process = self.stack.process
        assert process is not None
        clients = self._clients(starting=True, with_function=with_function).start()
        end_s = time.monotonic() + duration_s
        while process.poll() is None and time.monotonic() < end_s and not clients.errors:
            time.sleep(0.005)
        alive = process.poll() is None
        if alive and clients.errors:
            assert lives.is_dead(self.stack), f"REFUSED while the server was alive: {clients.errors}"
            alive = False  # They met its death before we did.
        if alive and gently:
            code = self.stack.stop(STOP_S)
            assert code == 0, f"the server ended with exit code {code}:\n{self.stack.server_log()[-3000:]}"
        else:
            process.kill()
            lives.bury(self.stack)
        clients.join()
        for name, _, error in clients.errors:
            assert _is_disconnected(error, gently=gently), f"REFUSED: {name} met {error!r}"
        return alive

    def _clients(self, *, starting: bool, with_function: bool) -> Clients:
        return Clients(
            Api(self.stack),
            self.book,
            self.number,
            self.random.getrandbits(32),
            starting=starting,
            with_function=with_function,
        )

    def _prove(self, *, last: bool) -> str:
        """Live until everything is proven, then stop; return what to report."""
        began_s = time.monotonic()
        self.book.born()
        self.stack.start()
        clients = self._clients(starting=False, with_function=False).start()
        proof = Proof(Api(self.stack), self.book, clients)
        try:
            proof.run()
            if last:
                proof.check_everything()
        finally:
            clients.stop()
        if self.random.random() < 0.5 and not last:
            self.stack.kill()
        else:
            code = self.stack.stop()
            assert code == 0, f"the server ended with exit code {code}:\n{self.stack.server_log()[-3000:]}"
        self.book.died()
        self.proofs += 1
        self.executions += proof.checked
        self.events += proof.events
        return (
            f"proved {proof.checked} executions with {proof.events} events in {time.monotonic() - began_s:.1f} s "
            f"({self.executions} with {self.events} so far)"
        )

    def _check_ledger(self) -> None:
        """Check the stopped store: nothing runs, nothing waits, nothing is due."""
        ledger = sqlite3.connect(f"file:{self.stack.folder / 'data' / 'ledger.db'}?mode=ro", uri=True)
        try:
            assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the ledger is damaged"
            for table, condition in (
                ("execution", "status = 'RUNNING' OR due_at_ms IS NOT NULL"),
                ("events_delivery", "TRUE"),
                ("sqs_message", "TRUE"),
                ("lambda_async_invocation", "TRUE"),
            ):
                left = ledger.execute(f"SELECT count(*) FROM {table} WHERE {condition}").fetchone()[0]
                assert left == 0, f"{left} rows of {table} are left over"
        finally:
            ledger.close()


def _is_disconnected(error: BaseException, *, gently: bool) -> bool:
    """Whether this is what a client may meet when the server ends."""
    if gently and isinstance(error, botocore.exceptions.ClientError):
        return bool(error.response["ResponseMetadata"]["HTTPStatusCode"] == 503)
    return isinstance(error, DISCONNECTED)
