"""From items to the inputs of child executions: ItemSelector and ItemBatcher, with MaxItems, one input after the other."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from entrepot.services.stepfunctions.interpreter import DATA_LIMIT_BYTES
from entrepot.services.stepfunctions.language.distributed import MAX_ITEMS_LIMIT
from entrepot.services.stepfunctions.language.evaluation import DATA_LIMIT_EXCEEDED, Json, StatesError
from entrepot.services.stepfunctions.language.json_text import dumps
from entrepot.services.stepfunctions.steps.map_runs import STATE_DATA, Select

from .documents import ReaderError
from .readers import Item


@dataclass(frozen=True, slots=True)
class Limits:
    """What the definition says about batches; None: not said."""

    batch_items: int | None
    batch_bytes: int | None
    batch_input: Json
    max_items: int | None

    @property
    def batched(self) -> bool:
        """Whether items are batched at all."""
        return self.batch_items is not None or self.batch_bytes is not None


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of one child."""

    text: str
    items: int
    next_item: int
    """The index of the item after it."""
    position: Json


async def of_state(entries: list[tuple[str | None, Json]], position: Json) -> AsyncIterator[Item]:
    """Yield the items of a state's own input after `position`, which is an index."""
    for index in range(position or 0, len(entries)):
        key, value = entries[index]
        yield Item(key, value, STATE_DATA, index + 1)


async def inputs(items: AsyncIterator[Item], select: Select, limits: Limits, next_item: int) -> AsyncIterator[Batch]:
    """Yield the children's inputs; the first item has the index `next_item`. Raises ReaderError, StatesError."""
    chosen = _chosen(items, select, limits.max_items, next_item)
    if not limits.batched:
        async for item, text in chosen:
            next_item += 1
            yield Batch(_fitting(text), 1, next_item, item.position)
        return
    head, room = _head(limits)
    texts: list[str] = []
    size_bytes, position = 0, None
    async for item, text in chosen:
        item_bytes = len(text.encode()) + 1
        full = limits.batch_items is not None and len(texts) >= limits.batch_items
        if texts and (full or size_bytes + item_bytes > room):
            yield Batch(_joined(head, texts), len(texts), next_item, position)
            texts, size_bytes = [], 0
        texts.append(text)
        size_bytes += item_bytes
        next_item += 1
        position = item.position
    if texts:
        yield Batch(_joined(head, texts), len(texts), next_item, position)


async def _chosen(
    items: AsyncIterator[Item], select: Select, max_items: int | None, next_item: int
) -> AsyncIterator[tuple[Item, str]]:
    if max_items is not None and max_items < 0:
        raise ReaderError("field MaxItems must be positive")
    last = min(max_items or MAX_ITEMS_LIMIT, MAX_ITEMS_LIMIT)
    if next_item >= last:
        return
    async for item in items:
        yield item, dumps(select(next_item, item.key, item.value, item.source))
        next_item += 1
        if next_item >= last:
            return


def _head(limits: Limits) -> tuple[str, int]:
    """Return how a batch's text begins, and how many bytes its items may have."""
    head = "{" if limits.batch_input is None else f'{{"BatchInput":{dumps(limits.batch_input)},'
    whole = min(limits.batch_bytes or DATA_LIMIT_BYTES, DATA_LIMIT_BYTES)
    return head + '"Items":[', whole - len(head.encode()) - len('"Items":[]}') + 1


def _joined(head: str, texts: list[str]) -> str:
    return _fitting(f"{head}{','.join(texts)}]}}")


def _fitting(text: str) -> str:
    if len(text) > DATA_LIMIT_BYTES or len(text.encode()) > DATA_LIMIT_BYTES:
        raise StatesError(
            DATA_LIMIT_EXCEEDED, f"The input of a child execution is larger than {DATA_LIMIT_BYTES} bytes."
        )
    return text
