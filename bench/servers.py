"""The servers that are compared: Entrepot, OpenSSH's sshd with internal-sftp, and rclone serve sftp."""

import getpass
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.running import Stack

COPY_WORKFLOW = {
    "StartAt": "Copy",
    "States": {
        "Copy": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:s3:copyObject",
            "Parameters": {
                "Bucket.$": "$.destination_bucket",
                "Key.$": "$.key",
                "CopySource.$": "States.Format('{}/{}', $.source_bucket, $.key)",
            },
            "End": True,
        }
    },
}


@dataclass(frozen=True)
class Server:
    """One SFTP server: how to log in, and the folder to write to."""

    name: str
    port: int
    user: str
    key: Path
    folder: str
    stack: Stack | None = None

    def sftp(self, *options: str) -> list[str]:
        """Return the command of OpenSSH's sftp for this server; the batch comes on standard input."""
        pairs = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "LogLevel=ERROR")
        command = ["sftp", "-F", "none", "-P", str(self.port), "-i", str(self.key), "-q", "-b", "-", *options]
        for pair in pairs:
            command += ["-o", pair]
        return [*command, f"{self.user}@127.0.0.1"]


@contextmanager
def entrepot(folder: Path, *, function: bool, home: str | None = None) -> Iterator[Server]:
    """Run the default stack; without `function`, its workflow is one `aws-sdk:s3:copyObject` state."""
    stack = Stack(folder / "stack")
    if not function:
        (stack.folder / "workflows" / "transfer.asl.json").write_text(json.dumps(COPY_WORKFLOW))
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        (stack.folder / "policies" / "transfer-workflow.json").write_text(json.dumps(policy))
    if home is not None:
        path = stack.folder / "stack.toml"
        path.write_text(
            path.read_text().replace('"/my-source-sftp-bucket/demo"', f'"/{home}/demo"') + f"\n[buckets.{home}]\n"
        )
    with stack:
        yield Server("entrepot", stack.sftp_port, "demo", stack.folder / "keys" / "demo", ".", stack)


@contextmanager
def openssh(folder: Path) -> Iterator[Server | None]:
    """Run a private sshd with internal-sftp on a free port; None when it is not installed."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if sshd is None:
        yield None
        return
    place = folder / "openssh"
    (place / "files").mkdir(parents=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
    (place / "authorized_keys").write_text((place / "user.pub").read_text())
    port = free_port()
    (place / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {place}/host\nAuthorizedKeysFile {place}/authorized_keys\n"
        "StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\nMaxStartups 100\n"
        "Subsystem sftp internal-sftp\n"
    )
    process = subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(place / "sshd_config")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        answer_on(port)
        yield Server("openssh", port, getpass.getuser(), place / "user", str(place / "files"))
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def rclone(folder: Path) -> Iterator[Server | None]:
    """Run `rclone serve sftp` over a local folder on a free port; None when it is not installed."""
    if shutil.which("rclone") is None:
        yield None
        return
    place = folder / "rclone"
    (place / "files").mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "user")], check=True)
    port = free_port()
    process = subprocess.Popen(
        [
            *("rclone", "serve", "sftp", str(place / "files"), "--addr", f"127.0.0.1:{port}"),
            *("--authorized-keys", str(place / "user.pub"), "--config", str(place / "rclone.conf")),
            *("--vfs-cache-mode", "off", "--cache-dir", str(place / "cache")),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        answer_on(port)
        yield Server("rclone", port, "demo", place / "user", "/")
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer_on(port: int, deadline_s: float = 15.0) -> None:
    """Wait until somebody listens on the port."""
    end = time.monotonic() + deadline_s
    while True:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > end:
            raise TimeoutError(f"nobody listens on port {port}")
        time.sleep(0.05)
