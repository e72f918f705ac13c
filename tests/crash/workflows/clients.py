"""Who works with the server in the rounds: threads that start executions, answer tokens, receive messages, and note what
they were told in the book."""

import json
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import botocore.exceptions

from tests.crash.clients import Api
from tests.crash.workflows.book import Book, Run
from tests.crash.workflows.machines import (
    ACTIVITY,
    ASKS,
    EVENT_SOURCE,
    FUNCTION,
    SENT,
    SENT_FIFO,
    TOKENS,
    arn,
    client_answer,
    input_of,
    machine_arn,
    queue_url,
)

STARTS_LIMIT: Final = 14
"""Executions that a life's clients start at most."""

PAUSE_LIMIT_S: Final = 0.12
"""Longest pause between two starts."""

WAIT_LIMIT_S: Final = 4.0
"""Executions that wait until a moment wait so long at most."""

POLL_S: Final = 3.0
"""How long a worker waits for a task before it asks again."""

AGAIN: Final = 0.2
"""How often the consumer answers without deleting the message, so that it must be refused when it answers again."""


class Clients:
    """The clients of one life. `start` them, `stop` or let the server die, then `join`: it raises what went wrong."""

    def __init__(self, api: Api, book: Book, number: int, seed: int, *, starting: bool, with_function: bool) -> None:
        self._api = api
        self._book = book
        self._number = number
        self._seed = seed
        self._with_function = with_function
        self._stopping = threading.Event()
        self.errors: list[tuple[str, float, BaseException]] = []
        self._impatient = api.impatient("stepfunctions", POLL_S)
        works = [
            self._consume_asks,
            self._take_tokens,
            self._answer_tokens,
            self._receive(SENT),
            self._receive(SENT_FIFO),
        ]
        if "works" in book.kinds:
            works.append(self._work)
        if starting:
            works += [self._start_again, self._start_new, self._put_events]
        for service in ("stepfunctions", "sqs", "events", "lambda", "dynamodb"):
            api(service)  # Clients are made by one thread.
        self._threads = [
            threading.Thread(target=self._run, args=(work, str(place)), name=f"client-{place}", daemon=True)
            for place, work in enumerate(works)
        ]

    def start(self) -> "Clients":
        """Let them work."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Let them end after what they are at."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until all of them have ended."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), f"{thread.name} hangs"

    def _run(self, work: Callable[[random.Random], None], name: str) -> None:
        try:
            work(random.Random(f"{self._seed}/{name}"))
        except BaseException as error:  # noqa: BLE001 - a client's top frame: the rounds judge how it ended
            self.errors.append((getattr(work, "__name__", name), time.monotonic(), error))

    def _pause(self, source: random.Random) -> None:
        self._stopping.wait(source.uniform(0, PAUSE_LIMIT_S))

    # ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _start_again(self, source: random.Random) -> None:
        """Ask again for what was not answered: the same name and input start one execution."""
        for run in self._book.unacknowledged():
            if (
                self._book.kinds[run.machine].type == "STANDARD"
                and source.random() < 0.7
                and not self._stopping.is_set()
            ):
                self.start_run(run)

    def _start_new(self, source: random.Random) -> None:
        weights = {name: kind.weight for name, kind in self._book.kinds.items() if kind.weight}
        machines = source.choices(list(weights), list(weights.values()), k=source.randrange(2, STARTS_LIMIT))
        if source.random() < 0.25 and not self._book.of("map"):
            machines.insert(0, "map")
        if self._with_function:
            machines.insert(source.randrange(len(machines)), "functions")
        for place, machine in enumerate(machines):
            if self._stopping.is_set():
                return
            until = datetime.now(UTC) + timedelta(seconds=source.uniform(0, WAIT_LIMIT_S))
            name = f"{machine}-{self._number}-{place}{'x' * source.randrange(2)}"
            self.start_run(self._book.begin(machine, name, input_of(machine, until.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))))
            if source.random() < 0.5:
                self._stop_one(source)
            self._pause(source)

    def start_run(self, run: Run) -> None:
        """Start an execution; one that was started before an answer was lost may have ended since."""
        try:
            self._api("stepfunctions").start_execution(
                stateMachineArn=machine_arn(run.machine), name=run.name, input=json.dumps(run.input)
            )
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "ExecutionAlreadyExists", error
        run.acknowledged = True

    def _stop_one(self, source: random.Random) -> None:
        runs = self._book.of("stopped")
        if runs:
            self.stop_run(source.choice(runs))

    def stop_run(self, run: Run) -> None:
        """Stop an execution; one that has ended stays as it is."""
        run.stop_began = True
        self._api("stepfunctions").stop_execution(executionArn=run.arn, error="Stopped", cause="By the rounds.")

    def _put_events(self, source: random.Random) -> None:
        """Put events that start executions, and invoke the function without waiting for it."""
        for place in range(source.randrange(5)):
            if self._stopping.is_set():
                return
            self.put_event(f"by-event-{self._number}-{place}")
            self._pause(source)
        if self._with_function and not self._stopping.is_set():
            name = f"invoked-{self._number}"
            self._book.invocations[name] = False
            self._api("lambda").invoke(
                FunctionName=FUNCTION, InvocationType="Event", Payload=json.dumps({"name": name})
            )
            self._book.invocations[name] = True
            self.put_call(f"called-{self._number}")

    def put_event(self, name: str) -> None:
        """Put an event that starts an execution."""
        self._book.events[name] = False
        self._put("Begin", name)
        self._book.events[name] = True

    def put_call(self, name: str) -> None:
        """Put an event that invokes the function."""
        self._book.invocations[name] = False
        self._put("Call", name)
        self._book.invocations[name] = True

    def _put(self, detail_type: str, name: str) -> None:
        entry = {"Source": EVENT_SOURCE, "DetailType": detail_type, "Detail": json.dumps({"name": name})}
        answer = self._api("events").put_events(Entries=[entry])
        assert answer["FailedEntryCount"] == 0, answer

    # ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _consume_asks(self, source: random.Random) -> None:
        """Answer each token as it comes; sometimes leave the message there, so that it comes again."""
        while not self._stopping.is_set():
            for message in self._messages(ASKS, source.randrange(1, 6)):
                body = json.loads(message["Body"])
                self._answer(body["token"], True, {"answer": body["name"]})
                if source.random() >= AGAIN:
                    self._delete(ASKS, message)

    def _take_tokens(self, source: random.Random) -> None:
        """Keep the tokens; they are answered some time, perhaps when the server has died and come back."""
        while not self._stopping.is_set():
            for message in self._messages(TOKENS, 10):
                body = json.loads(message["Body"])
                with self._book.lock:
                    if not self._book.answers.get(body["token"]):
                        self._book.tokens[body["token"]] = body["name"]
                self._delete(TOKENS, message)

    def _answer_tokens(self, source: random.Random) -> None:
        while not self._stopping.is_set():
            self._stopping.wait(source.uniform(0, 0.5))
            held = self._book.token(source)
            if held is None or self._stopping.is_set():
                continue
            token, name = held
            if source.random() < 0.3 and not self._book.answers.get(token):
                self._api("stepfunctions").send_task_heartbeat(taskToken=token)
                continue
            self._answer(token, *client_answer(name))
            with self._book.lock:
                del self._book.tokens[token]

    def _work(self, source: random.Random) -> None:
        """Do the activity's tasks, some of them slowly; a task whose answer the server did not live to hear times out."""
        activity, worker = arn("states", f"activity:{ACTIVITY}"), f"worker-{self._number}"
        while not self._stopping.is_set():
            try:
                task = self._impatient.get_activity_task(activityArn=activity, workerName=worker)
            except botocore.exceptions.ReadTimeoutError:
                continue  # There was nothing to do.
            if not task.get("taskToken"):
                continue
            name = json.loads(task["input"])["name"]
            if source.random() < 0.3:
                self._pause(source)
                self._beat(task["taskToken"])
            self._answer(task["taskToken"], True, {"worked": name}, may_be_late=True)

    def _beat(self, token: str) -> None:
        try:
            self._api("stepfunctions").send_task_heartbeat(taskToken=token)
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "TaskTimedOut", error

    def _answer(self, token: str, well: bool, what: Any, *, may_be_late: bool = False) -> None:
        """Answer a token, which must be accepted exactly once."""
        states, answers = self._api("stepfunctions"), self._book.answers[token]
        before = list(answers)
        answers.append(False)
        try:
            if well:
                states.send_task_success(taskToken=token, output=json.dumps(what))
            else:
                states.send_task_failure(taskToken=token, error=what["Error"], cause=what["Cause"])
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "TaskTimedOut", error
            assert before or may_be_late, f"REFUSED: the first answer of token {token} got {error}"
        else:
            assert True not in before, f"ANSWERED TWICE: token {token}"
            answers[-1] = True

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _receive(self, queue_name: str) -> Callable[[random.Random], None]:
        """Return a consumer that notes each message, then deletes it."""

        def consume(source: random.Random) -> None:
            while not self._stopping.is_set():
                for message in self._messages(queue_name, source.randrange(1, 11)):
                    body, id_ = message["Body"], message["MessageId"]
                    assert id_ not in self._book.deleted, f"RECEIVED AFTER IT WAS DELETED: {body} of {queue_name}"
                    if body not in self._book.received:
                        self._book.order.append(body)
                    self._book.received[body].add(id_)
                    self._delete(queue_name, message)
                    self._book.deleted.add(id_)

        return consume

    def _messages(self, queue_name: str, limit: int) -> list[dict[str, Any]]:
        answer = self._api("sqs").receive_message(
            QueueUrl=queue_url(queue_name), MaxNumberOfMessages=limit, WaitTimeSeconds=1
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    def _delete(self, queue_name: str, message: dict[str, Any]) -> None:
        try:
            self._api("sqs").delete_message(QueueUrl=queue_url(queue_name), ReceiptHandle=message["ReceiptHandle"])
        except botocore.exceptions.ClientError as error:
            # We were too slow: it became visible again, and comes again.
            assert queue_name == SENT_FIFO and "expired" in str(error), error
