"""DynamoDB: tables and items of one account, for the operations and for other rooms."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias, TypeVar

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Database, Reader, Transaction
from entrepot.errors import StorageError
from entrepot.services.dynamodb import expiry, indexes, streams, tables, values
from entrepot.services.dynamodb.definitions import Table
from entrepot.services.dynamodb.errors import ResourceNotFoundException
from entrepot.services.dynamodb.items import StaleTableError, read_item, remove_item, write_item
from entrepot.services.dynamodb.keys import key_of_item, key_of_request
from entrepot.services.dynamodb.values import Item, check_size, normalise_item

T = TypeVar("T")

OnItemChanged: TypeAlias = Callable[[Transaction, str, Item, Item | None, Item | None], None]
"""(tx, table_name, key, old, new): an item was put (no `old`), changed or deleted (no `new`), in DynamoDB's JSON."""

Change: TypeAlias = Callable[[Item | None], Item | None]
"""Old item → new item (None: none). Raises AwsError to refuse."""

SWEEP_ROWS = 500
"""Rows of deleted tables that one transaction sweeps away."""

SWEPT_STREAMS = 100
"""Streams of which one round sweeps away old records."""

INDEXED_ITEMS = 500
"""Items whose entries one transaction adds to a new index, or removes from one that goes."""

EXPIRED_ITEMS = 100
"""Expired items that one transaction deletes."""

EXPIRING_TABLES = 100
"""Names of tables with Time to Live that are read at a time."""

EXPIRY_ROUNDS = 100
"""Transactions that expire items of one table before the next table has its turn."""

SWEEP_INTERVAL_S = 5.0
"""How often rows that are needed no more are looked for."""

REMEMBERED_TABLES = tables.MAX_TABLES
"""Definitions that are remembered."""

log = logging.getLogger(__name__)


class DynamoDB:
    """The tables of one account. Items here are DynamoDB's JSON, except where a method says plain values."""

    def __init__(self, database: Database, account: Account, *, on_item_changed: OnItemChanged) -> None:
        self.account = account
        self._database = database
        self._on_item_changed = on_item_changed
        self._tables: dict[str, Table] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._hastened = asyncio.Event()

    async def start(self) -> None:
        """Begin to sweep: rows of deleted tables, old records of streams, expired items; and to build indexes."""
        self._sweeping = asyncio.create_task(self._sweep_forever(), name="dynamodb-sweep")

    async def stop(self) -> None:
        """Stop sweeping."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
            self._sweeping = None

    def hasten(self) -> None:
        """Sweep at once: there is new work."""
        self._hastened.set()

    async def _sweep_forever(self) -> None:
        while True:
            self._hastened.clear()
            try:
                await self.sweep()
            except StorageError as error:
                log.warning("DynamoDB's work in the background could not be done, will try again: %s", error)
            except Exception:  # the task's top frame
                log.exception("DynamoDB's work in the background failed, will try again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_INTERVAL_S):  # wait_for can swallow a cancellation in Python 3.11
                    await self._hastened.wait()

    async def sweep(self) -> None:
        """Do what waits to be done in the background, in small transactions."""
        while await self._database.read(tables.any_deleted):
            await self._database.write(lambda tx: tables.sweep(tx, SWEEP_ROWS))
        while (work := await self._database.read(indexes.next_work)) is not None:
            await self._database.write(partial(_work_on_index, work=work))
        await self._sweep_streams()
        await self._expire()

    async def _sweep_streams(self) -> None:
        """Remove records that are older than 24 hours."""
        now_ms = clock.now_ms()
        old = await self._database.read(lambda reader: streams.streams_with_old_records(reader, now_ms, SWEPT_STREAMS))
        for stream_id in old:
            await self._database.write(
                partial(streams.sweep_stream, stream_id=stream_id, now_ms=now_ms, limit=SWEEP_ROWS)
            )

    async def _expire(self) -> None:
        """Delete items whose time has come, of each table in turn."""
        names = await self._database.read(partial(expiry.tables_with_expiry, after="", limit=EXPIRING_TABLES))
        while names:
            for name in names:
                for _ in range(EXPIRY_ROUNDS):
                    if await self._database.write(partial(self._expire_some, table_name=name)) < EXPIRED_ITEMS:
                        break
            names = await self._database.read(
                partial(expiry.tables_with_expiry, after=names[-1], limit=EXPIRING_TABLES)
            )

    def _expire_some(self, tx: Transaction, table_name: str) -> int:
        """Delete some expired items of a table; return how many."""
        table = tables.find_table(tx, table_name)
        if table is None:
            return 0
        keys = expiry.expired_keys(tx, table, clock.now_ms(), EXPIRED_ITEMS)
        for key in keys:
            self.change(tx, table, key, lambda _: None, expired=True)
        return len(keys)

    # ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────

    def table_arn(self, table_name: str) -> str:
        """Return a table's ARN; one that is given stays as it is."""
        return table_name if table_name.startswith("arn:") else self.account.arn("dynamodb", f"table/{table_name}")

    def table_name(self, name_or_arn: str) -> str:
        """Return a table's name from what a request calls TableName: the name or the ARN."""
        prefix = self.account.arn("dynamodb", "table/")
        return name_or_arn[len(prefix) :] if name_or_arn.startswith(prefix) else name_or_arn

    def table(self, reader: Reader, table_name: str) -> Table:
        """Return the ledger's definition of a table; raise ResourceNotFoundException."""
        table = tables.find_table(reader, table_name)
        if table is None:
            self._tables.pop(table_name, None)
            raise ResourceNotFoundException("Requested resource not found")
        if len(self._tables) >= REMEMBERED_TABLES:
            self._tables.clear()
        self._tables[table_name] = table
        return table

    def on_table(self, reader: Reader, name_or_arn: str, work: Callable[[Table], T]) -> T:
        """Run `work` with the remembered definition; once more with the ledger's when it says StaleTableError."""
        table_name = self.table_name(name_or_arn)
        remembered = self._tables.get(table_name)
        if remembered is not None:
            try:
                return work(remembered)
            except StaleTableError:
                pass
        return work(self.table(reader, table_name))

    # ── items ────────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, reader: Reader, table: Table, key: tuple[bytes, bytes]) -> Item | None:
        """Return an item by its encoded key."""
        return read_item(reader, table, key)

    def change(
        self, tx: Transaction, table: Table, key: tuple[bytes, bytes], change: Change, *, expired: bool = False
    ) -> tuple[Item | None, Item | None]:
        """Replace an item by what `change` makes of it; return (old, new). `expired`: Time to Live removes it."""
        old = read_item(tx, table, key)
        new = change(old)
        if new is None:
            if old is None:
                return None, None
            remove_item(tx, table, key, old)
        elif new != old:
            write_item(tx, table, key, old, new)
        else:
            return old, new
        if table.stream is not None and table.stream.enabled:
            streams.record_change(tx, table, table.stream, key, old, new, expired=expired)
        shown = new if new is not None else old
        assert shown is not None
        names = {name: shown[name] for name in table.key_names}
        self._on_item_changed(tx, table.table_name, names, old, new)
        return old, new

    # ── plain Python values, for other rooms ─────────────────────────────────────────────────────────────────────

    def put_item(self, tx: Transaction, table_name: str, item: Mapping[str, Any]) -> None:
        """Create or replace an item given as plain values. Raises ResourceNotFound, Validation."""
        normalised, size_bytes = normalise_item(values.to_item(item))
        check_size(size_bytes)
        self.on_table(
            tx, table_name, lambda table: self.change(tx, table, key_of_item(table, normalised), lambda _: normalised)
        )

    def update_item(
        self, tx: Transaction, table_name: str, key: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> None:
        """Set attributes (plain values; None removes one) of an item, which is created where missing."""
        normalised_key = normalise_item(values.to_item(key))[0]
        changed = values.to_item({name: value for name, value in attributes.items() if value is not None})

        def change(old: Item | None) -> Item:
            kept = {name: value for name, value in (old or normalised_key).items() if name not in attributes}
            new, size_bytes = normalise_item({**kept, **changed, **normalised_key})
            check_size(size_bytes, update=True)
            return new

        self.on_table(
            tx, table_name, lambda table: self.change(tx, table, key_of_request(table, normalised_key), change)
        )

    def get_item(self, reader: Reader, table_name: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return an item as plain values, or None. Raises ResourceNotFound, Validation."""
        normalised = normalise_item(values.to_item(key))[0]
        item = self.on_table(
            reader, table_name, lambda table: read_item(reader, table, key_of_request(table, normalised))
        )
        return None if item is None else values.from_item(item)

    def delete_item(self, tx: Transaction, table_name: str, key: Mapping[str, Any]) -> None:
        """Delete an item if it is there. Raises ResourceNotFound, Validation."""
        normalised = normalise_item(values.to_item(key))[0]
        self.on_table(
            tx, table_name, lambda table: self.change(tx, table, key_of_request(table, normalised), lambda _: None)
        )


def _work_on_index(tx: Transaction, work: tuple[int, int, bool]) -> None:
    """Build or drop a piece of an index."""
    table_id, number, is_build = work
    table = tables.by_id(tx, table_id)
    if table is None:
        indexes.forget_work(tx, table_id)
    elif not is_build:
        indexes.drop_step(tx, table_id, number, INDEXED_ITEMS)
    elif indexes.build_step(tx, table, number, INDEXED_ITEMS):
        tables.finish_index(tx, table, number)
