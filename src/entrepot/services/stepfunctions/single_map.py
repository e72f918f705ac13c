"""What TestState does about a Map: its items, what ItemSelector and ItemBatcher make of them, what it tolerates.

No child runs: what they give is mocked. Source:
https://docs.aws.amazon.com/step-functions/latest/apireference/API_TestStateConfiguration.html
"""

from collections.abc import AsyncIterator
from typing import TypeAlias, TypeVar

from .errors import ValidationException
from .language.definition import Map
from .language.evaluation import ITEM_READER_FAILED, Json, Scope, StatesError
from .language.json_text import loads
from .language.jsonata import JsonataScope
from .maps.batches import Limits, inputs
from .maps.documents import ReaderError
from .maps.readers import Item, entries_of
from .steps.map_runs import STATE_DATA

Entries: TypeAlias = list[tuple[str | None, Json]]
"""(key or None, item): the members of an object have keys."""

T = TypeVar("T")


def entries(state: Map, scope: Scope, reader_data: str | None) -> Entries:
    """Return what is mapped over. Raises StatesError, ValidationException."""
    if reader_data is None:
        found = state.mapped(scope)
        return list(found.items()) if isinstance(found, dict) else [(None, item) for item in found]
    reader = state.distribution.reader if state.distribution is not None else None
    if reader is None:
        raise ValidationException("mapItemReaderData is only for a Map state with an ItemReader.")

    async def pieces() -> AsyncIterator[bytes]:
        yield reader_data.encode()

    try:
        read = _drained(entries_of(pieces(), reader))
    except ReaderError as error:
        raise StatesError(ITEM_READER_FAILED, str(error)) from error
    return read if reader.max_items is None else read[: max(0, reader.max_items.integer(scope)) or None]


def has_pointer(state: Map) -> bool:
    """Whether the reader has an ItemsPointer."""
    reader = state.distribution.reader if state.distribution is not None else None
    return reader is not None and bool(reader.items_pointer)


def exports(state: Map) -> bool:
    """Whether results are written to S3, so that the state's result is an object that says where."""
    writer = state.distribution.writer if state.distribution is not None else None
    return writer is not None and writer.parameters is not None


def values(found: Entries) -> Json:
    """Return items as the JSON that they came from."""
    keys = [key for key, _ in found if key is not None]
    return {key: item for key, item in found if key is not None} if keys else [item for _, item in found]


def selected(state: Map, scope: Scope, found: Entries) -> list[Json]:
    """Return what ItemSelector makes of the items. Raises StatesError."""
    template = state.item_selector
    if template is None:
        return [item for _, item in found]
    made = []
    for index, (key, item) in enumerate(found):
        told: dict[str, Json] = {"Index": index, "Value": item}
        if state.distribution is not None:
            told["Source"] = STATE_DATA
        if key is not None:
            told["Key"] = key
        context = {**scope.context, "Map": {"Item": told}}
        inner = Scope(scope.data, context, scope.variables)
        if state.is_jsonata:
            inner = JsonataScope({**scope.data, "context": context}, context, scope.variables)
        made.append(template.evaluate(inner))
    return made


def batched(state: Map, scope: Scope, chosen: list[Json]) -> list[Json] | None:
    """Return what ItemBatcher makes of the items, None without one. Raises StatesError."""
    batcher = state.distribution.batcher if state.distribution is not None else None
    if batcher is None:
        return None
    limits = Limits(
        batch_items=None if batcher.max_items is None else batcher.max_items.integer(scope),
        batch_bytes=None if batcher.max_bytes is None else batcher.max_bytes.integer(scope),
        batch_input=None if batcher.batch_input is None else batcher.batch_input.evaluate(scope),
        max_items=None,
    )

    async def items() -> AsyncIterator[Item]:
        for item in chosen:
            yield Item(None, item, STATE_DATA, None)

    found = _drained(inputs(items(), lambda _index, _key, item, _source: item, limits, 0))
    return [loads(batch.text) for batch in found]


def tolerance(state: Map, scope: Scope) -> tuple[int | None, float | None]:
    """Return how many iterations may fail, and how many of a hundred; None where the definition does not say."""
    count, percentage = state.tolerated_count, state.tolerated_percentage
    return (
        None if count is None else count.not_negative(scope),
        None if percentage is None else percentage.percentage(scope),
    )


def _drained(generator: AsyncIterator[T]) -> list[T]:
    """Return all that a generator gives which waits for nothing: everything is in memory."""

    async def collect() -> list[T]:
        return [entry async for entry in generator]

    try:
        collect().send(None)
    except StopIteration as done:
        found: list[T] = done.value
        return found
    raise AssertionError("the generator waits for something")
