"""The pool of workers: which worker runs which invocation, and how many there are.

Invocations of a function wait in its queue until a worker is free; the wait is bounded in time, number and bytes. Workers
are started when the queue does not move, ended when idle or when another function needs their place.
"""

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from entrepot import clock
from entrepot.services.lambda_ import processes
from entrepot.services.lambda_.configuration import FunctionConfiguration
from entrepot.services.lambda_.errors import LambdaServiceError, TooManyRequestsError
from entrepot.services.lambda_.invocation import Invocation
from entrepot.services.lambda_.isolation import Isolation
from entrepot.services.lambda_.pace import Pace
from entrepot.services.lambda_.worker import Surroundings, Worker

WORKER_LIMIT = 2 * (os.cpu_count() or 1)
"""Workers of all functions together, by default; those that are busy with something long (it may well wait for something)
do not count."""

LONG_FACTOR = 8
"""So many times `worker_limit` workers may there be, the long ones included. The last quarter is for functions without any."""

WAIT_LIMIT_S = 60.0
"""An invocation waits at most this long for a worker; then TooManyRequestsException."""

QUEUE_LIMIT = 10_000
QUEUE_LIMIT_BYTES = 256 * 1024 * 1024
"""At most this many invocations wait, with payloads of at most this size together."""

SCALE_AFTER_S = 0.05
"""While a function has workers, another is started only when an invocation has waited this long."""

START_LIMIT = max(1, os.cpu_count() or 1)
"""Workers that start at the same time: starting costs a core."""

FAIR_AFTER_S = 0.25
"""In a full pool a function with fewer workers waits at most about this long for the place of one with more."""

ROOM_AFTER_S = 2.0
"""A worker that has been idle for longer makes room for another function's in a full pool."""

IDLE_LIMIT_S = 600.0
"""An idle worker beyond `minimum_warm` is ended after this time."""

BURST_IDLE_LIMIT_S = 30.0
"""The same for workers beyond the pool's worker limit."""

CRASH_DELAY_S, CRASH_DELAY_LIMIT_S = 0.05, 2.0
"""When workers of a function die one after the other, the next is started after a delay that doubles up to the limit."""

MEMORY_RESERVE_BYTES = 256 * 1024 * 1024
"""A function gets no second worker while the machine has less memory than this and the function's own to give."""

WORKER_LIFETIME_S = 4 * 3600.0
"""A worker is replaced after this time, or before its credentials expire if that is earlier."""

WATCH_INTERVAL_S = 0.05
"""How often busy workers are measured, those whose turn it is; idle ones each UPKEEP_INTERVAL_S."""

WATCH_PART = 20
"""Measuring takes at most one part in so many of the event loop's time."""

UPKEEP_INTERVAL_S = 1.0
"""How often waits, idle workers and minimum_warm are looked after."""

WARM_RETRY_S = 30.0
"""After a failed initialisation, `minimum_warm` is not tried again for this time."""

STOP_LIMIT_S = 5.0
"""How long `stop` waits for processes to be gone."""

_log = logging.getLogger("entrepot.lambda")


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """`oldest_age_s` is how long the invocation that waits longest for a worker has waited, 0 when none waits."""

    workers: int
    busy: int
    starting: int
    waiting: int
    oldest_age_s: float


@dataclass(eq=False, slots=True)
class _Function:
    """A function's queue and workers."""

    configuration: FunctionConfiguration
    waiting: deque[Invocation] = field(default_factory=deque)
    idle: list[Worker] = field(default_factory=list)
    busy: set[Worker] = field(default_factory=set)
    starting: set[Worker] = field(default_factory=set)
    scale_timer: asyncio.TimerHandle | None = None
    warm_after_s: float = 0.0
    launched_at_s: float = 0.0
    crashes: int = 0
    launch_after_s: float = 0.0
    is_hog: bool = False
    pace: Pace = field(default_factory=Pace)

    @property
    def workers(self) -> int:
        return len(self.idle) + len(self.busy) + len(self.starting)

    @property
    def gives_way(self) -> bool:
        """Whether its next worker comes after others, because the last one computed for long or died."""
        return self.is_hog or self.crashes > 0

    def crashed(self) -> None:
        """Note that a worker died by its own fault: after the first, the next ones start with a growing delay."""
        if self.crashes:
            delay_s = min(CRASH_DELAY_S * 2 ** min(self.crashes, 16), CRASH_DELAY_LIMIT_S)
            self.launch_after_s = clock.monotonic_s() + delay_s
        self.crashes += 1

    def is_current(self, worker: Worker) -> bool:
        return worker.configuration.revision_id == self.configuration.revision_id


class Pool:
    """All workers of all functions. For the event loop's thread."""

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        worker_limit: int = WORKER_LIMIT,
        wait_limit_s: float = WAIT_LIMIT_S,
        idle_limit_s: float = IDLE_LIMIT_S,
    ) -> None:
        self._surroundings = surroundings
        self._worker_limit = worker_limit
        self._wait_limit_s = wait_limit_s
        self._idle_limit_s = idle_limit_s
        self._functions: dict[str, _Function] = {}  # by configuration.key
        self._workers: set[Worker] = set()
        self._queued_bytes = 0
        self._queued = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False
        self._all_ended = asyncio.Event()

    async def start(self) -> None:
        """Find out how functions can be isolated, begin the upkeep; workers for `minimum_warm` start in the background.

        IsolationError when the machine does not give what the settings insist on.
        """
        await self._surroundings.isolation.open()
        self._running = True
        self._spawn_task(self._upkeep_forever())
        self._spawn_task(self._watch_forever())
        self._upkeep()

    async def stop(self) -> None:
        """End every worker; invocations that wait or run fail with ServiceException."""
        self._running = False
        for function in self._functions.values():
            while function.waiting:
                self._fail_waiting(self._pop(function), LambdaServiceError("The server is stopping."))
        for worker in list(self._workers):
            if worker.invocation is not None and not worker.invocation.future.done():
                worker.invocation.future.set_exception(LambdaServiceError("The server is stopping."))
            worker.end()
        self._all_ended.clear()
        if any(worker.is_started for worker in self._workers):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_ended.wait(), STOP_LIMIT_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._surroundings.isolation.close()

    def configure(self, configuration: FunctionConfiguration) -> None:
        """Use this configuration from now on; workers with another are replaced when they are free."""
        function = self._functions.get(configuration.key)
        if function is None:
            function = self._functions[configuration.key] = _Function(configuration)
        else:
            function.configuration = configuration
            function.warm_after_s = 0.0
            for worker in [*function.idle, *function.starting]:
                if not function.is_current(worker):
                    self._retire(function, worker)
        if self._running:
            self._keep_warm(function)
            self._scale(function)

    def remove(self, key: str) -> None:
        """Forget a function or a version of one: its workers end when they are free, its queue is refused."""
        function = self._functions.pop(key, None)
        if function is None:
            return
        while function.waiting:
            self._fail_waiting(self._pop(function), LambdaServiceError(f"The function {key} was deleted."))
        for worker in [*function.idle, *function.starting]:
            self._retire(function, worker)

    def submit(self, configuration: FunctionConfiguration, invocation: Invocation) -> None:
        """Run the invocation as soon as a worker is free; TooManyRequestsError when it cannot even wait."""
        if not self._running:
            raise LambdaServiceError("The server is not running functions now.")
        function = self._functions.get(configuration.key)
        if function is None:
            function = self._functions[configuration.key] = _Function(configuration)
        if function.configuration.reserved_concurrency == 0:
            raise TooManyRequestsError("Rate Exceeded.", Reason="ReservedFunctionConcurrentInvocationLimitExceeded")
        if function.idle and not function.waiting:
            worker = function.idle.pop()
            function.busy.add(worker)
            worker.run(invocation)
            return
        size = len(invocation.payload)
        if self._queued >= QUEUE_LIMIT or self._queued_bytes + size > QUEUE_LIMIT_BYTES:
            raise TooManyRequestsError("Rate Exceeded.", Reason="ConcurrentInvocationLimitExceeded")
        function.waiting.append(invocation)
        self._queued += 1
        self._queued_bytes += size
        self._scale(function)

    @property
    def isolation(self) -> Isolation:
        """How functions are kept apart, and what this machine lacks for it."""
        return self._surroundings.isolation

    def statistics(self) -> PoolStatistics:
        """Return how much there is to do and who does it."""
        now_s = clock.monotonic_s()
        heads = [function.waiting[0].queued_at_s for function in self._functions.values() if function.waiting]
        return PoolStatistics(
            workers=len(self._workers),
            busy=sum(len(function.busy) for function in self._functions.values()),
            starting=sum(len(function.starting) for function in self._functions.values()),
            waiting=self._queued,
            oldest_age_s=now_s - min(heads) if heads else 0.0,
        )

    def counts(self, key: str) -> tuple[int, int, int, int]:
        """Return (idle, busy, starting, waiting) of a function or a version of one."""
        function = self._functions.get(key)
        if function is None:
            return (0, 0, 0, 0)
        return len(function.idle), len(function.busy), len(function.starting), len(function.waiting)

    def all_counts(self) -> dict[str, tuple[int, int, int, int]]:
        """Return (idle, busy, starting, waiting) of every function, or version of one, that has been asked for."""
        return {key: self.counts(key) for key in sorted(self._functions)}

    # ── workers come and go ──────────────────────────────────────────────────────────────────────────────────────

    def on_ready(self, worker: Worker) -> None:
        """Give the worker its next invocation, or let it rest, or let it go."""
        function = self._functions.get(worker.configuration.key)
        if function is None:
            worker.end()
            return
        function.starting.discard(worker)
        if worker in function.busy:
            function.busy.discard(worker)
            if worker.has_served:
                function.crashes, function.is_hog = 0, worker.gives_way and function.is_hog
        if worker.retiring or not function.is_current(worker) or clock.monotonic_s() > _expiry(worker):
            self._retire(function, worker)
            self._scale(function)
        elif function.waiting and not (worker.has_served and self._needy(function, FAIR_AFTER_S)):
            function.busy.add(worker)
            worker.run(self._pop(function))
        elif (other := self._needy(function, 0.0)) is not None:
            self._retire(function, worker)
            self._scale(other)
        else:
            function.idle.append(worker)
            self._keep_warm(function)  # as many at a time as may start

    def on_hog(self, worker: Worker) -> None:
        """Let the function's next workers give way from the beginning, and others have this one's place."""
        function = self._functions.get(worker.configuration.key)
        if function is not None:
            function.is_hog = True
        for other in self._functions.values():
            self._scale(other)

    def on_end(self, worker: Worker) -> None:
        """Forget an ended worker; if it could not load the handler, answer who waited for that."""
        self._workers.discard(worker)
        function = self._functions.get(worker.configuration.key)
        if function is not None:
            was_starting = worker in function.starting
            if not worker.retiring and self._running:
                function.crashed()
            function.starting.discard(worker)
            function.busy.discard(worker)
            if worker in function.idle:
                function.idle.remove(worker)
            if was_starting and not worker.retiring and self._running:
                self._on_init_failure(function, worker)
        if not any(worker.is_started for worker in self._workers):
            self._all_ended.set()
        if self._running:
            # whose last worker was started longest ago comes first, so that the free place goes round
            for other in sorted(self._functions.values(), key=lambda f: (f.workers > 0, f.launched_at_s)):
                self._scale(other)

    def _on_init_failure(self, function: _Function, worker: Worker) -> None:
        """Answer the invocations that waited for this worker with its error; a later invocation tries again."""
        function.warm_after_s = clock.monotonic_s() + WARM_RETRY_S
        alone = not function.idle and not function.busy
        count = len(function.waiting) if alone else min(1, len(function.waiting))
        for _ in range(count):
            worker.fail_init(self._pop(function))

    def _scale(self, function: _Function) -> None:
        """Start another worker if the queue does not move without."""
        if not self._running or len(function.waiting) <= len(function.starting):
            return
        now_s = clock.monotonic_s()
        due_s = function.launch_after_s
        if function.busy or function.starting:
            due_s = max(due_s, function.waiting[0].queued_at_s + SCALE_AFTER_S)
        if due_s > now_s:
            self._scale_at(function, due_s - now_s + 0.001)
        elif self._is_at_limit(function) or self._are_enough_starting(function, now_s):
            return
        elif self._has_place(function, now_s):
            self._launch(function)
            if len(function.waiting) > len(function.starting):
                self._scale_at(function, SCALE_AFTER_S)
        else:
            self._scale_at(function, FAIR_AFTER_S)

    def _scale_at(self, function: _Function, delay_s: float) -> None:
        """Look at the function's queue again after this time."""
        if function.scale_timer is None:
            function.scale_timer = asyncio.get_running_loop().call_later(delay_s, self._scale_later, function)

    def _scale_later(self, function: _Function) -> None:
        function.scale_timer = None
        self._scale(function)

    def _are_enough_starting(self, function: _Function, now_s: float) -> bool:
        """Say whether the machine has enough to do with starting workers; those that take long do not count."""
        quick = [w for f in self._functions.values() for w in f.starting if not w.is_long(now_s)]
        return len(quick) >= START_LIMIT or len(function.starting) >= START_LIMIT

    def _has_place(self, function: _Function, now_s: float) -> bool:
        """Say whether the function may have another worker now; in a full pool, an idle one of another makes room."""
        total, most = len(self._workers), LONG_FACTOR * self._worker_limit
        if not self._is_full(function, now_s) and total < most * 3 // 4:
            return function.workers == 0 or self._has_memory(function)
        if self._make_room(function):
            return False  # its end looks at the queues again
        if function.workers == 0:
            return total < most
        reserved = function.configuration.reserved_concurrency is not None  # what is reserved is there beyond the limit
        return reserved and total < most * 3 // 4 and self._has_memory(function)

    def _is_at_limit(self, function: _Function) -> bool:
        """Say whether reserved concurrency, which all versions of a function share, allows no further worker."""
        reserved, name = function.configuration.reserved_concurrency, function.configuration.name
        if reserved is None:
            return False
        return sum(f.workers for f in self._functions.values() if f.configuration.name == name) >= reserved

    def _is_full(self, function: _Function, now_s: float) -> bool:
        """Say whether enough workers of the function's kind (those that give way, or others) are there for the machine."""
        if function.gives_way:
            return sum(worker.gives_way for worker in self._workers) >= self._worker_limit
        return sum(not worker.gives_way and not worker.is_long(now_s) for worker in self._workers) >= self._worker_limit

    @staticmethod
    def _has_memory(function: _Function) -> bool:
        needed = MEMORY_RESERVE_BYTES + function.configuration.memory_size_mb * 1024 * 1024
        return processes.available_memory_bytes() > needed

    def _make_room(self, needy: _Function) -> bool:
        """End the longest idle worker of another function; its end starts one for the needy. False when there is none.

        Those that a function keeps warm stay, and those that were at work a moment ago: to start them again costs more.
        """
        before_s = clock.monotonic_s() - ROOM_AFTER_S
        idle = [
            (worker.idle_since_s, worker, f)
            for f in self._functions.values()
            if f is not needy and f.workers > f.configuration.minimum_warm and (f.gives_way or not needy.gives_way)
            for worker in f.idle
            if worker.idle_since_s < before_s
        ]
        if not idle:
            return False
        _, worker, function = min(idle, key=lambda entry: entry[0])
        self._retire(function, worker)
        return True

    def _needy(self, function: _Function, waited_s: float) -> _Function | None:
        """Return a function that should have the place of one of `function`'s workers, because the pool is full.

        It has at least two workers less, or none and may have none beyond the limit, and has waited so long.
        """
        now_s = clock.monotonic_s()
        if len(self._functions) == 1 or not self._is_full(function, now_s):
            return None
        for other in self._functions.values():
            if other is function or not other.waiting or self._is_at_limit(other) or other.launch_after_s > now_s:
                continue
            none = other.workers == 0 and len(self._workers) >= LONG_FACTOR * self._worker_limit
            fewer = none or other.workers + 1 < function.workers
            alike = other.gives_way == function.gives_way
            if alike and fewer and not other.starting and now_s - other.waiting[0].queued_at_s >= waited_s:
                return other
        return None

    def _launch(self, function: _Function) -> None:
        worker = Worker(function.configuration, self._surroundings, self, function.pace, gives_way=function.gives_way)
        function.starting.add(worker)
        function.launched_at_s = worker.started_at_s
        self._workers.add(worker)
        self._spawn_task(self._start(function, worker))

    async def _start(self, function: _Function, worker: Worker) -> None:
        try:
            await worker.start()
        except Exception as error:  # noqa: BLE001 - the task's top frame: whoever waits is told
            _log.exception("A worker of the function %s could not be started.", function.configuration.name)
            self._workers.discard(worker)
            function.starting.discard(worker)
            function.warm_after_s = clock.monotonic_s() + WARM_RETRY_S
            worker.end()
            if function.waiting and not function.idle and not function.busy:
                failure = LambdaServiceError(f"The function could not be started: {error}")
                while function.waiting:
                    self._fail_waiting(self._pop(function), failure)

    def _retire(self, function: _Function, worker: Worker) -> None:
        worker.retiring = True
        function.starting.discard(worker)
        if worker in function.idle:
            function.idle.remove(worker)
        worker.end()
        if not worker.is_started:
            self._workers.discard(worker)

    # ── upkeep ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _upkeep_forever(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_INTERVAL_S)
            self._upkeep()

    def _upkeep(self) -> None:
        now_s = clock.monotonic_s()
        for worker in list(self._workers):
            if worker.pid:
                worker.watch()
        burst = len(self._workers) > self._worker_limit
        for function in list(self._functions.values()):
            while function.waiting and now_s - function.waiting[0].queued_at_s > self._wait_limit_s:
                self._fail_waiting(
                    self._pop(function),
                    TooManyRequestsError(
                        f"Rate Exceeded. No worker of {function.configuration.name} became free in "
                        f"{self._wait_limit_s:.0f} seconds.",
                        Reason="ConcurrentInvocationLimitExceeded",
                    ),
                )
            spare = function.workers - function.configuration.minimum_warm
            for worker in list(function.idle):
                expired = now_s > _expiry(worker)
                limit_s = min(BURST_IDLE_LIMIT_S, self._idle_limit_s) if burst else self._idle_limit_s
                if expired or (spare > 0 and now_s - worker.idle_since_s > limit_s):
                    self._retire(function, worker)
                    spare -= 1
                if expired and now_s - worker.idle_since_s < self._idle_limit_s:
                    self._launch(function)  # it was in use: have its successor ready
            self._keep_warm(function)
            self._scale(function)

    def _keep_warm(self, function: _Function) -> None:
        """Start workers up to `minimum_warm`, as far as the pool goes."""
        if clock.monotonic_s() < function.warm_after_s:
            return
        missing = function.configuration.minimum_warm - function.workers
        reserved = function.configuration.reserved_concurrency
        if reserved is not None:
            missing = min(missing, reserved - function.workers)
        for _ in range(max(0, missing)):
            now_s = clock.monotonic_s()
            if self._are_enough_starting(function, now_s) or len(self._workers) >= LONG_FACTOR * self._worker_limit:
                return
            self._launch(function)

    async def _watch_forever(self) -> None:
        """End workers that take more memory or processes than they may."""
        took_s = 0.0
        while True:
            await asyncio.sleep(max(WATCH_INTERVAL_S, took_s * WATCH_PART))
            now_s = clock.monotonic_s()
            for worker in list(self._workers):
                if worker.pid and worker.state in ("busy", "starting") and now_s >= worker.watch_at_s:
                    worker.watch()
            took_s = clock.monotonic_s() - now_s

    # ── the queue ────────────────────────────────────────────────────────────────────────────────────────────────

    def _pop(self, function: _Function) -> Invocation:
        invocation = function.waiting.popleft()
        self._queued -= 1
        self._queued_bytes -= len(invocation.payload)
        return invocation

    def _fail_waiting(self, invocation: Invocation, error: Exception) -> None:
        if not invocation.future.done():
            invocation.future.set_exception(error)

    def _spawn_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _expiry(worker: Worker) -> float:
    return min(worker.started_at_s + WORKER_LIFETIME_S, worker.expires_at_s)
