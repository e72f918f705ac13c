"""A real Prometheus (Debian's package) scrapes a real server and answers for the files that were sent."""

import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import yaml

from tests.running import Stack, wait_for

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
FILES = 4


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def console_of(stack: Stack) -> str:
    return str(json.loads((stack.folder / "data" / "run.json").read_text())["console"])


@pytest.fixture
def prometheus(tmp_path: Path, stack: Stack) -> Iterator[str]:
    """Prometheus with the example's rules, scraping the stack; its URL."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "rules.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [urlsplit(console_of(stack)).netloc]
    del config["alerting"]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    port = free_port()
    log = (tmp_path / "prometheus.log").open("wb")
    process = subprocess.Popen(
        [
            binary,
            f"--config.file={file}",
            f"--storage.tsdb.path={tmp_path}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=log,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def ask(url: str, path: str) -> Any:
    """Return what Prometheus's API answers; None while it does not serve yet."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{path}", timeout=5) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


def value(url: str, query: str) -> float | None:
    """Return the only value of a query; None while there is none."""
    data = ask(url, f"query?query={quote(query)}")
    found = (data or {}).get("result", [])
    return float(found[0]["value"][1]) if found else None


def test_prometheus_counts_the_files_that_were_sent(stack: Stack, prometheus: str, tmp_path: Path) -> None:
    wait_for(lambda: value(prometheus, 'up{job="entrepot"}') == 1.0, what="the first scrape")
    for number in range(FILES):
        (tmp_path / f"f{number}").write_text("x" * 25)
    stack.sftp(*(f"put {tmp_path}/f{number}" for number in range(FILES)))
    for number in range(FILES):
        stack.delivered(f"demo/f{number}")
    wait_for(lambda: value(prometheus, 'entrepot_files_total{status="transferred"}') == FILES, what="delivered files")
    assert value(prometheus, 'entrepot_files_total{status="uploaded"}') == FILES
    assert value(prometheus, "entrepot_file_bytes_total") == 25 * FILES
    assert value(prometheus, "entrepot_delivery_duration_seconds_count") == FILES
    assert value(prometheus, 'entrepot_executions_total{state_machine="transfer",status="succeeded"}') == FILES
    wait_for(
        lambda: value(prometheus, "instance:entrepot_delivery_duration_seconds:p95_5m") or None,
        what="the rule that records durations",
    )
    rules = [rule for group in ask(prometheus, "rules")["groups"] for rule in group["rules"]]
    assert rules and all(rule["health"] in ("ok", "unknown") for rule in rules), rules
    firing = [
        alert["labels"]["alertname"] for alert in ask(prometheus, "alerts")["alerts"] if alert["state"] == "firing"
    ]
    assert firing == []


def test_the_exposition_is_as_prometheus_wants_it(stack: Stack, tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    (tmp_path / "f").write_text("x")
    stack.sftp(f"put {tmp_path}/f")
    stack.delivered("demo/f")
    with urllib.request.urlopen(f"{console_of(stack)}/metrics", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = answer.read()
    run = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, timeout=30)
    assert (run.returncode, run.stdout + run.stderr) == (0, b"")
