"""`make bench`: measures beside the peers and writes bench/RESULTS.md."""

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import events, functions, listing, logs, measure, overload, servers, workflows
from bench.servers import Server
from tests.running import Stack

RESULTS = Path(__file__).parent / "RESULTS.md"
BULK_BYTES = 512 * 1024 * 1024
SMALL_COUNT = 2000


class Report:
    """Lines of Markdown, printed as they come and written at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str = "") -> None:
        self.lines.append(line)
        print(line, flush=True)

    def table(self, columns: list[str], rows: list[list[str]]) -> None:
        self.add("| " + " | ".join(columns) + " |")
        self.add("| " + " | ".join("---" for _ in columns) + " |")
        for row in rows:
            self.add("| " + " | ".join(row) + " |")
        self.add()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that everything runs")
    parser.add_argument("--only", default="", help="comma-separated names of sections, such as sftp,start")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    scale = 10 if arguments.quick else 1
    only = set(filter(None, arguments.only.split(",")))
    report = Report()
    report.add("# Measurements")
    report.add()
    report.add(
        f"Made by `make bench` on {time.strftime('%Y-%m-%d')}: {os.cpu_count()} cores ({_processor()}), Linux, "
        f"Python {platform.python_version()}; clients and servers share the cores. Medians of {arguments.runs} runs, "
        "the servers in turn; ratios are taken run by run."
    )
    report.add()
    sections: dict[str, Callable[[Report, int, int], None]] = {
        "sftp": sftp_section,
        "pipeline": pipeline_section,
        "listing": listing_section,
        "start": start_section,
        "workflows": workflows_section,
        "events": events_section,
        "functions": functions_section,
        "overload": overload_section,
        "logs": logs_section,
    }
    for name, section in sections.items():
        if not only or name in only:
            section(report, scale, arguments.runs)
    if not only and not arguments.quick:
        RESULTS.write_text("\n".join(report.lines).rstrip() + "\n")
        print(f"written to {RESULTS}", file=sys.stderr)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def small_files_in(folder: Path, count: int) -> Path:
    """Write `count` files of 4 KiB; return their folder."""
    content = random.Random(2)
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:05d}").write_bytes(content.randbytes(4096))
    return folder


def sftp_section(report: Report, scale: int, runs: int) -> None:
    """Bulk and small files against the peers."""
    with tempfile.TemporaryDirectory(prefix="entrepot-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        content = random.Random(1)
        big = folder / "big.bin"
        with big.open("wb") as file:
            for _ in range(BULK_BYTES // scale // (1 << 20)):
                file.write(content.randbytes(1 << 20))
        small = small_files_in(folder / "small", SMALL_COUNT // scale)
        ours = stack.enter_context(servers.entrepot(folder, function=False, home="bench-bucket"))
        peers = [stack.enter_context(servers.openssh(folder)), stack.enter_context(servers.rclone(folder))]
        for peer, label in zip(peers, ("OpenSSH (Debian: openssh-server)", "rclone (Debian: rclone)"), strict=True):
            if peer is None:
                report.add(f"{label} is not installed: not compared.")
        all_servers = [ours, *(peer for peer in peers if peer is not None)]

        def compare(title: str, unit: str, run: Callable[[Server, int], float]) -> None:
            figures: dict[str, list[float]] = {server.name: [] for server in all_servers}
            for number in range(runs):
                for server in all_servers:
                    figures[server.name].append(run(server, number))
            rows = []
            for server in all_servers:
                ratios = [a / b for a, b in zip(figures["entrepot"], figures[server.name], strict=True)]
                middle, low, high = statistics.median(figures[server.name]), min(ratios), max(ratios)
                shown = "" if server is ours else f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"
                rows.append([server.name, f"{middle:,.0f} {unit}", shown])
            report.add(f"### {title}")
            report.add()
            report.table(["server", "median", "entrepot ÷ it"], rows)

        report.add("## SFTP beside OpenSSH and rclone")
        report.add()
        report.add(
            "Durability differs: Entrepot answers CLOSE when content, object row and event are on disk and has computed "
            "SHA-256; OpenSSH and rclone leave the data in the page cache."
        )
        report.add()
        downloads: dict[tuple[str, int], float] = {}

        def upload(server: Server, number: int) -> float:
            up, downloads[(server.name, number)] = measure.bulk(server, big, number, folder / "back.bin")
            return up

        mib = BULK_BYTES // scale >> 20
        compare(f"Upload of one file of {mib} MiB (aes128-gcm)", "MB/s", upload)
        compare(f"Download of one file of {mib} MiB (aes128-gcm)", "MB/s", lambda s, n: downloads[(s.name, n)])
        count = SMALL_COUNT // scale
        compare(
            f"{count:,} files of 4 KiB in one session",
            "files/s",
            lambda server, number: measure.small_files(server, small, count, number),
        )
        compare(
            f"8 sessions at once, {count // 8:,} files of 4 KiB each",
            "files/s",
            lambda server, number: measure.sessions_at_once(server, small, 8, count // 8, number),
        )


def pipeline_section(report: Report, scale: int, runs: int) -> None:
    """From CLOSE to transferred, with the function and without."""
    report.add("## From the client's CLOSE to transferred")
    report.add()
    rows = []
    for title, function in (("with the function", True), ("with an `aws-sdk:s3:copyObject` state", False)):
        with tempfile.TemporaryDirectory(prefix="entrepot-bench-") as name:
            small = small_files_in(Path(name) / "small", 1500 // scale)
            with servers.entrepot(Path(name), function=function) as server:
                measure.latency(server, 20)  # warm the workers and the caches
                alone = [measure.latency(server, max(20, 200 // scale)) for _ in range(runs)]
                loads = {
                    sessions: [
                        measure.sustained(server, sessions, 1500 // scale // sessions, small) for _ in range(runs)
                    ]
                    for sessions in (1, 4)
                }
                assert server.stack is not None
                ledger = server.stack.folder / "data" / "ledger.db"
                delivered = sum(1 for _ in iter_files(server))
            size = ledger.stat().st_size / max(1, delivered)
        rows.append(
            [
                title,
                f"{statistics.median(r.median_ms for r in alone):.1f} ms",
                f"{statistics.median(r.p95_ms for r in alone):.1f} ms",
                *(f"{statistics.median(loads[n]):,.0f}" for n in (1, 4)),
                f"{size:,.0f}",
            ]
        )
    report.table(
        [
            "workflow",
            "median, one at a time",
            "95 %",
            "files/s, 1 session",
            "files/s, 4 sessions",
            "ledger bytes a file (its 4,096 bytes of content included)",
        ],
        rows,
    )


def iter_files(server: Server):  # type: ignore[no-untyped-def]
    """Yield every row of `files`."""
    assert server.stack is not None
    client = server.stack.client("entrepot")
    token: dict[str, str] = {}
    while True:
        page = client.list_files(limit=1000, **token)
        yield from page["files"]
        if not page.get("next_token"):
            return
        token = {"next_token": page["next_token"]}


def listing_section(report: Report, scale: int, runs: int) -> None:
    """`ls` of a folder with 100,000 keys."""
    count = 100_000 // scale
    with tempfile.TemporaryDirectory(prefix="entrepot-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        rows = []
        for server, target in listing.servers_with_full_folder(folder, count, stack):
            seconds = statistics.median(measure.list_folder(server, target) for _ in range(runs))
            rows.append([server.name, f"{seconds:.2f} s", f"{count / seconds:,.0f} names/s"])
    report.add(f"## Listing a folder of {count:,} keys (`ls -1`, login included)")
    report.add()
    report.table(["server", "median", "rate"], rows)


def start_section(report: Report, scale: int, runs: int) -> None:
    """Start-up time and resident memory."""
    report.add("## Start and memory")
    report.add()
    with tempfile.TemporaryDirectory(prefix="entrepot-bench-") as name:
        stack = Stack(Path(name) / "stack")
        times = []
        for _ in range(max(3, runs)):
            began = time.perf_counter()
            stack.start()
            times.append(time.perf_counter() - began)
            stack.stop()
        with stack:
            assert stack.process is not None
            time.sleep(2)
            idle = measure.resident_bytes(stack.process.pid)
            server = Server("entrepot", stack.sftp_port, "demo", stack.folder / "keys" / "demo", ".", stack)
            per_session = measure.memory_per_session(server, 40)
            after = measure.resident_bytes(stack.process.pid)
    report.table(
        ["what", "figure"],
        [
            ["from the command to `ready`, median", f"{statistics.median(times):.2f} s"],
            ["resident memory, idle, the server process", f"{idle / 1e6:.0f} MB"],
            ["resident memory per idle SFTP session", f"{per_session / 1e3:.0f} kB"],
            ["resident memory after the sessions", f"{after / 1e6:.0f} MB"],
        ],
    )


def workflows_section(report: Report, scale: int, runs: int) -> None:
    """State machines: transitions, starts, large Maps, executions that wait. One run: each has thousands of its kind."""
    report.add("## State machines")
    report.add()
    report.table(["what", "figure"], [[figure.what, figure.value] for figure in workflows.measure(scale)])


def events_section(report: Report, scale: int, runs: int) -> None:
    """Events matched against rules, by processor time: the pure matcher."""
    report.add("## Events matched against rules, in the process")
    report.add()
    rows = [
        [row.rules, f"{row.rule_count:,}", f"{row.matching:.1f}", f"{row.events_per_cpu_s:,.0f}"]
        for row in events.measure()
    ]
    report.table(["the rules look at", "rules", "matching an event", "events per second of one core"], rows)


def functions_section(report: Report, scale: int, runs: int) -> None:
    """What an invocation costs over the handler's own time."""
    report.add("## Functions")
    report.add()
    rows = [[figure.name, f"{figure.value:,.2f} {figure.unit}"] for figure in functions.measure(scale)]
    report.table(["what", "figure"], rows)


def overload_section(report: Report, scale: int, runs: int) -> None:
    """A good customer's files beside functions that misbehave, as a share of its own quiet rate."""
    report.add("## A good customer's rate beside functions that misbehave")
    report.add()
    rows = [
        [
            row.poison,
            f"{row.poisoned_per_s / row.quiet_per_s:.2f}",
            f"{row.poisoned_per_s:,.0f} of {row.quiet_per_s:,.0f} files/s",
            f"{row.oldest_age_s:.0f} s",
        ]
        for row in overload.measure(scale)
    ]
    report.table(["poison", "of the quiet rate", "rates", "age of the poison's own oldest event"], rows)


def logs_section(report: Report, scale: int, runs: int) -> None:
    """Lines a second of the log store, and Insights over a million events."""
    report.add("## Logs")
    report.add()
    report.table(["what", "figure"], [[figure.what, figure.value] for figure in logs.measure(scale, runs)])


if __name__ == "__main__":
    main()
