"""What the clients of the rounds know: what they started, answered and received, and what they were told."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.crash.workflows.machines import KINDS, Json, Kind, execution_arn


@dataclass(eq=False)
class Run:
    """One execution that a client began to start. `acknowledged`: it was told that the execution is there."""

    machine: str
    name: str
    input: Json
    acknowledged: bool = False
    stop_began: bool = False
    redriven: bool = False

    @property
    def arn(self) -> str:
        """The ARN of a STANDARD execution."""
        return execution_arn(self.machine, self.name)


@dataclass(frozen=True)
class Life:
    """From when to when (seconds since the epoch) there was a server; `ended_s` is infinite for the present one.

    It fires timers before it says that it is ready.
    """

    began_s: float
    ended_s: float


@dataclass
class Book:
    """Shared by the threads of all clients; each entry is written by one of them at a time."""

    runs: dict[str, Run] = field(default_factory=dict)
    """Executions that no proof has settled yet, by name."""
    events: dict[str, bool] = field(default_factory=dict)
    """Names of the events that were put; whether that was acknowledged."""
    invocations: dict[str, bool] = field(default_factory=dict)
    """Names of the asynchronous invocations; whether they were acknowledged."""
    tokens: dict[str, str] = field(default_factory=dict)
    """Tokens that the client holds and has not answered: token → execution's name."""
    answers: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    """Every answer that was tried, by token: whether it was acknowledged."""
    received: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Ids of the messages that were received, by body (`name/number`)."""
    deleted: set[str] = field(default_factory=set)
    """Ids of the messages whose deletion was acknowledged."""
    order: list[str] = field(default_factory=list)
    """Bodies of FIFO messages in the order in which they were first received."""
    kinds: Mapping[str, Kind] = field(default_factory=lambda: KINDS)
    """The machines of the stack."""
    lives: list[Life] = field(default_factory=list)
    machines: dict[str, str] = field(default_factory=dict)
    """The machine of everything that was ever to be executed, by name."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, machine: str, name: str, input_: Json) -> Run:
        """Note an execution that somebody is about to start."""
        run = Run(machine, name, input_)
        with self.lock:
            self.runs[name] = run
            self.machines[name] = machine
            for suffix, nested in self.kinds[machine].nested.items():
                self.machines[f"{name}-{suffix}"] = nested
        return run

    def machine_of(self, name: str) -> str | None:
        """Return the machine of an execution, or of an event; None when nobody began such a thing."""
        return "by-event" if name.startswith("by-event-") else self.machines.get(name)

    def unacknowledged(self) -> list[Run]:
        """Return the runs of which nobody knows whether they were started."""
        with self.lock:
            return [run for run in self.runs.values() if not run.acknowledged]

    def of(self, machine: str) -> list[Run]:
        """Return the runs of a machine that were acknowledged."""
        with self.lock:
            return [run for run in self.runs.values() if run.machine == machine and run.acknowledged]

    def token(self, source: random.Random) -> tuple[str, str] | None:
        """Return one of the tokens that the client holds, and its execution's name."""
        with self.lock:
            return source.choice(list(self.tokens.items())) if self.tokens else None

    def born(self) -> None:
        """The server is about to be started."""
        self.lives.append(Life(time.time(), float("inf")))

    def died(self) -> None:
        """The server is dead."""
        if self.lives and self.lives[-1].ended_s == float("inf"):
            self.lives[-1] = Life(self.lives[-1].began_s, time.time())
