"""Functions by numbers: what a warm invocation and a cold start cost beyond the handler's own time.

`python -m bench.functions` prints them. In-process, on the real ledger and with real workers under full isolation: from the call
of Lambda to its answer. Processor seconds are the server's own.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.acceptance.functions_house import House, close_house, open_house, until

HANDLERS = {
    "cold start: nothing imported": "def lambda_handler(event, context): return 1",
    "cold start: a boto3 client": "import boto3\nclient = boto3.client('s3')\ndef lambda_handler(event, context): return 1",
}
CALLERS = 4


@dataclass(frozen=True)
class Figure:
    """One figure with its unit."""

    name: str
    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.name:<58} {self.value:>9.2f} {self.unit}"


def measure(scale: int = 1) -> list[Figure]:
    """Return the figures; `scale` divides the work."""
    with tempfile.TemporaryDirectory() as folder:
        return uvloop.run(_measure(Path(folder), scale))


async def _measure(folder: Path, scale: int) -> list[Figure]:
    began = time.perf_counter()
    house = await open_house(folder)
    figures = [Figure("start of the service, isolation probed", 1000 * (time.perf_counter() - began), "ms")]
    try:
        await house.put(HANDLERS["cold start: nothing imported"], name="first")
        await house.answer(name="first")  # the launcher has made its imports
        for name, code in HANDLERS.items():
            figures += await _cold(house, name, code, max(3, 15 // scale))
        figures += await _warm(house, 2_000 // scale)
    finally:
        await close_house(house)
    return figures


async def _cold(house: House, name: str, code: str, count: int) -> list[Figure]:
    """Each of `count` new functions is invoked once: the answer's time is the cold start's, for the handler does nothing."""
    took_ms = []
    for number in range(count):
        function = f"cold-{number}-{abs(hash(name)) % 1000}"
        await house.put(f"{code}\n# {function}\n", name=function, memory_size_mb=256)
        began = time.perf_counter()
        await house.answer(name=function)
        took_ms.append(1000 * (time.perf_counter() - began))
        house.lambda_.pool.remove(function)
        await until(lambda: house.lambda_.pool.statistics().workers <= 1)
    return [Figure(f"{name}, median", statistics.median(took_ms), "ms"), Figure(f"{name}, worst", max(took_ms), "ms")]


async def _warm(house: House, count: int) -> list[Figure]:
    """The same worker again and again; then several callers at once."""
    code = """
        import time
        def lambda_handler(event, context):
            began = time.perf_counter()
            while time.perf_counter() - began < event: pass
            return time.perf_counter() - began
    """
    await house.put(code, name="warm", minimum_warm=1)
    await house.answer(0, name="warm")
    overhead_ms = []
    for _ in range(count):
        began = time.perf_counter()
        own_s = await house.answer(0, name="warm")
        overhead_ms.append(1000 * (time.perf_counter() - began - own_s))
    overhead_ms.sort()
    began, processor = time.perf_counter(), time.process_time()

    async def caller() -> None:
        for _ in range(count // CALLERS):
            await house.answer(0, name="warm")

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    took_s, processor_s = time.perf_counter() - began, time.process_time() - processor
    return [
        Figure("warm invocation beyond the handler's own time, median", statistics.median(overhead_ms), "ms"),
        Figure("warm invocation beyond the handler's own time, p99", overhead_ms[int(count * 0.99)], "ms"),
        Figure(f"invocations of {CALLERS} callers", count / took_s, "/s"),
        Figure("the server's processor time for each", 1000 * processor_s / count, "ms"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    for figure in measure(10 if parser.parse_args().quick else 1):
        print(figure)


if __name__ == "__main__":
    main()
