"""A stack with a good customer and with functions that do everything wrong, and how fast the customer's files arrive.

The customer's files go over SFTP through the default function; the poison is invoked as events, so that the server itself keeps
it going. Nothing is asserted here: the acceptance test and the benchmark do different things with the numbers.
"""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.running import Stack, wait_for

POISONS = {
    "fails": "def lambda_handler(event, context): raise ValueError('always')",
    "crashes": "import os\ndef lambda_handler(event, context): os._exit(1)",
    "hangs": "import time\ndef lambda_handler(event, context): time.sleep(1000)",
    "computes": "def lambda_handler(event, context):\n    while True: pass",
    "forks": "import os\ndef lambda_handler(event, context):\n    while True:\n        os.fork()",
    "allocates": "def lambda_handler(event, context):\n    kept = []\n    while True: kept.append(bytearray(1_000_000))",
    "prints": "def lambda_handler(event, context):\n    for _ in range(100_000): print('x' * 1_000)",
    "prints lines": "def lambda_handler(event, context):\n    for _ in range(10_000): print('\\n' * 10_000, end='')",
}
"""Handlers by what they do."""

EVENTS = 60
"""Events that wait for each poison from the beginning; every EVERY_S another one comes."""

EVERY_S = 0.1


def stack_with_poison(folder: Path) -> Stack:
    """Make the default stack and add the poison functions to it."""
    stack = Stack(folder)
    sections = []
    for name, code in POISONS.items():
        place = folder / "functions" / function(name)
        place.mkdir(parents=True)
        (place / "handler.py").write_text(code + "\n")
        sections.append(
            f'[functions.{function(name)}]\nfolder = "functions/{function(name)}"\nhandler = "handler.lambda_handler"\n'
            'role = "transfer-function"\ntimeout_s = 20\n'
        )
    toml = folder / "stack.toml"
    toml.write_text(toml.read_text() + "\n" + "\n".join(sections))
    return stack


def function(poison: str) -> str:
    """Return the function's name."""
    return "poison-" + poison.replace(" ", "-")


@contextmanager
def poisoned(stack: Stack, *names: str) -> Iterator[None]:
    """Invoke the named poison functions again and again, as long as the block runs."""
    client = stack.client("lambda")
    for _ in range(EVENTS):
        for name in names:
            _send(client, name)
    stopped = threading.Event()

    def feed() -> None:
        number = 0
        while not stopped.wait(EVERY_S):
            _send(client, names[number % len(names)])
            number += 1

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        wait_for(lambda: status(stack)["functions"]["busy"] >= 1, what="a poison function at work")
        yield
    finally:
        stopped.set()
        feeder.join()


def _send(client: Any, name: str) -> None:
    client.invoke(FunctionName=function(name), InvocationType="Event", Payload=json.dumps(None).encode())


def status(stack: Stack) -> dict[str, Any]:
    """Return what GetStatus says."""
    answer: dict[str, Any] = stack.client("entrepot").get_status()
    return answer


def good_rate(stack: Stack, files: Path, run: str, count: int, *, deadline_s: float = 40.0) -> float:
    """Upload `count` small files in one OpenSSH session; return files/s until the last is delivered."""
    client = stack.client("entrepot")
    before = client.get_status()["files"].get("transferred", 0)
    commands = [f"mkdir {run}", *(f"put {files}/{i:05d} {run}/{i:05d}" for i in range(count))]
    began = time.monotonic()
    subprocess.run(
        ["sftp", *stack.ssh_options(), "-b", "-", "demo@127.0.0.1"],
        input="\n".join(commands) + "\n",
        stdout=subprocess.DEVNULL,
        text=True,
        timeout=deadline_s,
        check=True,
    )

    def delivered() -> bool:
        time.sleep(0.05)
        return bool(client.get_status()["files"].get("transferred", 0) >= before + count)

    wait_for(delivered, deadline_s=deadline_s, what=f"the delivery of {count} files ({run})")
    return count / (time.monotonic() - began)


def small_files(folder: Path, count: int) -> Path:
    """Make the files that `good_rate` sends."""
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:05d}").write_bytes(f"{i}\n".encode() * 100)
    return folder
