"""What holds of every history, however often the server died while it was written."""

from collections import Counter
from typing import Any, Final

Event = dict[str, Any]

ENDS: Final = {
    "SUCCEEDED": "ExecutionSucceeded",
    "FAILED": "ExecutionFailed",
    "ABORTED": "ExecutionAborted",
    "TIMED_OUT": "ExecutionTimedOut",
}

SCHEDULED: Final = ("TaskScheduled", "LambdaFunctionScheduled", "ActivityScheduled")
OUTCOMES: Final = tuple(
    f"{kind}{outcome}"
    for kind in ("Task", "LambdaFunction", "Activity")
    for outcome in ("Succeeded", "Failed", "TimedOut", "StartFailed", "SubmitFailed", "ScheduleFailed")
)


class History:
    """The events of one execution. The checks raise AssertionError."""

    def __init__(self, name: str, events: list[Event]) -> None:
        self.name = name
        self.events = events
        assert [event["id"] for event in events] == list(range(1, len(events) + 1)), f"GAPS in the history of {name}"

    def check(self, status: str, redrives: int, unfinished: frozenset[str]) -> None:
        """Check all that holds of a history whose execution ended with `status`."""
        self._check_causes()
        self._check_ends(status, redrives)
        self._check_states(unfinished)
        self._check_tasks(complete=status == "SUCCEEDED")
        self._check_iterations()

    def named(self, ending: str) -> list[Event]:
        """Return the events whose type ends like this."""
        return [event for event in self.events if event["type"].endswith(ending)]

    def before(self, event: Event) -> Event | None:
        """Return the event that led to another."""
        previous = event["previousEventId"]
        return self.events[previous - 1] if previous else None

    def _check_causes(self) -> None:
        last = self.events[0]["timestamp"]
        for event in self.events:
            assert 0 <= event["previousEventId"] < event["id"], f"{self.name}: a cause after its effect: {event}"
            assert event["previousEventId"] or event["id"] <= 2, f"{self.name}: an effect without a cause: {event}"
            assert event["timestamp"] >= last, f"{self.name}: time goes backwards at {event}"
            last = event["timestamp"]

    def _check_ends(self, status: str, redrives: int) -> None:
        types = [event["type"] for event in self.events]
        assert types[0] == "ExecutionStarted", f"{self.name} begins with {types[0]}"
        assert types[-1] == ENDS[status], f"{self.name} is {status} and ends with {types[-1]}"
        ends = sum(type_ in ENDS.values() for type_ in types)
        assert ends == redrives + 1, f"{self.name} ended {ends} times, with {redrives} redrives"
        assert types.count("ExecutionRedriven") == redrives, f"{self.name} has not {redrives} redrives"
        assert types.count("ExecutionStarted") == 1, f"{self.name} began twice"

    def _check_states(self, unfinished: frozenset[str]) -> None:
        """Each Exited leads back to an Entered of its own, and each Entered has its Exited."""
        left: set[int] = set()
        for exited in self.named("StateExited"):
            name = exited["stateExitedEventDetails"]["name"]
            entered = self.before(exited)
            while entered is not None and _state_of(entered) != name:
                entered = self.before(entered)
            assert entered is not None and entered["type"].endswith("StateEntered"), (
                f"{self.name}: {name} was left (event {exited['id']}) more often than entered"
            )
            assert entered["id"] not in left, f"{self.name}: {name} was left twice (event {exited['id']})"
            left.add(entered["id"])
        for entered in self.named("StateEntered"):
            name = entered["stateEnteredEventDetails"]["name"]
            assert entered["id"] in left or name in unfinished, f"{self.name}: {name} was entered and never left"

    def _check_tasks(self, *, complete: bool) -> None:
        """Each Scheduled has exactly one outcome; each outcome comes from a Scheduled."""
        outcomes: Counter[int] = Counter()
        for event in self.events:
            if event["type"] in OUTCOMES:
                scheduled = self.before(event)
                while scheduled is not None and scheduled["type"] not in SCHEDULED:
                    assert scheduled["type"] not in OUTCOMES, f"{self.name}: two outcomes of one task: {event}"
                    scheduled = self.before(scheduled)
                assert scheduled is not None, f"{self.name}: an outcome of no task: {event}"
                outcomes[scheduled["id"]] += 1
        for event in self.events:
            if event["type"] in SCHEDULED:
                count = outcomes[event["id"]]
                assert count <= 1, f"{self.name}: task {event['id']} has {count} outcomes"
                assert count == 1 or not complete, f"{self.name}: task {event['id']} has no outcome"

    def _check_iterations(self) -> None:
        """Each iteration of a Map began once and ended once, for each visit of the Map."""
        begun: Counter[tuple[str, int]] = Counter()
        ended: Counter[tuple[str, int]] = Counter()
        for event in self.events:
            if event["type"] == "MapIterationStarted":
                details = event["mapIterationStartedEventDetails"]
                begun[details["name"], details["index"]] += 1
            elif event["type"] == "MapIterationSucceeded":
                details = event["mapIterationSucceededEventDetails"]
                ended[details["name"], details["index"]] += 1
        assert begun == ended, f"{self.name}: iterations were lost: {begun - ended}, or invented: {ended - begun}"
        twice = [place for place, count in begun.items() if count != 1]
        assert not twice, f"{self.name}: iterations ran twice: {twice[:5]}"

    def count(self, type_: str) -> int:
        """Return how many events of a type there are."""
        return sum(event["type"] == type_ for event in self.events)

    def visits(self, state: str) -> list[tuple[Event, Event]]:
        """Return the (entered, exited) of a state that is visited outside of a Map only, in order."""
        entered = [event for event in self.events if _state_of(event) == state and "Entered" in event["type"]]
        exited = [event for event in self.events if _state_of(event) == state and "Exited" in event["type"]]
        return list(zip(entered, exited, strict=False))


def _state_of(event: Event) -> str | None:
    details = event.get("stateEnteredEventDetails") or event.get("stateExitedEventDetails")
    return None if details is None else str(details["name"])
