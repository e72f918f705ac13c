"""The previous release's code starts a stack and executions of every kind; the present code opens the stack and ends them all.

The previous code is a fixed commit of this repository's history, unpacked beside the tests and run with the same interpreter.
"""

import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.crash.clients import Api
from tests.crash.workflows.book import Book
from tests.crash.workflows.clients import Clients
from tests.crash.workflows.machines import COUNTERS, KINDS, input_of
from tests.crash.workflows.reconcile import Proof
from tests.crash.workflows.stack import make_queues, make_stack
from tests.running import Stack

PREVIOUS: Final = "d8f1302254094d5d96eea9c390b05910198b2f59"
"""The commit whose code begins. A release moves it to its own."""

ROOT: Final = Path(__file__).parents[2]
UNDER_WAY_S: Final = 4.0
"""How long those that wait for a moment wait: the first server has stopped by then."""


def _git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, timeout=60)


@pytest.fixture(scope="session")
def previous_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `src` folder of the previous code."""
    archive = _git("archive", PREVIOUS, "src")
    if archive.returncode != 0:
        message = (
            f"the commit {PREVIOUS[:12]}, whose code the upgrade begins with, is not in this repository: "
            f"{archive.stderr.decode(errors='replace').strip()}. Fetch the whole history (git fetch --unshallow)."
        )
        is_clone = _git("rev-parse", "--git-dir").returncode == 0
        is_shallow = _git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
        if os.environ.get("CI") or (is_clone and not is_shallow):
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder / "src"


class Upgrade:
    """A stack that the previous code made and serves, until `upgrade`; then the present code serves it."""

    def __init__(self, folder: Path, previous_source: Path) -> None:
        self.folder = folder
        self.files: dict[str, bytes] = {}
        self.kinds = {name: kind for name, kind in KINDS.items() if not kind.is_new}
        self.book = Book(kinds=self.kinds)
        self._previous = {"PYTHONPATH": str(previous_source)}
        assert self._run("-c", "import entrepot; print(entrepot.__file__)").startswith(str(previous_source))
        self._run("-m", "entrepot", "init", str(folder))
        self.stack = make_stack(folder, kinds=self.kinds, environment=self._previous)

    def _run(self, *arguments: str) -> str:
        """Run Python with the previous code; return what it printed."""
        environment = {**os.environ, **self._previous}
        run = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def upgrade(self) -> Stack:
        """Return the stack, ready to be served by the present code."""
        self.stack = Stack(self.folder)
        return self.stack

    def begin(self) -> None:
        """Start one execution of each kind, and put an event; the Map is the last, so that it is under way."""
        clients = self.clients()
        until = (datetime.now(UTC) + timedelta(seconds=UNDER_WAY_S)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        clients.put_event("by-event-upgrade")
        clients.put_call("called-upgrade")
        for machine in sorted(set(self.kinds) - {"by-event", "failing-child"}, key=lambda machine: machine == "map"):
            for number in range(2 if machine == "client" else 1):
                name = f"{machine}-upgrade{'d' * number}"
                clients.start_run(self.book.begin(machine, name, input_of(machine, until)))

    def clients(self) -> Clients:
        """Return clients of the server, which start nothing by themselves."""
        return Clients(Api(self.stack), self.book, 0, 1, starting=False, with_function=False)

    def upload(self, name: str, size_bytes: int) -> None:
        """Upload a file over SFTP."""
        content = self.files[name] = os.urandom(size_bytes)
        local = self.folder.parent / name
        local.write_bytes(content)
        self.stack.sftp(f"put {local} {name}")

    def statuses(self) -> set[str]:
        """Return the statuses of all executions that were started."""
        states = Api(self.stack)("stepfunctions")
        runs = [run for run in self.book.runs.values() if self.kinds[run.machine].type == "STANDARD"]
        return {states.describe_execution(executionArn=run.arn)["status"] for run in runs}


@pytest.fixture
def upgrade(tmp_path: Path, previous_source: Path) -> Iterator[Upgrade]:
    made = Upgrade(tmp_path / "stack", previous_source)
    try:
        yield made
    finally:
        if made.stack.process is not None:
            made.stack.kill()


def _content(api: Api, key: str) -> bytes:
    answer: Any = api("s3").get_object(Bucket="my-destination-bucket", Key=f"demo/{key}")
    return bytes(answer["Body"].read())


@pytest.mark.timeout(180)
@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
def test_what_the_previous_code_began_ends_under_this_one(upgrade: Upgrade, end: str, tmp_path: Path) -> None:
    stack, book = upgrade.stack.start(), upgrade.book
    before = Api(stack)
    make_queues(before)
    upgrade.upload("delivered.bin", 100_000)
    delivered = stack.delivered("demo/delivered.bin")
    before("dynamodb").put_item(TableName=COUNTERS, Item={"key": {"S": "by-event-before"}, "event": {"N": "1"}})
    upgrade.upload("queued.bin", 200_000)
    upgrade.begin()
    assert "RUNNING" in upgrade.statuses()
    time.sleep(0.1)  # The Map is under way.
    if end == "SIGTERM":
        assert stack.stop() == 0
    else:
        stack.kill()

    book.born()
    stack = upgrade.upgrade().start()
    after = Api(stack)
    assert "RUNNING" in upgrade.statuses(), "the first server left nothing to do"
    assert stack.delivered("demo/queued.bin")["sha256"] != delivered["sha256"]
    assert stack.delivered("demo/delivered.bin") == delivered
    assert {name: _content(after, name) for name in upgrade.files} == upgrade.files
    clients = upgrade.clients().start()
    try:
        proof = Proof(after, book, clients)
        proof.run()
        proof.check_everything()
    finally:
        clients.stop()
    assert proof.checked >= len(upgrade.kinds)
    assert stack.stop() == 0
    assert "all as recorded" in stack.entrepot("scrub")
