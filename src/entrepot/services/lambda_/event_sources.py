"""Event sources: one task for each enabled mapping, begun and ended as mappings come and go.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from entrepot.database import Transaction
from entrepot.errors import AwsError, EntrepotError
from entrepot.services.lambda_ import event_source_mappings
from entrepot.services.lambda_.event_source_mappings import MAPPINGS_LIMIT, NOT_YET, EventSourceMapping
from entrepot.services.lambda_.queue_poller import QueuePoller
from entrepot.services.lambda_.sources import SourcePorts
from entrepot.services.lambda_.stream_poller import StreamPoller

RESTART_PAUSE_S = 10.0
"""After a poller failed in a way that nobody foresaw, or could not be begun."""

_log = logging.getLogger("entrepot.lambda")


@dataclass(slots=True)
class _Running:
    mapping: EventSourceMapping
    task: asyncio.Task[None]


class EventSources:
    """The pollers of all mappings."""

    def __init__(self, ports: SourcePorts, concurrency: int) -> None:
        self._ports = ports
        self._concurrency = concurrency
        self._running: dict[str, _Running] = {}
        self._results: dict[str, str] = {}
        self._is_started = False

    async def start(self) -> None:
        """Begin to poll for every enabled mapping."""
        self._is_started = True
        found = await self._ports.database.scan(
            lambda reader: event_source_mappings.listing(reader, limit=MAPPINGS_LIMIT)
        )
        for mapping in found:
            self._results[mapping.uuid] = mapping.result
            self._begin(mapping)

    async def stop(self) -> None:
        """End the pollers; the batches in flight are repeated after the next start."""
        self._is_started = False
        tasks = [running.task for running in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def follow(self, tx: Transaction, uuid: str) -> None:
        """Let the poller follow, after the commit, what the transaction did to a mapping."""
        mapping = event_source_mappings.find(tx, uuid)
        tx.after_commit(lambda: self._change(uuid, mapping))

    def result(self, mapping: EventSourceMapping) -> str:
        """Return how its last batch went."""
        return self._results.get(mapping.uuid, mapping.result)

    def _change(self, uuid: str, mapping: EventSourceMapping | None) -> None:
        running = self._running.pop(uuid, None)
        if running is not None:
            running.task.cancel()
        if mapping is None:
            self._results.pop(uuid, None)
        else:
            self._begin(mapping, running.task if running else None)

    def _begin(self, mapping: EventSourceMapping, after: asyncio.Task[None] | None = None) -> None:
        if self._is_started and mapping.is_enabled:
            task = asyncio.create_task(self._poll(mapping, after), name=f"lambda-source-{mapping.uuid}")
            self._running[mapping.uuid] = _Running(mapping, task)

    async def _poll(self, mapping: EventSourceMapping, after: asyncio.Task[None] | None) -> None:
        if after is not None:  # its predecessor lets go first, so that no batch runs twice
            await asyncio.gather(after, return_exceptions=True)
        while True:
            try:
                await self._poller(mapping).run()
            except AwsError as error:
                _log.error("The mapping %s cannot be polled: %s", mapping.uuid, error)
                await self._report(mapping.uuid, f"PROBLEM: {error}")
            except Exception:  # noqa: BLE001 - the task's top frame: one broken mapping must not stop for ever
                _log.exception("The poller of the mapping %s failed; it starts again.", mapping.uuid)
            await asyncio.sleep(RESTART_PAUSE_S)

    def _poller(self, mapping: EventSourceMapping) -> QueuePoller | StreamPoller:
        report = self._reporter(mapping.uuid)
        if mapping.kind == "sqs":
            return QueuePoller(mapping, self._ports, report, self._concurrency)
        return StreamPoller(mapping, self._ports, report)

    def _reporter(self, uuid: str) -> Callable[[str], Awaitable[None]]:
        async def report(result: str) -> None:
            await self._report(uuid, result)

        return report

    async def _report(self, uuid: str, result: str) -> None:
        """Remember how the last batch went; written only when that changes."""
        if self._results.get(uuid, NOT_YET) == result:
            return
        self._results[uuid] = result
        try:
            await self._ports.database.write(lambda tx: event_source_mappings.write_result(tx, uuid, result))
        except EntrepotError as error:
            _log.error("LastProcessingResult of %s could not be written: %s", uuid, error)
