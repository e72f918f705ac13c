"""Real worker processes: what a handler sees, and what happens when it misbehaves."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from entrepot import clock
from entrepot.services.lambda_.errors import TooManyRequestsError
from entrepot.services.lambda_.output import INVOCATION_LIMIT_BYTES
from tests.acceptance.functions_house import ROLE, House, alive, close_house, mark, open_house, until


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[House]]]:
    houses: list[House] = []

    async def build(**options: Any) -> House:
        houses.append(await open_house(tmp_path, **options))
        return houses[-1]

    yield build
    for house in houses:
        await close_house(house)


async def test_one_worker_serves_again_and_again_with_a_real_context(make: Any) -> None:
    house = await make()
    await house.put(
        """
        import os
        print("loading")
        def lambda_handler(event, context):
            print("working on", event["n"])
            return [context.log_stream_name, context.aws_request_id, context.function_name, context.memory_limit_in_mb,
                    context.log_stream_name, context.log_group_name, context.invoked_function_arn,
                    context.get_remaining_time_in_millis(), context.function_version]
        """,
        timeout_s=7,
        memory_size_mb=256,
    )
    first, second = await house.answer({"n": 1}), await house.answer({"n": 2})
    assert first[0] == second[0], "the worker is warm"
    assert first[1] != second[1]
    stream = house.lines[0][1]
    assert first[2:7] == [
        "demo",
        "256",
        stream,
        "/aws/lambda/demo",
        "arn:aws:lambda:us-east-1:000000000000:function:demo",
    ]
    assert 6_000 < first[7] <= 7_000
    assert stream.startswith(f"{clock.now():%Y/%m/%d}/[$LATEST]") and len(stream) == 11 + 9 + 32
    messages = [line.message for _, _, line in house.lines]
    assert messages[:4] == [
        f"START RequestId: {first[1]} Version: $LATEST\n",
        "loading\n",
        "working on 1\n",
        f"END RequestId: {first[1]}\n",
    ]
    assert messages[4].startswith(f"REPORT RequestId: {first[1]}\tDuration: ") and "Init Duration: " in messages[4]
    assert "Init Duration" not in messages[-1]


async def test_the_environment_is_the_documented_one(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTREPOT_SECRET", "the server's")
    monkeypatch.setenv("AWS_PROFILE", "the operator's")
    house = await make()
    await house.put(
        """
        import os, boto3, sys
        def lambda_handler(event, context):
            keys = boto3.Session().get_credentials()
            client = boto3.client("s3")
            files = sorted(os.readlink(f"/proc/self/fd/{n}").split(":")[0] for n in os.listdir("/proc/self/fd")
                           if os.path.exists(f"/proc/self/fd/{n}"))
            return [dict(os.environ), keys.access_key, keys.token, client.meta.endpoint_url, os.getcwd(), files,
                    [l for l in open("/proc/self/status") if l.startswith("NoNewPrivs")]]
        """,
        environment={"STAGE": "test"},
        timeout_s=20,
    )
    environment, key, token, endpoint, cwd, files, privileges = await house.answer()
    assert environment["STAGE"] == "test"
    assert not [name for name in environment if name.startswith(("ENTREPOT", "PYTEST", "VIRTUAL", "AWS_PROFILE"))]
    assert environment["HOME"] == environment["TMPDIR"] != os.environ.get("HOME")
    assert (key, token, endpoint) == ("ASIAEXAMPLE", ROLE, "http://127.0.0.1:4566")
    assert cwd == environment["LAMBDA_TASK_ROOT"]
    assert not [name for name in files if "ledger.db" in name], "no file of the server is open in the worker"
    assert privileges == ["NoNewPrivs:\t1\n"]


async def test_what_a_handler_raises_comes_back_as_awslambdaric_says(make: Any) -> None:
    house = await make()
    await house.put(
        """
        class Mine(Exception): pass
        def lambda_handler(event, context):
            if event == "garbage":
                return {"x": object()}
            raise Mine("it broke")
        """
    )
    result = await house.invoke("raise", want_tail=True)
    document = json.loads(result.payload)
    assert (result.function_error, document["errorType"], document["errorMessage"]) == ("Unhandled", "Mine", "it broke")
    assert "handler.py" in document["stackTrace"][0]
    assert b"[ERROR] Mine: it broke\nTraceback" in result.log_tail
    result = await house.invoke("garbage")
    assert result.error() is not None and result.error()[0] == "Runtime.MarshalError"
    assert house.lambda_.pool.counts("demo")[:2] in ((1, 0), (0, 1)), "the worker lives on"


async def test_a_timeout_kills_the_handler_and_what_it_started(make: Any) -> None:
    house = await make()
    await house.put(
        """
        import subprocess, sys, time
        def lambda_handler(event, context):
            if event is None:
                return "fine"
            subprocess.Popen(["sleep", event])
            subprocess.Popen(["sh", "-c", f"setsid -f sleep {event}"], start_new_session=True).wait()
            print("children")
            time.sleep(1000)
        """,
        timeout_s=1,
    )
    sleep = mark()
    running = asyncio.ensure_future(house.invoke(sleep))
    await until(lambda: "children" in house.text())
    assert len(alive(sleep)) == 2, "a child, and a grandchild in a session of its own"
    result = await running
    await until(lambda: not alive(sleep))
    assert json.loads(result.payload) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {result.request_id} Error: Task timed out after 1.00 seconds",
    }
    assert "Task timed out after 1.00 seconds" in house.text() and "Status: timeout" in house.text()
    assert await house.answer() == "fine", "the next invocation gets a new worker"


async def test_exits_are_reported_and_the_next_invocation_is_served(make: Any) -> None:
    house = await make()
    await house.put(
        """
        import os, signal, sys
        def lambda_handler(event, context):
            if event == "exit": sys.exit(1)
            if event == "zero": os._exit(0)
            if event == "segv": os.kill(os.getpid(), signal.SIGSEGV)
            return "fine"
        """
    )
    for event, reason in (
        ("exit", "Runtime exited with error: exit status 1"),
        ("zero", "Runtime exited without providing a reason"),
        ("segv", "Runtime exited with error: signal: segmentation fault"),
    ):
        result = await house.invoke(event)
        assert result.error() == ("Runtime.ExitError", f"RequestId: {result.request_id} Error: {reason}")
    assert await house.answer() == "fine"


async def test_a_handler_that_cannot_be_loaded_is_tried_again_next_time(make: Any) -> None:
    house = await make()
    await house.put("import does_not_exist")
    results = await asyncio.gather(*(house.invoke() for _ in range(3)))
    for result in results:
        assert result.error() == (
            "Runtime.ImportModuleError",
            "Unable to import module 'handler': No module named 'does_not_exist'",
        )
        assert json.loads(result.payload)["requestId"] == result.request_id
    assert "[ERROR] Runtime.ImportModuleError" in house.text()
    await house.put("def lambda_handler(event, context): return 'mended'")
    assert await house.answer() == "mended"
    await house.put("def other(event, context): return 1", name="missing")
    result = await house.invoke(name="missing")
    assert result.error() == ("Runtime.HandlerNotFound", "Handler 'lambda_handler' missing on module 'handler'")
    await house.put("import os; os._exit(4)", name="dies")
    result = await house.invoke(name="dies")
    assert result.error() is not None and result.error()[1].endswith("Runtime exited with error: exit status 4")


async def test_a_hundred_megabytes_of_output_hurt_nobody(make: Any) -> None:
    house = await make()
    await house.put(
        """
        import sys
        def lambda_handler(event, context):
            block = "x" * 1023 + "\\n"
            for _ in range(90):
                sys.stdout.write(block * 1024)
            sys.stdout.write("y" * 10_000_000)
            return "done"
        """,
        timeout_s=60,
    )
    assert await house.answer() == "done"
    logged = sum(len(line.message) for _, _, line in house.lines)
    assert INVOCATION_LIMIT_BYTES / 2 < logged < INVOCATION_LIMIT_BYTES + 10_000
    assert "bytes of log output were dropped" in house.text()
    assert max(len(line.message) for _, _, line in house.lines) <= 256 * 1024


async def test_a_memory_hog_is_ended(make: Any) -> None:
    house = await make()
    await house.put(
        """
        import time
        def lambda_handler(event, context):
            if event == "fine": return event
            if event == "at once": return len(bytearray(4_000_000_000))
            kept = []
            while True:
                kept.append(bytearray(2_000_000))
                time.sleep(0.005)
        """,
        timeout_s=30,
    )
    result = await house.invoke("slowly")
    assert result.error() == (
        "Runtime.OutOfMemory",
        f"RequestId: {result.request_id} Error: Runtime exited with error: signal: killed",
    )
    result = await house.invoke("at once")
    assert result.error() is not None and result.error()[0] == "MemoryError"
    assert await house.answer("fine") == "fine"


async def test_a_fork_bomb_is_ended(make: Any) -> None:
    house = await make()
    await house.put(
        """
        import os, time
        def lambda_handler(event, context):
            for _ in range(100_000):
                if os.fork() == 0:
                    time.sleep(1000)
                    os._exit(0)
        """,
        name="forkbomb",
        timeout_s=30,
        memory_size_mb=10_240,
    )
    result = await house.invoke(name="forkbomb")
    assert result.function_error == "Unhandled"
    await until(lambda: not alive("forkbomb"))


async def test_a_response_that_is_too_large_is_refused(make: Any) -> None:
    house = await make()
    await house.put("def lambda_handler(event, context): return 'x' * event", timeout_s=20)
    assert len(await house.answer(6_000_000)) == 6_000_000
    result = await house.invoke(7_000_000)
    assert result.error() is not None and result.error()[0] == "Function.ResponseSizeTooLarge"
    assert await house.answer(3) == "xxx"


async def test_concurrency_is_limited_and_waiting_is_bounded(make: Any) -> None:
    house = await make(worker_limit=4, wait_limit_s=1.5)
    await house.put(
        """
        import time
        def lambda_handler(event, context):
            time.sleep(event)
            return context.log_stream_name
        """,
        timeout_s=20,
        reserved_concurrency=2,
    )
    workers = await asyncio.gather(*(house.answer(0.05) for _ in range(12)))
    assert len(set(workers)) == 2
    await until(lambda: house.lambda_.pool.counts("demo")[0] == 2)
    busy = [asyncio.create_task(house.answer(6)) for _ in range(2)]
    await until(lambda: house.lambda_.pool.counts("demo")[1] == 2)
    with pytest.raises(TooManyRequestsError, match="No worker of demo became free"):
        await house.invoke(0)
    for task in busy:
        task.cancel()
    await house.put("def lambda_handler(event, context): return 1", name="none", reserved_concurrency=0)
    with pytest.raises(TooManyRequestsError):
        await house.invoke(name="none")


async def test_functions_share_a_full_pool(make: Any) -> None:
    house = await make(worker_limit=1)
    for name in ("one", "two"):
        await house.put(f"def lambda_handler(event, context): return {name!r}", name=name)
    for _ in range(2):
        assert await house.answer(name="one") == "one"
        assert await house.answer(name="two") == "two"
    answers = await asyncio.gather(*(house.answer(name=name) for name in ("one", "two", "one", "two")))
    assert answers == ["one", "two", "one", "two"]


async def test_a_busy_function_cannot_starve_another(make: Any) -> None:
    house = await make(worker_limit=1)
    await house.put("import time\ndef lambda_handler(event, context): time.sleep(0.1)", name="busy")
    await house.put("def lambda_handler(event, context): return 'served'", name="quiet")
    busy = [asyncio.create_task(house.invoke(name="busy")) for _ in range(60)]
    await until(lambda: house.lambda_.pool.counts("busy")[1] == 1)
    assert await house.answer(name="quiet") == "served"
    assert not all(task.done() for task in busy), "it was served before the other's queue was empty"
    for task in busy:
        task.cancel()


async def test_minimum_warm_workers_wait_before_the_first_invocation(make: Any) -> None:
    house = await make()
    await house.put("def lambda_handler(event, context): return 1", minimum_warm=1)
    await until(lambda: house.lambda_.pool.counts("demo")[0] == 1)
    await house.put("def lambda_handler(event, context): return 2", minimum_warm=1)
    assert await house.answer() == 2, "a new deployment replaces the warm worker"


async def test_asynchronous_invocations_are_retried_and_then_dead(make: Any) -> None:
    house = await make(retry_delays_s=(0.05, 0.05))
    await house.put(
        """
        import collections
        counts = collections.Counter()
        def lambda_handler(event, context):
            counts[event["name"]] += 1
            if event["good"] is None:
                return counts
            if counts[event["name"]] < event["good"]:
                raise ValueError(f"attempt {counts[event['name']]}")
        """,
        reserved_concurrency=1,
    )
    lambda_ = house.lambda_
    for name, good in (("a", 3), ("b", 99)):
        payload = json.dumps({"name": name, "good": good}).encode()
        await lambda_.database.write(lambda tx, payload=payload: lambda_.invoke_async(tx, "demo", payload))
    await until(lambda: "given up" in house.text())
    dead = await lambda_.async_invocations.dead()
    assert [(row[1], row[3], row[5]) for row in dead] == [("demo", 3, "ValueError: attempt 3")]
    counts = await house.answer({"name": "c", "good": None})
    assert counts == {"a": 3, "b": 3, "c": 1}


async def test_nobody_else_can_speak_to_a_workers_runtime_api(make: Any) -> None:
    house = await make()
    await house.put("import os\ndef lambda_handler(event, context): return os.environ['AWS_LAMBDA_RUNTIME_API']")
    host, port = (await house.answer()).split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert await house.answer(), "the worker is not disturbed"


SERVER = """
import asyncio, sys
from pathlib import Path
from types import SimpleNamespace
from entrepot.arns import Account
from entrepot.database.sqlite import SQLiteDatabase
from entrepot.services.lambda_ import MIGRATIONS, FunctionConfiguration, Lambda

async def main(folder):
    database = SQLiteDatabase(folder / "ledger.db")
    database.migrate(MIGRATIONS)
    service = Lambda(
        database, Account(), folder=folder / "lambda", endpoint_url=lambda: "http://127.0.0.1:1",
        issue_credentials=lambda role, session: SimpleNamespace(
            access_key_id="A", secret_access_key="S", session_token="T", expires_at_ms=None),
        write_log=lambda group, stream, line: print(line.message, end="", flush=True))
    await service.start()
    await database.write(lambda tx: service.put_function(tx, FunctionConfiguration(
        "demo", "arn:aws:iam::000000000000:role/demo", "handler.lambda_handler", timeout_s=60,
        code_folder=folder / "source-demo")))
    await service.invoke("demo", b"{}")

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_workers_die_with_a_server_that_is_killed(make: Any, tmp_path: Path) -> None:
    source = tmp_path / "source-demo"
    source.mkdir()
    (source / "handler.py").write_text(
        "import subprocess, time\n"
        "def lambda_handler(event, context):\n"
        f"    subprocess.Popen(['sleep', '{(sleep := mark())}'])\n"
        f"    subprocess.Popen(['sleep', '{sleep}'], start_new_session=True)\n"
        "    print('children')\n"
        "    time.sleep(1000)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert next(line for line in server.stdout if line.startswith("children"))
        assert len(alive(sleep)) == 2
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
        server.stdout.close()
    await until(lambda: not alive(sleep))
    await make()  # the next server on the same folder removes what is left
    assert not list((tmp_path / "lambda" / "scratch").glob("*"))
