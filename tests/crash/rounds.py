"""The rounds: lives of one server, each of which recovers what the last one left, serves uploads, and is killed."""

import asyncio
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import botocore.exceptions

from tests.crash import ledger, lives
from tests.crash.book import Book
from tests.crash.clients import Api, Uploads
from tests.crash.pipelines import USERS, make_stack
from tests.crash.reconcile import Reconciliation, now
from tests.running import NotReadyError

POINTS = (
    "blobs.before-fsync",
    "blobs.before-rename",
    "blobs.after-rename",
    "blobs.after-directory-fsync",
    "sftp.before-publish",
    "sftp.after-publish",
    "database.before-commit",
    "database.after-commit",
    "events.before-delivery",
    "events.after-delivery",
    "stepfunctions.before-commit",
    "stepfunctions.after-commit",
    "stepfunctions.before-task",
    "stepfunctions.after-task",
)
"""Every named point of the durable path (docs/durability.md) that uploads reach; workflows have their own rounds."""

FUNCTION_POINTS: Final = ("stepfunctions.before-task", "stepfunctions.after-task")
"""Reached only by tasks that leave the ledger: rounds that are to die there upload for the function, too."""

RARE_POINTS: Final = ("blobs.", *FUNCTION_POINTS)
"""Reached by few files, hence armed for an early time."""

UPLOADING_S: Final = (0.2, 1.8)
"""Shortest and longest time of uploading before a death at random."""

ARMED_S: Final = 3.0
"""A server that does not reach its point while it takes uploads for so long dies at random."""

STARTING, RANDOM = "while starting", "at random"

LIVES_WITHOUT_PROOF: Final = 3
"""After so many lives that died before the reconciliation was through, one is neither armed nor killed early."""


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
        self._unproven_lives = 0
        self._pending_since = now()
        self._duration_s = 0.0
        self._killed_s: float | None = None

    def run(self, rounds: int) -> None:
        """Run the rounds and the last proof; raise AssertionError on the first broken promise."""
        for _ in range(rounds):
            self.number += 1
            began_s = time.monotonic()
            death = self.one_round()
            self.deaths[death] += 1
            self.book.end_all()
            sent, acknowledged = self.book.count()
            self.report(
                f"round {self.number}: died {death} after {time.monotonic() - began_s:.1f} s; "
                f"{acknowledged} of {sent} uploads acknowledged, {self.proofs} reconciliations"
            )
        self.stack.start()
        assert self._reconcile(Api(self.stack)), "the last server died"
        code = self.stack.stop()
        assert code == 0, f"the last server ended with exit code {code}"
        ledger.check(self.stack, self.book)

    def one_round(self) -> str:
        """Start (maybe armed at a point, maybe killed before it serves), reconcile, upload, die; return how it died."""
        hurry = self._unproven_lives < LIVES_WITHOUT_PROOF
        self._unproven_lives += 1
        point = self.random.choice((*POINTS, *[""] * 5)) if hurry else ""
        if hurry and not point and self.random.random() < 0.4:
            lives.kill_while_starting(self.stack, self.random.uniform(0.3, 2.0))
            return STARTING
        try:
            self.stack.start(**self._armed(point))
        except NotReadyError as death:
            # Points of the ledger may be reached before the server is ready: that is a death like any other.
            assert point and death.code == -signal.SIGKILL, f"the server did not start: {death}"
            return point
        api = Api(self.stack)
        if not self._reconcile(api):
            return self._died(point)
        with_function = point in FUNCTION_POINTS or self.random.random() < 0.3
        self._duration_s = ARMED_S if point else self.random.uniform(*UPLOADING_S)
        asyncio.run(self._upload_until_death(api, with_function=with_function))
        return self._died(point)

    def _armed(self, point: str) -> dict[str, str]:
        if not point:
            return {}
        nths = (1, 2, 3, 4) if point.startswith(RARE_POINTS) else (1, 2, 3, 5, 8, 13, 21, 34, 55)
        return {"ENTREPOT_STORAGE_CRASH_AT": f"{point}:{self.random.choice(nths)}"}

    def _died(self, point: str) -> str:
        """Clean up after a death; return what it was: of the point, or at random when that was not reached."""
        assert self.stack.process is not None
        killed = self._killed_s is not None
        lives.bury(self.stack)
        return RANDOM if killed or not point else point

    # ── a life ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _reconcile(self, api: Api) -> bool:
        """Check what is pending; return False when the server died at its point meanwhile: the next life is asked."""
        self._killed_s = None
        try:
            Reconciliation(api, self.book, self.random, self._pending_since).run()
        except botocore.exceptions.BotoCoreError as error:
            assert lives.is_dead(self.stack), f"the server does not answer: {error!r}"
            return False
        self._unproven_lives = 0
        self.proofs += 1
        self._pending_since = now() - timedelta(seconds=1)
        return True

    async def _upload_until_death(self, api: Api, *, with_function: bool) -> None:
        """Let everybody upload at once, until the server dies at its point or is killed."""
        # Requests of asyncssh that nobody awaits any more when the server dies would each print a traceback.
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        with tempfile.TemporaryDirectory(prefix="entrepot-crash-files-") as folder:
            uploads = Uploads(
                self.stack, api, self.book, self.number, self.random.getrandbits(32), with_function=with_function
            )
            clients = {user: uploads.sftp_user(user) for user in USERS}
            clients["s3"] = uploads.s3_user()
            if self.random.random() < 0.3:
                clients["openssh"] = uploads.openssh_user(Path(folder))
            if self.random.random() < 0.5:
                clients["resuming"] = uploads.resuming_user(self.random.choice(USERS))
            tasks = [asyncio.create_task(_noted(name, client)) for name, client in clients.items()]
            await self._kill_in(self._duration_s, tasks)
            died_s = time.monotonic()
            ends = [end for end in await asyncio.gather(*tasks) if end is not None]
        killed_s = self._killed_s if self._killed_s is not None else died_s - 1.0
        for name, at_s, error in ends:
            assert at_s >= killed_s, f"REFUSED: {name} failed while the server was alive: {error!r}"

    async def _kill_in(self, duration_s: float, tasks: list["asyncio.Task[Any]"]) -> None:
        process = self.stack.process
        assert process is not None
        end_s = time.monotonic() + duration_s
        while process.poll() is None and time.monotonic() < end_s:
            await asyncio.sleep(0.005)
        if process.poll() is None:
            self._killed_s = time.monotonic()
            await asyncio.to_thread(self._kill)
        while process.poll() is None:
            await asyncio.sleep(0.005)

    def _kill(self) -> None:
        """Kill the server while its clients go on; called beside the event loop."""
        assert self.stack.process is not None
        self.stack.process.kill()


async def _noted(name: str, client: Coroutine[Any, Any, None]) -> tuple[str, float, Exception] | None:
    """Return how a client ended: None when it was through, or who failed when with what."""
    try:
        await client
    except Exception as error:  # noqa: BLE001 - a client's top frame: the rounds judge how it ended
        return name, time.monotonic(), error
    return None
