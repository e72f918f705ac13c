"""A DynamoDB stream as an event source: each shard is read in order, and what is done is remembered in the ledger.

A batch that fails holds up its shard until it succeeds, or until it is given up by number of attempts or by age; then a
description of it goes to the mapping's destination. Killed at any moment, only the batch in flight is repeated.

Source: https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html and services-ddb-errors.html
"""

import asyncio
import base64
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from entrepot import clock, faults, ids
from entrepot.database import Transaction
from entrepot.errors import AwsError, EntrepotError
from entrepot.services.lambda_ import event_source_mappings
from entrepot.services.lambda_.batches import PAYLOAD_LIMIT_BYTES, compile_filters, item_failures
from entrepot.services.lambda_.configuration import function_arn
from entrepot.services.lambda_.event_source_mappings import EventSourceMapping, Position
from entrepot.services.lambda_.invocation import InvocationResult, error_payload
from entrepot.services.lambda_.sources import Report, SourcePorts, end_tasks

POLL_INTERVAL_S = 0.25
"""How often a shard without new records is looked at. AWS's base rate."""

SHARDS_INTERVAL_S = 5.0
"""How often the stream is asked for new shards."""

READ_LIMIT = 1_000
"""Records of one GetRecords. AWS's limit."""

RETRY_PAUSE_S, RETRY_PAUSE_LIMIT_S = 0.5, 60.0
"""After a failed attempt; it doubles each time."""

PAUSE_AFTER_ERROR_S = 5.0
"""How long a stream that cannot be read is left alone."""

Record: TypeAlias = Mapping[str, Any]

_log = logging.getLogger("entrepot.lambda")


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a batch failed. `from_record`: the place of the first record to repeat, when the function said so."""

    result: InvocationResult | None
    text: str
    from_record: int = 0
    is_throttled: bool = False


class StreamPoller:
    """Reads one stream for one mapping, as the function's role."""

    def __init__(self, mapping: EventSourceMapping, ports: SourcePorts, report: Report) -> None:
        self._mapping = mapping
        self._ports = ports
        self._report = report
        self._passes = compile_filters(mapping.settings.filters, ports.neighbours.compile_pattern)
        self._shards: dict[str, asyncio.Task[None]] = {}
        self._is_new = True
        self._is_ending = False

    async def run(self) -> None:
        """Poll until cancelled; the batches in flight may then come to their end."""
        try:
            while True:
                try:
                    await self._follow_shards()
                except (AwsError, EntrepotError) as error:
                    await self._report(f"PROBLEM: {error}")
                    await asyncio.sleep(PAUSE_AFTER_ERROR_S)
                await asyncio.sleep(SHARDS_INTERVAL_S)
        finally:
            self._is_ending = True
            await end_tasks(self._shards.values())

    async def _perform(self, operation: str, **request: Any) -> Mapping[str, Any]:
        call = await self._ports.call_as_function(self._mapping)
        return await self._ports.neighbours.operations.perform("dynamodbstreams", operation, request, call)

    # ── shards ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _follow_shards(self) -> None:
        """Read every shard whose parent is finished; forget those that are gone."""
        shards: list[Mapping[str, Any]] = []
        start: dict[str, str] = {}
        while True:
            answer = await self._perform("DescribeStream", StreamArn=self._mapping.source_arn, **start)
            description = answer["StreamDescription"]
            shards += description["Shards"]
            if "LastEvaluatedShardId" not in description:
                break
            start = {"ExclusiveStartShardId": description["LastEvaluatedShardId"]}
        uuid = self._mapping.uuid
        positions = await self._ports.database.read(lambda reader: event_source_mappings.positions(reader, uuid))
        present = {shard["ShardId"] for shard in shards}
        gone = [shard_id for shard_id in positions if shard_id not in present]
        if gone:
            await self._ports.database.write(lambda tx: event_source_mappings.forget_shards(tx, uuid, gone))
        for shard in shards:
            shard_id, parent = shard["ShardId"], shard.get("ParentShardId")
            waits = parent is not None and parent in present and not positions.get(parent, Position()).is_finished
            running = self._shards.get(shard_id)
            if waits or positions.get(shard_id, Position()).is_finished or (running and not running.done()):
                continue
            position = positions.get(shard_id, Position())
            self._shards[shard_id] = asyncio.create_task(
                self._read_shard(shard_id, position, self._is_new and not parent)
            )
        self._is_new = False

    async def _read_shard(self, shard_id: str, position: Position, is_first: bool) -> None:
        try:
            iterator: str | None = await self._first_iterator(shard_id, position.sequence_number, is_first)
            skip_before_s = self._mapping.settings.starting_at_ms // 1000 if not position.sequence_number else 0
            while iterator is not None and not self._is_ending:
                records, iterator = await self._gather(iterator)
                wanted = [r for r in records if r["dynamodb"]["ApproximateCreationDateTime"] >= skip_before_s]
                if wanted:
                    await self._process(shard_id, wanted)
                    skip_before_s = 0
                elif not records and iterator is not None:
                    await asyncio.sleep(POLL_INTERVAL_S)
            if not self._is_ending:
                await self._advance(shard_id, "", is_finished=True)
        except AwsError as error:
            if error.code not in ("ExpiredIteratorException", "TrimmedDataAccessException"):
                _log.warning("The stream %s could not be read: %s", self._mapping.source_arn, error)
                await self._report(f"PROBLEM: {error}")
            if error.code == "TrimmedDataAccessException":  # older than the stream keeps: go on with what there is
                await self._ports.database.write(
                    lambda tx: event_source_mappings.write_position(tx, self._mapping.uuid, shard_id, Position())
                )
        except EntrepotError as error:
            _log.warning("The stream %s is not read further for now: %s", self._mapping.source_arn, error)

    async def _first_iterator(self, shard_id: str, sequence_number: str, is_first: bool) -> str:
        """Return where to begin: behind what is done; else where the mapping says.

        LATEST is what was written after the mapping was made: found by the time of the records when the server was
        started again before the first batch.
        """
        request = {"StreamArn": self._mapping.source_arn, "ShardId": shard_id}
        latest = self._mapping.settings.starting_position == "LATEST" and is_first
        if sequence_number:
            request |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": sequence_number}
        elif latest and clock.now_ms() - self._mapping.settings.starting_at_ms < SHARDS_INTERVAL_S * 1000:
            request["ShardIteratorType"] = "LATEST"
        else:
            request["ShardIteratorType"] = "TRIM_HORIZON"
        answer = await self._perform("GetShardIterator", **request)
        iterator: str = answer["ShardIterator"]
        return iterator

    async def _gather(self, iterator: str | None) -> tuple[list[Record], str | None]:
        """Return the records of one batch, and the iterator behind them (None at the end of the shard)."""
        settings = self._mapping.settings
        records: list[Record] = []
        size_bytes, deadline_s = 0, 0.0
        while iterator is not None and len(records) < settings.batch_size and size_bytes < PAYLOAD_LIMIT_BYTES // 2:
            limit = min(READ_LIMIT, settings.batch_size - len(records))
            answer = await self._perform("GetRecords", ShardIterator=iterator, Limit=limit)
            found, iterator = answer["Records"], answer.get("NextShardIterator")
            shaped = [self._record(record) for record in found]
            size_bytes += sum(len(json.dumps(record)) for record in shaped)
            now_s = clock.monotonic_s()
            if not records:
                if not shaped:
                    break
                deadline_s = now_s + settings.window_s
            records += shaped
            if now_s >= deadline_s and len(found) < limit:
                break
            if self._is_ending:
                break
            if not found:
                await asyncio.sleep(min(POLL_INTERVAL_S, max(0.0, deadline_s - now_s)))
        return records, iterator

    def _record(self, record: Record) -> dict[str, Any]:
        """Return a record in the shape in which a function gets it."""
        shown: dict[str, Any] = _plain(record)
        shown["eventSourceARN"] = self._mapping.source_arn
        return shown

    # ── one batch ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _process(self, shard_id: str, records: Sequence[Record]) -> None:
        """Work off records, in order, until all of them are done with."""
        pending: list[Sequence[Record]] = [records]
        while pending and not self._is_ending:
            batch = pending.pop(0)
            fresh = [record for record in batch if not self._is_too_old(record)]
            if len(fresh) < len(batch):
                old = batch[: len(batch) - len(fresh)]
                await self._give_up(shard_id, old, "RecordAgeExceeded", 0, None)
            if fresh:
                pending = [*await self._work_off(shard_id, fresh), *pending]

    def _is_too_old(self, record: Record) -> bool:
        limit_s = self._mapping.settings.maximum_record_age_s
        age_s = clock.now_ms() / 1000 - float(record["dynamodb"]["ApproximateCreationDateTime"])
        return limit_s != -1 and age_s > limit_s + 1  # the time is in whole seconds

    async def _work_off(self, shard_id: str, batch: Sequence[Record]) -> list[Sequence[Record]]:
        """Hand a batch over until it is done with; return what is left of it as batches of their own."""
        settings, attempts, pause_s = self._mapping.settings, 0, RETRY_PAUSE_S
        while True:
            failure = await self._invoke([record for record in batch if self._passes(record)])
            faults.reach("lambda.after-batch")
            if failure is None:
                await self._report("OK")
                await self._advance(shard_id, _number(batch[-1]))
                return []
            await self._report("PROBLEM: Function call failed")
            if self._is_ending:
                return []
            if failure.from_record:  # what came before it is done, and the rest has all its attempts before it
                wanted = [record for record in batch if self._passes(record)]
                split = batch.index(wanted[failure.from_record])
                await self._advance(shard_id, _number(batch[split - 1]))
                return [batch[split:]]
            attempts += not failure.is_throttled
            if settings.bisects and len(batch) > 1 and not failure.is_throttled:
                return [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
            if settings.maximum_retry_attempts != -1 and attempts > settings.maximum_retry_attempts:
                await self._give_up(shard_id, batch, "RetryAttemptsExhausted", attempts, failure)
                return []
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_PAUSE_LIMIT_S)
            if any(self._is_too_old(record) for record in batch):
                return [batch]

    async def _invoke(self, records: Sequence[Record]) -> _Failure | None:
        """Run the function with the records; return why it failed, or None."""
        if not records:
            return None
        mapping = self._mapping
        payload = json.dumps({"Records": list(records)}, ensure_ascii=False).encode()
        try:
            result = await self._ports.invoke(mapping.function_name, payload, qualifier=mapping.qualifier)
        except AwsError as error:
            text = f"{error.code}: {error.message}"
            throttled = error.status in (429, 500, 503)
            answer = InvocationResult("", error_payload(error.code, error.message))
            return _Failure(answer, text, is_throttled=throttled)
        if result.function_error is not None:
            return _Failure(result, str(result.error()))
        if not mapping.settings.reports_item_failures:
            return None
        numbers = [_number(record) for record in records]
        failed = item_failures(result.payload, numbers)
        if failed is None:
            return _Failure(result, "the answer is not what ReportBatchItemFailures asks for")
        if not failed:
            return None
        first = min(numbers.index(number) for number in failed)
        return _Failure(result, f"the function reports a failure at {numbers[first]}", first)

    async def _advance(self, shard_id: str, sequence_number: str, *, is_finished: bool = False) -> None:
        position = Position(sequence_number, is_finished)
        await self._ports.database.write(
            lambda tx: event_source_mappings.write_position(tx, self._mapping.uuid, shard_id, position)
        )

    async def _give_up(
        self, shard_id: str, batch: Sequence[Record], condition: str, attempts: int, failure: _Failure | None
    ) -> None:
        """Go on behind the batch, and tell the destination where it was, in one transaction."""
        mapping = self._mapping
        _log.error(
            "Records %s to %s of %s are given up: %s: %s", _number(batch[0]), _number(batch[-1]), mapping.source_arn,
            condition, failure.text if failure else "",
        )  # fmt: skip
        body = self._description(shard_id, batch, condition, attempts, failure)
        function = await self._ports.function_of(mapping)

        def give_up(tx: Transaction) -> str | None:
            event_source_mappings.write_position(tx, mapping.uuid, shard_id, Position(_number(batch[-1])))
            if not mapping.settings.on_failure_arn:
                return None
            try:
                with tx.savepoint():
                    self._ports.destinations.send(tx, function, mapping.settings.on_failure_arn, body, failed=True)
            except AwsError as error:
                return f"{error.code}: {error.message}"
            return None

        unsent = await self._ports.database.write(give_up)
        if unsent is not None:
            _log.error("The record of that could not be sent to %s: %s", mapping.settings.on_failure_arn, unsent)

    def _description(
        self, shard_id: str, batch: Sequence[Record], condition: str, attempts: int, failure: _Failure | None
    ) -> dict[str, Any]:
        mapping = self._mapping
        result = failure.result if failure else None
        body: dict[str, Any] = {
            "requestContext": {
                "requestId": result.request_id if result and result.request_id else ids.random_uuid(),
                "functionArn": function_arn(self._ports.account, mapping.function_name, mapping.qualifier),
                "condition": condition,
                "approximateInvokeCount": attempts,
            },
            "version": "1.0",
            "timestamp": clock.iso(clock.now_ms()),
            "DDBStreamBatchInfo": {
                "shardId": shard_id,
                "startSequenceNumber": _number(batch[0]),
                "endSequenceNumber": _number(batch[-1]),
                "approximateArrivalOfFirstRecord": _arrival(batch[0]),
                "approximateArrivalOfLastRecord": _arrival(batch[-1]),
                "batchSize": len(batch),
                "streamArn": mapping.source_arn,
            },
        }
        if result is not None:
            body["responseContext"] = {
                "statusCode": 200,
                "executedVersion": result.executed_version,
                "functionError": result.function_error,
            }
        return body


def _number(record: Record) -> str:
    number: str = record["dynamodb"]["SequenceNumber"]
    return number


def _arrival(record: Record) -> str:
    at_s = float(record["dynamodb"]["ApproximateCreationDateTime"])
    return clock.iso(round(at_s * 1000))[:19] + "Z"


def _plain(value: Any) -> Any:
    """Return a value of botocore's shapes as JSON has it in an event: times in seconds, bytes in base64."""
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(member) for member in value]
    if isinstance(value, datetime):
        seconds = value.timestamp()
        return int(seconds) if seconds.is_integer() else seconds
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return value
