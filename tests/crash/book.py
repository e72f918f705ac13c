"""What the clients know: every upload they began, when, with which content, and whether it was acknowledged."""

import hashlib
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field

Place = tuple[str, str]
"""Bucket and key."""


@dataclass(eq=False)
class Attempt:
    """One upload of one content to one key. Moments are of the monotonic clock, in seconds.

    With `temporary`, it was first uploaded under that key and then renamed. `whole` is False when the client gave up
    before CLOSE: then its content must never be seen.
    """

    place: Place
    sha256: str
    began_s: float
    temporary: str = ""
    whole: bool = True
    ended_s: float | None = None
    acknowledged_s: float | None = None
    temporary_acknowledged_s: float | None = None

    @property
    def acknowledged(self) -> bool:
        return self.acknowledged_s is not None

    def acknowledge(self) -> None:
        """The client was told that the content is there, under its name."""
        self.ended_s = self.acknowledged_s = time.monotonic()

    def acknowledge_temporary(self) -> None:
        """The client was told that the content is there, under its temporary name."""
        self.temporary_acknowledged_s = time.monotonic()


@dataclass
class Book:
    """All attempts by place; places that hold what a life has not proven yet are `pending`."""

    attempts: dict[Place, list[Attempt]] = field(default_factory=lambda: defaultdict(list))
    pending: set[Place] = field(default_factory=set)
    redriven_s: dict[Place, float] = field(default_factory=dict)
    """When a redrive of the file, its gate open, was acknowledged."""
    interrupted: list[tuple[str, bytes]] = field(default_factory=list)
    """Key and whole content of uploads of which a part was sent, and that somebody may resume in another life."""

    def begin(self, place: Place, content: bytes, *, temporary: str = "", whole: bool = True) -> Attempt:
        """Note an upload that begins now."""
        attempt = Attempt(place, hashlib.sha256(content).hexdigest(), time.monotonic(), temporary, whole)
        self.attempts[place].append(attempt)
        self.pending.add(place)
        return attempt

    def count(self) -> tuple[int, int]:
        """Return how many uploads were begun, and how many of them acknowledged."""
        every = [attempt for attempts in self.attempts.values() for attempt in attempts]
        return len(every), sum(attempt.acknowledged for attempt in every)

    def end_all(self) -> None:
        """The server is dead: what has not ended cannot commit any more."""
        now_s = time.monotonic()
        for place in self.pending:
            for attempt in self.attempts[place]:
                attempt.ended_s = attempt.ended_s or now_s

    def forget_since(self, moment_s: float) -> None:
        """Doubt every acknowledgement after a moment: the disk is as it was then, or a little later."""
        for place in self.pending:
            for attempt in self.attempts[place]:
                if (attempt.acknowledged_s or 0) > moment_s:
                    attempt.acknowledged_s = None
                if (attempt.temporary_acknowledged_s or 0) > moment_s:
                    attempt.temporary_acknowledged_s = None
        self.redriven_s = {place: at_s for place, at_s in self.redriven_s.items() if at_s <= moment_s}

    def possible(self, place: Place) -> dict[str, Attempt]:
        """Return what may be there, by SHA-256: what no acknowledged upload that began later has replaced."""
        attempts = self.attempts[place]
        newest_s = max((a.began_s for a in attempts if a.acknowledged), default=0.0)
        return {a.sha256: a for a in attempts if a.whole and (a.ended_s is None or a.ended_s > newest_s)}

    def is_acknowledged(self, place: Place) -> bool:
        """Whether something must be there."""
        return any(attempt.acknowledged for attempt in self.attempts[place])


def content_of(key: str, number: int, size_bytes: int) -> bytes:
    """Return content that is a function of its key and number, so that a part or a mix can be told from the whole."""
    return random.Random(f"{key}#{number}").randbytes(size_bytes)
