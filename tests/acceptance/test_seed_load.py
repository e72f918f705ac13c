"""`make seed-load`, small: what it writes is a stack that serves, and the accounts are right."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.running import Stack

ROOT = Path(__file__).parents[2]


def test_a_seeded_stack_serves_what_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "seeded"
    run = subprocess.run(
        [sys.executable, "-m", "bench.seed_load", str(folder), "--files", "1200", "--events", "900"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("ENTREPOT_", "AWS_"))},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "bytes a file" in run.stdout
    with Stack(folder) as stack:
        counts = stack.json("status")["files"]
        assert sum(counts.values()) == 1200
        assert 0 < counts["failed"] < 60 and counts["transferred"] > 1100
        failed = stack.json("files", "--status", "failed")
        assert len(failed) == counts["failed"] and all("read-only" in file["error_message"] for file in failed)
        logs = stack.client("logs")
        groups = {group["logGroupName"]: group["storedBytes"] for group in logs.describe_log_groups()["logGroups"]}
        assert groups["/aws/lambda/transfer"] > 0
        address = json.loads((folder / "data" / "run.json").read_text())["console"]
        with urllib.request.urlopen(f"{address}/files?status=failed", timeout=20) as answer:
            text = answer.read().decode()
        assert failed[0]["key"] in text
