"""The commands as programs and people use them: stable JSON, clean pipes, clear refusals, work beside a running server."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import ENTREPOT, Stack

LAMBDA_GROUP = "/aws/lambda/transfer"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One running stack with one delivered file; these tests do not change it."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "a.csv").write_text("a,b\n")
    with Stack(folder / "stack") as stack:
        stack.sftp(f'put {folder}/a.csv "{"Größe " * 20}.csv"')
        stack.delivered(f"demo/{'Größe ' * 20}.csv")
        yield stack


def newest(stack: Stack) -> dict[str, Any]:
    row: dict[str, Any] = stack.json("files")[0]
    return row


KEYS: dict[tuple[str, ...], set[str]] = {
    ("status",): {"started_at", "pid", "sftp", "api", "files", "sessions", "pending_deliveries", "dead_letters"},
    ("env",): {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"},
    ("files",): {"file_id", "key", "source_bucket", "destination_bucket", "customer_id", "size_bytes", "sha256", "status",
                 "upload_timestamp", "transfer_timestamp", "error_message", "execution_arn"},
    ("executions",): {"executionArn", "stateMachineArn", "name", "status", "startDate", "stopDate"},
    ("users",): {"UserName", "HomeDirectory", "HomeDirectoryType", "Role", "SshPublicKeys"},
    ("sessions", "--all"): {"session_id", "user_name", "source_ip", "client_version", "login_at", "bytes_in", "bytes_out"},
    ("logs",): {"logGroupName", "storedBytes", "arn"},
    ("logs", LAMBDA_GROUP): {"timestamp", "message", "logStreamName", "eventId"},
    ("check",): {"valid", "buckets", "users", "rules", "state_machines", "functions"},
    ("scrub",): {"checked", "damaged"},
}  # fmt: skip


@pytest.mark.parametrize("command", KEYS, ids=" ".join)
def test_json_has_stable_keys(served: Stack, command: tuple[str, ...]) -> None:
    found = served.json(*command)
    rows = found if isinstance(found, list) else [found]
    assert rows
    for row in rows:
        assert set(row) >= KEYS[command]


def test_one_file_and_one_execution_as_json(served: Stack) -> None:
    row = newest(served)
    file = served.json("file", row["file_id"])
    assert {**file, "timeline": None} == {**row, "timeline": None}
    assert all(set(entry) == {"timestamp", "kind", "title", "detail"} for entry in file["timeline"])
    execution = served.json("execution", row["execution_arn"])
    assert set(execution) >= {"executionArn", "status", "startDate", "stopDate", "input", "output", "events"}
    refused = run("redrive", row["file_id"], "--dry-run", "-o", "json", "-C", str(served.folder))
    assert refused.returncode == 1
    assert [(told["file_id"], told["code"]) for told in json.loads(refused.stdout)] == [
        (row["file_id"], "ValidationException")
    ]


def test_the_timeline_has_the_file_s_log_lines_once_in_causal_order(served: Stack) -> None:
    timeline = served.json("file", newest(served)["file_id"])["timeline"]
    titles = [entry["title"] for entry in timeline]
    order = ["demo logged in", "Uploaded by demo (PutObject)", "Event Object Created", "Rule object-created matched",
             "Execution started", "State IdentifyFile entered", "State TransferFile entered", "Copied to the destination",
             "Transferred", "Execution succeeded"]  # fmt: skip
    assert [title for title in titles if title in order] == order
    logged = [entry["detail"] for entry in timeline if entry["title"] == LAMBDA_GROUP]
    assert [line.split()[0] for line in logged] == ["START", "END", "REPORT"]
    states = [json.loads(e["detail"])["type"] for e in timeline if e["title"] == "/aws/vendedlogs/states/transfer"]
    assert states[0] == "ExecutionStarted"
    assert states[-1] == "ExecutionSucceeded"
    assert len(states) == 9


def test_piped_output_is_clean(served: Stack) -> None:
    row = newest(served)
    for command in (*KEYS, ("file", row["file_id"]), ("execution", row["execution_arn"])):
        text = served.entrepot(*command)
        assert text.endswith("\n")
        assert "\x1b" not in text
        for line in text.splitlines():
            assert line == line.rstrip(), f"entrepot {' '.join(command)}: {line!r}"
    lines = served.entrepot("file", row["file_id"]).splitlines()
    timeline = lines[lines.index("") :]
    assert all(len(line) <= 100 for line in timeline)


def test_env_evaluates_in_sh(served: Stack) -> None:
    script = f'eval "$({" ".join(ENTREPOT)} env -C "$STACK")" && printf "%s\\n%s" "$AWS_ENDPOINT_URL" "$AWS_SECRET_ACCESS_KEY"'
    environment = {"PATH": os.environ["PATH"], "STACK": str(served.folder)}
    told = subprocess.run(["sh", "-ec", script], env=environment, capture_output=True, text=True, check=True).stdout
    variables = served.json("env")
    assert told.splitlines() == [variables["AWS_ENDPOINT_URL"], variables["AWS_SECRET_ACCESS_KEY"]]


@pytest.mark.parametrize("output", ["table", "json"])
def test_following_logs_ends_on_ctrl_c(served: Stack, output: str) -> None:
    command = [*ENTREPOT, "logs", LAMBDA_GROUP, "--follow", "-C", str(served.folder), "-o", output]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert following.stdout is not None
    line = following.stdout.readline()
    assert "START RequestId" in line
    if output == "json":
        assert json.loads(line)["message"].startswith("START")
    following.send_signal(signal.SIGINT)
    rest, errors = following.communicate(timeout=20)
    assert following.returncode == 130
    assert "Traceback" not in rest + errors


def test_backup_and_scrub_beside_the_server(served: Stack, tmp_path: Path) -> None:
    target = tmp_path / "ledger.db"
    assert served.json("backup", str(target))["size_bytes"] == target.stat().st_size
    assert target.stat().st_mode & 0o077 == 0
    assert "exists" in served.entrepot("backup", str(target), expect=1)

    # The copy is a ledger that a server can start from.
    copy = Stack(tmp_path / "copy")
    for name in ("secret", "operator.json"):
        (copy.folder / "keys" / name).write_bytes((served.folder / "keys" / name).read_bytes())
    target.rename(copy.folder / "data" / "ledger.db")
    with copy:
        assert newest(copy)["file_id"] == newest(served)["file_id"]
        s3 = copy.client("s3")
        assert s3.get_object(Bucket="my-destination-bucket", Key=newest(copy)["key"])["Body"].read() == b"a,b\n"
    assert "all as recorded" in served.entrepot("scrub")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*ENTREPOT, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_init_refuses_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep me")
    told = run("init", str(tmp_path))
    assert told.returncode == 1
    assert "not an empty folder" in told.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("what", ["sftp", "api"])
def test_up_says_which_port_is_taken(tmp_path: Path, what: str) -> None:
    stack = Stack(tmp_path / "stack")
    ports = {"sftp": "0", "api": "0", "console": "0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[what] = str(taken.getsockname()[1])
        options = [word for name, port in ports.items() for word in (f"--{name}-port", port)]
        told = run("up", str(stack.folder), *options)
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1] == (
        f"entrepot: The {what} listener cannot use port {ports[what]}: Address already in use. "
        f"End what uses it, or choose another: --{what}-port N (0 = any free port)."
    )
    with stack:
        assert stack.json("status")


def test_a_stack_is_served_once(served: Stack) -> None:
    told = run("up", str(served.folder), "--sftp-port", "0", "--api-port", "0", "--console-port", "0")
    assert told.returncode == 1
    assert "running for" in told.stderr
    assert served.json("status"), "the first one still serves"
