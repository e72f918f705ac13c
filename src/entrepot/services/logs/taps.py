"""What is done with events as they are stored: metric filters, subscription filters and live tails of their group.

The writer thread hands each line of a group that has any of these to the group's `Tap`; all other lines cost nothing. A tap
gathers over one transaction: `write` stores what subscriptions are to deliver in that same transaction, `committed` records
metrics and feeds live tails after it, `failed` forgets. Patterns are compiled once, and a message is read as JSON once.
"""

import json
import logging
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from entrepot.services.logs.errors import InvalidParameterError
from entrepot.services.logs.filter_pattern import Pattern, parse
from entrepot.services.logs.live_tail import LiveTail, TailedEvent
from entrepot.services.logs.metric_filters import MetricRule, Transformation
from entrepot.services.logs.ports import RecordMetric
from entrepot.services.logs.session import Session

BATCH_LIMIT_BYTES = 512 * 1024
"""Events of one stream, before they are deflated, that a subscription delivers together: what a function can be given."""

WAITING_LIMIT_BYTES = 256 * 1024 * 1024
"""What may wait (deflated) for one subscription's destination; beyond it events are not delivered, counted and reported."""

REPORT_EVERY_EVENTS = 100_000
"""How often undelivered events are reported while a subscription's room is full."""

_log = logging.getLogger("entrepot.logs")
_unread = object()


def event_id(timestamp_ms: int, stream_id: int, seq: int) -> str:
    """Return the id under which an event is known: the same wherever it is shown."""
    return f"{timestamp_ms:020d}{stream_id:012d}{seq:024d}"


class Subscription:
    """A subscription filter as the writer knows it."""

    def __init__(self, filter_id: int, name: str, pattern: Pattern, waiting_bytes: int) -> None:
        self.filter_id = filter_id
        self.name = name
        self.pattern = pattern
        self.waiting_bytes = waiting_bytes
        self.refused_events = 0
        self._reported_events = 0
        self._gathered: dict[int, tuple[str, list[tuple[str, int, str]]]] = {}
        self._sizes: dict[int, int] = {}
        self._rows: list[tuple[int, str, int, bytes]] = []

    def take(self, stream_id: int, stream: str, timestamp_ms: int, seq: int, message: str) -> None:
        """Gather a matching event."""
        found = self._gathered.get(stream_id)
        if found is None:
            found = self._gathered[stream_id] = (stream, [])
            self._sizes[stream_id] = 0
        found[1].append((event_id(timestamp_ms, stream_id, seq), timestamp_ms, message))
        self._sizes[stream_id] += len(message) + 100
        if self._sizes[stream_id] >= BATCH_LIMIT_BYTES:
            self._pack(stream_id)

    def _pack(self, stream_id: int) -> None:
        stream, events = self._gathered.pop(stream_id)
        self._rows.append((self.filter_id, stream, len(events), zlib.compress(msgspec.json.encode(events), 1)))

    def write(self, session: Session) -> bool:
        """Store what was gathered; return whether there is something new to deliver."""
        for stream_id in list(self._gathered):
            self._pack(stream_id)
        rows, self._rows = self._rows, []
        kept = []
        for row in rows:
            if self.waiting_bytes + len(row[3]) > WAITING_LIMIT_BYTES:
                self._refuse(row[2])
                continue
            self.waiting_bytes += len(row[3])
            kept.append(row)
        session.connection.executemany(
            "INSERT INTO subscription_batch (filter_id, stream, events, body) VALUES (?, ?, ?, ?)", kept
        )
        return bool(kept)

    def _refuse(self, events: int) -> None:
        if not self.refused_events or self.refused_events - self._reported_events >= REPORT_EVERY_EVENTS:
            self._reported_events = self.refused_events
            _log.error(
                "The subscription filter %s has %d MB waiting for its destination, which is all there is room for: from now on "
                "matching events are not delivered (%d so far). They stay in their log group. Mend the destination, or delete "
                "the filter.",
                self.name,
                self.waiting_bytes >> 20,
                self.refused_events + events,
            )
        self.refused_events += events

    def forget(self) -> None:
        """Drop what was gathered."""
        self._gathered.clear()
        self._rows.clear()


class Tap:
    """All that looks at one group's events."""

    def __init__(
        self, group: str, metrics: list[MetricRule], subscriptions: list[Subscription], tails: list[LiveTail]
    ) -> None:
        self.group = group
        self.metrics = metrics
        self.subscriptions = subscriptions
        self.tails = tails
        self._tailed: list[tuple[LiveTail, TailedEvent]] = []

    def take(self, stream_id: int, stream: str, timestamp_ms: int, seq: int, message: str, now_ms: int) -> None:
        """Look at one event. What goes wrong with it is told; the event is stored all the same."""
        try:
            self._look(stream_id, stream, timestamp_ms, seq, message, now_ms)
        except Exception:  # noqa: BLE001 - a filter must not keep events from being stored
            _log.exception("The filters of %s could not look at an event of %s", self.group, stream)

    def _look(self, stream_id: int, stream: str, timestamp_ms: int, seq: int, message: str, now_ms: int) -> None:
        document: Any = _unread
        for rule in self.metrics:
            if rule.pattern.form == "json":
                if document is _unread:
                    document = rule.pattern.read(message)
                rule.take(document, timestamp_ms)
            else:
                rule.take(rule.pattern.read(message), timestamp_ms)
        for one in self.subscriptions:
            pattern = one.pattern
            if pattern.form != "json":
                record = pattern.read(message)
            else:
                if document is _unread:
                    document = pattern.read(message)
                record = document
            if record is not None and pattern.test(record):
                one.take(stream_id, stream, timestamp_ms, seq, message)
        for tail in self.tails:
            if tail.wants(stream, message):
                self._tailed.append((tail, TailedEvent(self.group, stream, timestamp_ms, now_ms, message)))

    def write(self, session: Session) -> list[int]:
        """Store what subscriptions deliver; return the ids of the filters that have something new."""
        return [one.filter_id for one in self.subscriptions if one.write(session)]

    def committed(self, record: RecordMetric) -> None:
        """Record metrics and feed live tails."""
        for rule in self.metrics:
            rule.committed(record)
        tailed, self._tailed = self._tailed, []
        for tail, event in tailed:
            tail.add(event)

    def failed(self) -> None:
        """Forget the transaction."""
        self._tailed.clear()
        for rule in self.metrics:
            rule.forget()
        for one in self.subscriptions:
            one.forget()


class Taps:
    """The taps of all groups; used by the writer thread alone, and before it starts."""

    def __init__(self, record: RecordMetric, on_waiting: Callable[[Iterable[int]], None]) -> None:
        self._record = record
        self._on_waiting = on_waiting
        self._taps: dict[str, Tap] = {}
        self._tails: list[LiveTail] = []

    def load(self, session: Session) -> None:
        """Read all filters anew; those that stayed the same keep what they remember."""
        before, self._taps = self._taps, {}
        rows = session.all(
            "SELECT g.name, f.name, f.pattern, f.transformation FROM metric_filter f JOIN log_group g USING (group_id)"
        )
        for group, name, pattern, transformation in rows:
            known = next(
                (r for r in self._known(before, group).metrics if r.is_of(name, pattern, transformation)), None
            )
            if known is None:
                known = self._compiled(
                    name,
                    lambda n=name, p=pattern, t=transformation: MetricRule(n, p, Transformation(**json.loads(t))),  # type: ignore[misc]
                )
            if known is not None:
                self._of(group).metrics.append(known)
        self._load_subscriptions(session)
        for tail in self._tails:
            for group in tail.groups:
                self._of(group).tails.append(tail)

    def _load_subscriptions(self, session: Session) -> None:
        rows = session.all(
            "SELECT g.name, f.filter_id, f.name, f.pattern, "
            "(SELECT coalesce(sum(length(body)), 0) FROM subscription_batch b WHERE b.filter_id = f.filter_id) "
            "FROM subscription_filter f JOIN log_group g USING (group_id)"
        )
        for group, filter_id, name, pattern, waiting_bytes in rows:
            made = self._compiled(
                name,
                lambda i=filter_id, n=name, p=pattern, w=waiting_bytes: Subscription(i, n, parse(p), w),  # type: ignore[misc]
            )
            if made is not None:
                self._of(group).subscriptions.append(made)

    def _compiled(self, name: str, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except (InvalidParameterError, TypeError, ValueError) as error:
            _log.error("The filter %s cannot be used: %s. Put it again.", name, error)
            return None

    def _known(self, taps: dict[str, Tap], group: str) -> Tap:
        return taps.get(group) or Tap(group, [], [], [])

    def _of(self, group: str) -> Tap:
        return self._taps.setdefault(group, Tap(group, [], [], []))

    def of(self, group: str) -> Tap | None:
        """Return what looks at a group's events, if anything does."""
        return self._taps.get(group)

    def add_tail(self, session: Session, tail: LiveTail) -> None:
        """Let a live tail see the events of its groups."""
        self._tails.append(tail)
        self.load(session)

    def remove_tail(self, session: Session, tail: LiveTail) -> None:
        """Let it see no more."""
        self._tails = [one for one in self._tails if one is not tail]
        self.load(session)

    def freed(self, filter_id: int, size_bytes: int) -> None:
        """Note that a subscription delivered so much."""
        for tap in self._taps.values():
            for one in tap.subscriptions:
                if one.filter_id == filter_id:
                    one.waiting_bytes = max(0, one.waiting_bytes - size_bytes)
                    if one.refused_events:
                        _log.warning(
                            "%d events were not delivered by %s; there is room again.", one.refused_events, one.name
                        )
                        one.refused_events = 0

    def committed(self, taps: Iterable[Tap], filter_ids: Iterable[int]) -> None:
        """Do what follows a commit."""
        for tap in taps:
            tap.committed(self._record)
        self._on_waiting(filter_ids)
