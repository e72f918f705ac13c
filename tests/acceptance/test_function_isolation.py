"""What a function can reach, told by real functions: with all that this machine gives, and with Landlock alone."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from entrepot.sandbox import guard, kernel
from entrepot.services.lambda_.isolation import Isolation, IsolationError
from tests.acceptance.functions_house import House, alive, close_house, mark, open_house, until

pytestmark = pytest.mark.skipif(kernel.landlock_abi() < 6, reason="this kernel's Landlock is too old")


@pytest.fixture(params=["all", "landlock alone"])
async def house(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[House]:
    house = await open_house(tmp_path)
    if request.param == "landlock alone":
        house.lambda_.pool.isolation.features = frozenset({guard.LANDLOCK})
    yield house
    await close_house(house)


def in_own_root(house: House) -> bool:
    return house.lambda_.pool.isolation.has(guard.NAMESPACES)


TRY = """
import os, socket

def attempt(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return type(error).__name__
    return "done"

def read(path):
    os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)

def write(path):
    with open(path, "w") as file:
        file.write("x")

def lambda_handler(event, context):
    action = {"read": read, "write": write, "unlink": os.unlink, "mkdir": os.mkdir, "kill": lambda pid: os.kill(int(pid), 0)}
    return {path: attempt(action[event["action"]], path) for path in event["paths"]}
"""


async def test_a_function_cannot_read_what_is_not_its_own(house: House) -> None:
    stack = house.folder
    for name in ("stack.toml", "keys/operator.json", "data/ledger.db", "home/notes"):
        (stack / name).parent.mkdir(exist_ok=True)
        (stack / name).write_text("secret")
        (stack / name).chmod(0o644)  # not its mode protects it
    await house.put("SECRET = 1\ndef lambda_handler(event, context): return 1", name="other")
    await house.answer(name="other")
    (other,) = {path.parent for path in (stack / "lambda" / "code").glob("*/handler.py")}
    await house.put(TRY)
    paths = [
        *(
            str(stack / name)
            for name in ("ledger.db", "stack.toml", "keys/operator.json", "data/ledger.db", "home/notes")
        ),
        str(stack),
        str(stack / "lambda" / "scratch"),
        str(other / "handler.py"),
        "/etc/shadow",
        "/root/.bashrc",
        str(Path.home()),
        f"/proc/{os.getpid()}/environ",
        f"/proc/{os.getpid()}/mem",
        f"/proc/{os.getpid()}/root/etc/shadow",
        f"/proc/{os.getpid()}/cwd",
        "/dev/mem",
        "/dev/kmsg",
    ]
    found = await house.answer({"action": "read", "paths": paths})
    readable = [path for path, outcome in found.items() if outcome == "done"]
    if in_own_root(house):  # a folder that leads to Python's own may exist, with nothing else in it
        assert set(readable) <= {str(Path.home())}
        inside = await house.answer({"action": "read", "paths": [str(path) for path in Path.home().glob("*")]})
        assert "done" not in {outcome for path, outcome in inside.items() if not path.endswith(".pyenv")}
    else:
        assert not readable


async def test_a_function_reads_its_code_and_the_system(house: House) -> None:
    await house.put(TRY)
    task = (await house.answer({"action": "read", "paths": []}), "/var/task" if in_own_root(house) else None)[1]
    paths = [
        *([task, f"{task}/handler.py"] if task else []),
        "/usr/bin/env",
        "/etc/hosts",
        "/dev/urandom",
        "/proc/self/status",
    ]
    found = await house.answer({"action": "read", "paths": paths})
    assert set(found.values()) == {"done"}, found


async def test_a_function_writes_to_its_scratch_folder_only(house: House) -> None:
    await house.put(
        TRY
        + """
def lambda_handler(event, context):
    scratch = os.environ["TMPDIR"]
    places = [os.environ["LAMBDA_TASK_ROOT"], *event]
    return [attempt(write, scratch + "/file"), attempt(os.mkdir, scratch + "/folder"), scratch,
            {place: attempt(write, place + "/written-by-a-function") for place in places},
            attempt(os.unlink, os.environ["LAMBDA_TASK_ROOT"] + "/handler.py")]
"""
    )
    places = ["/", "/usr", "/etc", "/dev", "/root", "/var", "/var/tmp", "/proc", str(house.folder), "/home"]
    places += [] if in_own_root(house) else ["/tmp"]
    file, folder, scratch, elsewhere, unlink = await house.answer(places)
    assert (file, folder) == ("done", "done")
    assert (scratch == "/tmp") == in_own_root(house)
    assert "done" not in elsewhere.values(), elsewhere
    assert unlink != "done"
    assert not Path("/tmp/file").exists() and not Path("/tmp/written-by-a-function").exists()


async def test_a_function_may_call_out_but_not_listen(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        await house.put(
            TRY
            + f"""
def lambda_handler(event, context):
    return [attempt(socket.create_connection, ("127.0.0.1", {server.getsockname()[1]})),
            attempt(socket.create_server, ("127.0.0.1", 0))]
"""
        )
        assert await house.answer() == ["done", "PermissionError"]


async def test_a_function_cannot_signal_the_server(house: House) -> None:
    await house.put(TRY)
    found = await house.answer({"action": "kill", "paths": [str(os.getpid()), str(os.getppid())]})
    assert set(found.values()) <= {"PermissionError", "ProcessLookupError"}


async def test_no_file_of_the_server_is_inherited_and_no_privilege(house: House) -> None:
    await house.put(
        """
        import os
        def lambda_handler(event, context):
            names = [n for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")]
            files = {n: os.readlink(f"/proc/self/fd/{n}") for n in names}
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))
            return [files, {name: status[name].strip() for name in ("NoNewPrivs", "CapEff", "CapPrm", "CapBnd")}, os.getuid()]
        """
    )
    files, status, uid = await house.answer()
    opened = [target for n, target in files.items() if int(n) > 3]
    assert not [
        target for target in opened if not target.startswith(("anon_inode:", "socket:", "pipe:", "/proc/", "/dev/"))
    ]
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert (uid != 0) == house.lambda_.pool.isolation.has(guard.USER) or os.getuid() != 0


async def test_a_function_cannot_get_privileges_in_a_namespace_of_its_own(house: House) -> None:
    if not in_own_root(house):
        pytest.skip("Landlock alone lets a process make a user namespace; its rules hold there too")
    await house.put(
        """
        import ctypes, os
        def lambda_handler(event, context):
            libc = ctypes.CDLL(None, use_errno=True)
            def denied(result):
                return result == -1 and ctypes.get_errno() in (1, 13)
            return [denied(libc.unshare(0x10000000)), denied(libc.chroot(b"/tmp")),
                    denied(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)), denied(libc.setuid(0))]
        """
    )
    assert await house.answer() == [True] * 4


async def test_what_leaves_the_session_dies_with_the_function(house: House) -> None:
    await house.put(
        """
        import os, subprocess, time
        def lambda_handler(event, context):
            subprocess.run(["sh", "-c", f"setsid -f sleep {event[0]}; setsid -f setsid -f sleep {event[0]}"], check=True)
            print("started")
            if event[1] == "hang":
                time.sleep(100)
            if event[1] == "exit":
                os._exit(3)
        """,
        timeout_s=1,
    )
    for how in ("hang", "exit"):
        sleep, before = mark(), len(house.lines)
        task = asyncio.ensure_future(house.invoke([sleep, how]))
        await until(lambda before=before: any("started" in line.message for _, _, line in house.lines[before:]))  # type: ignore[misc]
        assert (await task).function_error == "Unhandled"
        assert not alive(sleep), how


async def test_what_computes_between_invocations_is_ended(house: House) -> None:
    await house.put(
        """
        import subprocess
        def lambda_handler(event, context):
            subprocess.Popen(["sh", "-c", "while true; do :; done", event])
        """
    )
    burner = mark()
    await house.invoke(burner)
    await until(lambda: bool(alive(burner)))
    await until(lambda: not alive(burner))
    await until(lambda: house.lambda_.pool.counts("demo")[0] == 0)


async def test_a_memory_hog_in_a_grandchild_is_ended_with_awss_words(house: House) -> None:
    await house.put(
        """
        import subprocess, sys
        def lambda_handler(event, context):
            code = "import time\\nkept = []\\nwhile True:\\n    kept.append(bytearray(1_000_000)); time.sleep(0.002)"
            subprocess.run([sys.executable, "-c", code], start_new_session=True)
        """,
        timeout_s=30,
    )
    result = await house.invoke()
    text = f"RequestId: {result.request_id} Error: Runtime exited with error: signal: killed"
    assert result.error() == ("Runtime.OutOfMemory", text)


async def test_packages_that_a_function_brings_along_are_its_own(house: House) -> None:
    folder = house.folder / "source-demo" / "boto3"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("__version__ = 'mine'\n")
    await house.put("import boto3\ndef lambda_handler(event, context): return boto3.__version__")
    assert await house.answer() == "mine"


async def test_credentials_of_one_function_are_not_in_anothers_memory(house: House) -> None:
    await house.put(
        "def lambda_handler(event, context): return 1", name="first", environment={"TOKEN": "swordfish-1234"}
    )
    await house.answer(name="first")
    await house.put(
        """
        def lambda_handler(event, context):
            needle, found = bytes(reversed(b"4321-hsifdrows")), 0
            with open("/proc/self/mem", "rb", 0) as memory:
                for line in open("/proc/self/maps"):
                    area, mode = line.split()[:2]
                    if mode[0] != "r" or "[v" in line:
                        continue
                    start, end = (int(part, 16) for part in area.split("-"))
                    memory.seek(start)
                    try:
                        content = memory.read(end - start)
                    except OSError:
                        continue
                    found += content.count(needle) - (id(needle) in range(start, end))
            return found
        """,
        name="second",
        memory_size_mb=1024,
        timeout_s=30,
    )
    assert await house.answer(name="second") <= 1, "nothing but the search's own copies"


async def test_enforce_refuses_to_start_when_a_part_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    isolation: Any = Isolation("enforce")
    monkeypatch.setattr(isolation, "_open_cgroups", lambda: {"memory": "it is not delegated"})
    with pytest.raises(IsolationError, match=r"no memory control group \(it is not delegated\): a function's memory"):
        await isolation.check()
    isolation = Isolation("best-effort")
    monkeypatch.setattr(isolation, "_open_cgroups", lambda: {"memory": "it is not delegated"})
    assert "memory control group" in [gap.what for gap in await isolation.check()]
