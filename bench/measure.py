"""What is measured. Every function takes a running server and returns numbers; nothing is asserted."""

import asyncio
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from bench.servers import Server
from tests.running import wait_for

CIPHER = "aes128-gcm@openssh.com"

POLL_S = 0.25
"""How often deliveries are asked for: seldom, for who asks takes the cores from what is measured. When each file was
delivered is in its execution."""


def run_sftp(server: Server, commands: list[str]) -> float:
    """Run a batch in one session; return the seconds of the whole command, login included."""
    began = time.perf_counter()
    done = subprocess.run(
        server.sftp("-c", CIPHER), input="\n".join(commands) + "\n", capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        raise RuntimeError(f"{server.name}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return time.perf_counter() - began


def login(server: Server) -> float:
    """Return the seconds of a session that does nothing."""
    return run_sftp(server, ["pwd"])


def bulk(server: Server, file: Path, number: int, back: Path) -> tuple[float, float]:
    """Return MB/s of one upload and one download of a file."""
    size = file.stat().st_size / 1e6
    name = f"{server.folder.rstrip('/')}/bulk-{number}.bin"
    up = run_sftp(server, [f"put {file} {name}"])
    down = run_sftp(server, [f"get {name} {back}"])
    run_sftp(server, [f"rm {name}"])
    return size / up, size / down


def small_files(server: Server, folder: Path, count: int, number: int) -> float:
    """Return files/s of `put` of many small files in one session."""
    target = f"{server.folder.rstrip('/')}/small-{number}"
    commands = [f"mkdir {target}", *(f"put {folder}/{i:05d} {target}/{i:05d}" for i in range(count))]
    return count / run_sftp(server, commands)


def sessions_at_once(server: Server, folder: Path, sessions: int, count: int, number: int) -> float:
    """Return files/s over several sessions that upload small files at the same time."""
    targets = [f"{server.folder.rstrip('/')}/many-{number}-{session}" for session in range(sessions)]
    began = time.perf_counter()
    upload_at_once(server, folder, targets, [f"{i:05d}" for i in range(count)])
    return sessions * count / (time.perf_counter() - began)


def upload_at_once(server: Server, folder: Path, targets: list[str], names: list[str]) -> None:
    """Upload the named files of a folder into each target folder, one OpenSSH session a target, all at once."""
    processes = []
    for target in targets:
        process = subprocess.Popen(
            server.sftp("-c", CIPHER),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(
            "\n".join([f"mkdir {target}", *(f"put {folder}/{name} {target}/{name}" for name in names)]) + "\n"
        )
        process.stdin.close()
        processes.append(process)
    for process in processes:
        assert process.stderr is not None
        with process.stderr:
            if process.wait(600):
                raise RuntimeError(f"{server.name}: {process.stderr.read()[-500:]}")


def list_folder(server: Server, folder: str) -> float:
    """Return the seconds of `ls -1` of one folder."""
    return run_sftp(server, [f"ls -1 {folder}"])


@dataclass(frozen=True)
class EndToEnd:
    """From the answer to the client's CLOSE to the end of the execution."""

    median_ms: float
    p95_ms: float
    files_per_s: float


def latency(server: Server, count: int, size_bytes: int = 4096) -> EndToEnd:
    """Upload one file after the other, each when the one before is delivered (asyncssh, to know when CLOSE was answered)."""
    return asyncio.run(_one_by_one(server, count, b"x" * size_bytes))


async def _one_by_one(server: Server, count: int, content: bytes) -> EndToEnd:
    closed: dict[str, float] = {}
    folder = f"{time.time_ns():x}"
    began = time.time()
    async with (
        asyncssh.connect(
            "127.0.0.1",
            server.port,
            username=server.user,
            client_keys=[str(server.key)],
            known_hosts=None,
            config=None,
        ) as connection,
        connection.start_sftp_client() as sftp,
    ):
        await sftp.mkdir(folder)
        for i in range(count):
            name = f"{folder}/{i:05d}"
            file = await sftp.open(name, "wb")
            await file.write(content)
            await file.close()
            closed[f"demo/{name}"] = time.time()
            await asyncio.sleep(0.04)
    stopped = await asyncio.to_thread(_stop_times, server, set(closed))
    took_ms = sorted((stopped[key] - at) * 1000 for key, at in closed.items())
    return EndToEnd(
        statistics.median(took_ms), took_ms[int(len(took_ms) * 0.95)], count / (max(stopped.values()) - began)
    )


def sustained(server: Server, sessions: int, count: int, folder: Path) -> float:
    """Return files/s of several OpenSSH sessions that upload as fast as they go, until the last file is delivered.

    `folder` holds `count` small files, which every session sends.
    """
    run = f"{time.time_ns():x}"
    targets = [f"{run}-{session}" for session in range(sessions)]
    names = [f"{i:05d}" for i in range(count)]
    began = time.time()
    upload_at_once(server, folder, targets, names)
    stopped = _stop_times(server, {f"demo/{target}/{name}" for target in targets for name in names})
    return sessions * count / (max(stopped.values()) - began)


def _stop_times(server: Server, keys: set[str]) -> dict[str, float]:
    """Return when each file's execution ended (seconds since the epoch), once all have."""
    stack = server.stack
    assert stack is not None

    client: Any = stack.client("entrepot")

    def delivered() -> bool:
        time.sleep(POLL_S)
        return not any(client.list_files(status=status, limit=1)["files"] for status in ("uploaded", "transferring"))

    wait_for(delivered, deadline_s=300, what="every delivery")
    keys_by_arn: dict[str, str] = {}
    token: dict[str, str] = {}
    while True:
        page = client.list_files(limit=1000, **token)
        keys_by_arn |= {row["execution_arn"]: row["key"] for row in page["files"] if row["key"] in keys}
        if not page.get("next_token"):
            break
        token = {"next_token": page["next_token"]}
    states = stack.client("stepfunctions")
    stopped: dict[str, float] = {}
    for machine in states.list_state_machines()["stateMachines"]:
        for page in states.get_paginator("list_executions").paginate(stateMachineArn=machine["stateMachineArn"]):
            for execution in page["executions"]:
                key = keys_by_arn.get(execution["executionArn"])
                if key is not None:
                    stopped[key] = execution["stopDate"].timestamp()
    missing = keys - set(stopped)
    if missing:
        raise RuntimeError(f"{len(missing)} files have no ended execution, for example {min(missing)}")
    return stopped


def resident_bytes(pid: int) -> int:
    """Return the resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def memory_per_session(server: Server, sessions: int) -> float:
    """Return how many bytes the server grows by per idle SFTP session."""
    assert server.stack is not None and server.stack.process is not None
    pid = server.stack.process.pid

    async def hold() -> float:
        before = resident_bytes(pid)
        connections = []
        for _ in range(sessions):
            connection = await asyncssh.connect(
                "127.0.0.1",
                server.port,
                username=server.user,
                client_keys=[str(server.key)],
                known_hosts=None,
                config=None,
            )
            await connection.start_sftp_client()
            connections.append(connection)
        grown = resident_bytes(pid) - before
        for connection in connections:
            connection.abort()
        return grown / sessions

    return asyncio.run(hold())
