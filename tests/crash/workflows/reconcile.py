"""The proof: every execution has ended as it must, every effect is there exactly once, and nothing else is there."""

import itertools
import json
import time
from datetime import datetime
from typing import Final

import botocore.exceptions

from tests.crash.clients import Api
from tests.crash.workflows.book import Book, Run
from tests.crash.workflows.clients import Clients
from tests.crash.workflows.histories import History
from tests.crash.workflows.machines import (
    ASKS,
    COUNTERS,
    EFFECTS,
    GATES,
    SENT,
    SENT_FIFO,
    TOKENS,
    Json,
    Kind,
    execution_arn,
    machine_arn,
    queue_url,
)
from tests.running import wait_for

SETTLE_DEADLINE_S: Final = 120.0

EARLY_S: Final = 0.002
"""Time stamps have milliseconds."""

LATE_S: Final = 30.0
"""A timer fires at most so long after its time, or after the beginning of the life in which it fires: on a busy machine."""

WAITS: Final = (("Sleep", 1.0), ("Until", None))
"""Wait states, and their seconds; None: until the time stamp of the input."""


class Proof:
    """One comparison of the book with a server that lives on until it is through. Raises AssertionError."""

    def __init__(self, api: Api, book: Book, clients: Clients) -> None:
        self._api = api
        self._book = book
        self._clients = clients
        self.checked = 0
        self.events = 0

    def run(self) -> None:
        """Start what is not known to have been started, let all end, stop and redrive what must be, and compare."""
        self._forget_what_never_began()
        for run in self._book.of("stopped"):
            self._clients.stop_run(run)
        self._settle()
        self._redrive()
        self._settle()
        self._clients.join()
        assert not self._clients.errors, f"REFUSED: {self._clients.errors}"
        for run in list(self._book.runs.values()):
            self._check_run(run)
        self._check_messages()
        self._check_events()
        self._book.runs.clear()

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _forget_what_never_began(self) -> None:
        """Ask what became of starts that were not answered: those that did not happen have no effects."""
        for run in self._book.unacknowledged():
            if self._book.kinds[run.machine].type == "EXPRESS":
                counts = self._counts(run.name)
                assert counts in ({}, self._book.kinds[run.machine].counts), f"{run.name} began and has {counts}"
                del self._book.runs[run.name]
                continue
            try:
                self._api("stepfunctions").describe_execution(executionArn=run.arn)
            except botocore.exceptions.ClientError as error:
                assert error.response["Error"]["Code"] == "ExecutionDoesNotExist", error
                assert not self._counts(run.name), f"INVENTED: {run.name} was not started and has effects"
                del self._book.runs[run.name]
            else:
                run.acknowledged = True

    def _settle(self) -> None:
        try:
            wait_for(self._has_settled, deadline_s=SETTLE_DEADLINE_S, what="the end of all executions")
        except AssertionError as error:
            raise AssertionError(f"STUCK: {error}: {self._running()}, queues {self._waiting()}") from None

    def _has_settled(self) -> bool:
        time.sleep(0.1)
        assert not self._clients.errors, f"REFUSED: {self._clients.errors}"
        status = self._api("entrepot").get_status()
        assert status["dead_letters"] == 0, "GIVEN UP: an event is in the dead-letter store"
        return not status["pending_deliveries"] and not self._running() and not self._waiting()

    def _running(self) -> list[str]:
        """Return names of executions that run; those of EXPRESS machines cannot be listed, but have their effects."""
        states = self._api("stepfunctions")
        runs = [run for run in self._book.runs.values() if self._book.kinds[run.machine].type == "EXPRESS"]
        found = [run.name for run in runs if self._counts(run.name) != self._book.kinds[run.machine].counts]
        for machine in (name for name, kind in self._book.kinds.items() if kind.type == "STANDARD"):
            answer = states.list_executions(stateMachineArn=machine_arn(machine), statusFilter="RUNNING", maxResults=5)
            found += [execution["name"] for execution in answer["executions"]]
        return found

    def _waiting(self) -> list[str]:
        found = [name for name, acknowledged in self._book.invocations.items() if acknowledged and not self._done(name)]
        for queue_name in (ASKS, TOKENS, SENT, SENT_FIFO):
            names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
            answer = self._api("sqs").get_queue_attributes(QueueUrl=queue_url(queue_name), AttributeNames=names)
            if any(int(number) for number in answer["Attributes"].values()):
                found.append(queue_name)
        return [*found, *self._book.tokens.values()]

    def _done(self, name: str) -> bool:
        return "Item" in self._api("dynamodb").get_item(TableName=EFFECTS, Key={"key": {"S": name}})

    def _redrive(self) -> None:
        """Open the gates; an execution that failed for one goes on where it stood."""
        for run in self._book.of("gated"):
            description = self._api("stepfunctions").describe_execution(executionArn=run.arn)
            assert description["status"] == "FAILED", f"{run.name} is {description['status']} before its gate is open"
            self._api("dynamodb").put_item(TableName=GATES, Item={"key": {"S": run.name}})
            self._api("stepfunctions").redrive_execution(executionArn=run.arn)
            run.redriven = True

    # ── comparing ────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_run(self, run: Run) -> None:
        kind = self._book.kinds[run.machine]
        if kind.type == "EXPRESS":
            counts = self._counts(run.name)
            assert counts == kind.counts, f"{run.name} has the effects {counts}, not {dict(kind.counts)}"
            self.checked += 1
            return
        self._check_execution(run.machine, run.name, kind, redriven=run.redriven)
        for suffix, machine in kind.nested.items():
            self._check_execution(machine, f"{run.name}-{suffix}", self._book.kinds[machine])
        if run.machine == "functions":
            assert self._done(run.name), f"LOST: the function's effect for {run.name}"

    def _check_execution(self, machine: str, name: str, kind: Kind, *, redriven: bool = False) -> None:
        states, arn = self._api("stepfunctions"), execution_arn(machine, name)
        shown = states.describe_execution(executionArn=arn)
        assert shown["status"] == kind.status, f"{name} is {shown['status']}: {shown.get('error')} {shown.get('cause')}"
        assert shown["redriveCount"] == redriven, f"{name} was redriven {shown['redriveCount']} times"
        if kind.status == "SUCCEEDED":
            output, wanted = json.loads(shown["output"]), kind.output(name)
            assert wanted in (output, {}), f"{name} came to {output}, not to {wanted}"
        counts = self._counts(name)
        assert counts == kind.counts, f"EFFECTS: {name} has {counts}, not {dict(kind.counts)}"
        pages = states.get_paginator("get_execution_history").paginate(executionArn=arn, maxResults=1000)
        history = History(name, [event for page in pages for event in page["events"]])
        history.check(kind.status, int(redriven), kind.unfinished)
        self._check_timers(machine, history, json.loads(shown["input"]))
        self.checked += 1
        self.events += len(history.events)

    def _counts(self, name: str) -> dict[str, int]:
        item = self._api("dynamodb").get_item(TableName=COUNTERS, Key={"key": {"S": name}}).get("Item", {})
        return {what: int(value["N"]) for what, value in item.items() if what != "key"}

    def _check_timers(self, machine: str, history: History, input_: Json) -> None:
        """Nothing that waits goes on early, or long after its time."""
        for state, seconds in WAITS:
            for entered, exited in history.visits(state):
                begun_s = entered["timestamp"].timestamp()
                due_s = _seconds(input_["until"]) if seconds is None else begun_s + seconds
                self._check_moment(f"{history.name}: {state}", max(due_s, begun_s), exited["timestamp"].timestamp())
        if machine == "timed-out":
            first, last = history.events[0]["timestamp"].timestamp(), history.events[-1]["timestamp"].timestamp()
            self._check_moment(f"{history.name}: its time-out", first + 2.0, last)
        if machine == "retries":
            failed = [event for event in history.events if event["type"] == "TaskFailed"]
            assert len(failed) == 3, f"{history.name} tried {len(failed)} times"
            for before, after in itertools.pairwise(failed):
                due_s = before["timestamp"].timestamp() + 1.0
                self._check_moment(f"{history.name}: its retry", due_s, after["timestamp"].timestamp())

    def _check_moment(self, what: str, due_s: float, happened_s: float) -> None:
        assert happened_s >= due_s - EARLY_S, f"EARLY: {what}, by {due_s - happened_s:.3f} s"
        began_s = max((life.began_s for life in self._book.lives if life.began_s <= happened_s), default=0.0)
        late_s = happened_s - max(due_s, began_s)
        assert late_s <= LATE_S, f"LATE: {what}, by {late_s:.1f} s"

    def _check_messages(self) -> None:
        """Every message was sent exactly once, and a group's messages came in order."""
        wanted = {f"{run.name}/{n}" for run in self._book.of("sends") for n in (0, 1, 2)}
        wanted |= {f"{run.name}/9" for run in self._book.of("publishes")}
        received = self._book.received
        assert wanted <= received.keys(), f"LOST: messages {sorted(wanted - received.keys())[:5]}"
        for body, ids in received.items():
            assert len(ids) == 1, f"SENT TWICE: {body}"
        place = {body: number for number, body in enumerate(self._book.order)}
        for run in self._book.of("sends"):
            assert place[f"{run.name}/1"] < place[f"{run.name}/2"], f"OUT OF ORDER: the messages of {run.name}"

    def _check_events(self) -> None:
        """An event that was put has started exactly one execution; one whose answer was lost has started one or none."""
        for name, acknowledged in self._book.events.items():
            counts = self._counts(name)
            assert counts in ({"event": 1}, *([] if acknowledged else [{}])), f"EVENT {name} has {counts}"
        self._book.events.clear()
        self._book.invocations.clear()

    def check_everything(self) -> None:
        """Look at all that was ever counted: nothing is there that nobody started."""
        for page in self._api("dynamodb").get_paginator("scan").paginate(TableName=COUNTERS):
            for item in page["Items"]:
                name, counts = (
                    item["key"]["S"],
                    {what: int(value["N"]) for what, value in item.items() if what != "key"},
                )
                machine = self._book.machine_of(name)
                assert machine is not None, f"INVENTED: {name} has the effects {counts}, and nobody started it"
                assert counts == self._book.kinds[machine].counts, f"EFFECTS: {name} has {counts}"


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
