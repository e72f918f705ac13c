"""The whole path in one minute: a fresh stack, real uploads with the system's sftp, deliveries, timelines, checksums.

Run it with `make demo`. Everything happens in a temporary folder and on free loopback ports; it exits 0 only when every
file arrived with the checksum it was sent with.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENTREPOT = [sys.executable, "-m", "entrepot"]
DEADLINE_S = 60.0
BIG_FILE_BYTES = 50 * 1024 * 1024


def main() -> int:
    if shutil.which("sftp") is None:
        print("The demo uploads with OpenSSH's sftp, which is not installed (Debian: apt-get install openssh-client).")
        return 1
    with tempfile.TemporaryDirectory(prefix="entrepot-demo-") as folder:
        return demo(Path(folder))


def demo(folder: Path) -> int:
    stack, local = folder / "stack", folder / "local"
    say("A new stack")
    run([*ENTREPOT, "init", str(stack)])
    print(f"  {stack} has {', '.join(sorted(entry.name for entry in stack.iterdir()))}")

    say("Start it")
    started = time.monotonic()
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*ENTREPOT, "up", str(stack), "--sftp-port", "0", "--api-port", "0", "--console-port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert server.stdout is not None
        ready = server.stdout.readline().strip()
        if not ready.startswith("ready "):
            print(f"The server did not start:\n{(folder / 'server.log').read_text()}")
            return 1
        print(f"  {ready}   ({time.monotonic() - started:.1f} s)")
        addresses = dict(word.split("=", 1) for word in ready.split()[1:])
        sent = make_files(local)
        upload(stack, local, addresses["sftp"], sent)
        rows = wait_until_delivered(stack, {f"demo/{name}" for name in sent})
        for row in rows:
            say(f"Timeline of {row['key']}")
            print(indent(output_of([*ENTREPOT, "file", row["file_id"], "-C", str(stack)])))
        good = compare(stack, rows, sent)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(30)
    say("Stopped" if code == 0 else f"The server ended with exit code {code}")
    if not good or code != 0:
        print((folder / "server.log").read_text()[-2000:])
        return 1
    print("  Keep one running:   make run        (then, in another shell: .venv/bin/entrepot status -C my-stack)")
    print("  Send it a file:     sftp -P 2222 -i my-stack/keys/demo demo@127.0.0.1")
    print('  Use AWS\'s tools:    eval "$(.venv/bin/entrepot env -C my-stack)"; aws s3 ls')
    return 0


def make_files(local: Path) -> dict[str, bytes]:
    """Write the files to send; return their content by name."""
    source = random.Random(1)
    files = {
        "report.csv": b"id,amount\n" + b"".join(b"%d,%d\n" % (i, i * 7) for i in range(200)),
        "backup.bin": source.randbytes(BIG_FILE_BYTES),
        "Größe und Maß – año.txt": "Grüße aus Köln\n".encode(),
        "2026/november/orders.json": json.dumps({"orders": list(range(50))}).encode(),
    }
    for name, content in files.items():
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes(content)
    return files


def upload(stack: Path, local: Path, address: str, sent: dict[str, bytes]) -> None:
    say("Upload with the system's sftp")
    host, _, port = address.rpartition(":")
    commands = ["-mkdir 2026", "-mkdir 2026/november"]
    commands += [f'put "{local / name}" "{name}"' for name in sent]
    command = ["sftp", "-F", "none", "-P", port, "-i", str(stack / "keys" / "demo"), "-b", "-"]
    for option in ("IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"):
        command += ["-o", option]
    began = time.monotonic()
    run([*command, f"demo@{host}"], input="\n".join(commands) + "\n")
    total = sum(map(len, sent.values()))
    print(f"  {len(sent)} files, {total / 1e6:.1f} MB in {time.monotonic() - began:.1f} s")


def wait_until_delivered(stack: Path, keys: set[str]) -> list[dict[str, str]]:
    say("Wait until they are delivered")
    end = time.monotonic() + DEADLINE_S
    while True:
        rows = json.loads(output_of([*ENTREPOT, "files", "-C", str(stack), "-o", "json"]))
        states = {row["key"]: row["status"] for row in rows}
        if all(states.get(key) == "transferred" for key in keys):
            print(indent(output_of([*ENTREPOT, "files", "-C", str(stack)])))
            return [row for row in rows if row["key"] in keys]
        if time.monotonic() > end or "failed" in states.values():
            print(output_of([*ENTREPOT, "files", "-C", str(stack)]))
            raise SystemExit("Not every file was delivered.")
        time.sleep(0.1)


def compare(stack: Path, rows: list[dict[str, str]], sent: dict[str, bytes]) -> bool:
    """Read every delivered file through the S3 API and compare its checksum with the one that was sent."""
    say("Checksums: sent, recorded, delivered")
    environment = dict(os.environ)
    for line in output_of([*ENTREPOT, "env", "-C", str(stack)]).splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        environment[name] = value.strip("'\"")
    os.environ.update(environment)
    import boto3

    s3 = boto3.client("s3")
    good = len(rows) == len(sent)
    for row in rows:
        name = row["key"].removeprefix("demo/")
        delivered = hashlib.sha256()
        for piece in s3.get_object(Bucket=row["destination_bucket"], Key=row["key"])["Body"].iter_chunks(1 << 20):
            delivered.update(piece)
        digests = {hashlib.sha256(sent[name]).hexdigest(), row["sha256"], delivered.hexdigest()}
        good = good and len(digests) == 1
        print(f"  {'equal    ' if len(digests) == 1 else 'DIFFERENT'} {row['sha256'][:16]}…  {row['key']}")
    return good


def say(text: str) -> None:
    print(f"\n── {text}", flush=True)


def indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines())


def run(command: list[str], input: str | None = None) -> None:
    done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} … failed:\n{done.stdout}{done.stderr}")


def output_of(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


if __name__ == "__main__":
    sys.exit(main())
