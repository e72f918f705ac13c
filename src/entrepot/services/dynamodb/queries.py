"""Query and Scan: key conditions, pages, and where the next page begins.

A page ends at the request's Limit, at 1 MB of what lies in the ledger, or at MAX_PAGE_ITEMS, whichever comes first; as on
AWS, a caller that gets a LastEvaluatedKey asks for the next page with it.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.Pagination.html
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from entrepot.database import Reader, Row
from entrepot.database import Value as SqlValue
from entrepot.services.dynamodb.binding import Binding
from entrepot.services.dynamodb.conditions import check_bounds
from entrepot.services.dynamodb.definitions import Index, KeyAttribute, Table
from entrepot.services.dynamodb.encoding import encode_key
from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.expressions import (
    Between,
    Comparison,
    Condition,
    Function,
    Logical,
    Parsed,
    Path,
    Value,
)
from entrepot.services.dynamodb.items import whole_item
from entrepot.services.dynamodb.keys import index_key, key_of_item
from entrepot.services.dynamodb.values import AttributeValue, Item, type_of

PAGE_SIZE_BYTES = 1024 * 1024
"""Bytes that one page reads (AWS's limit)."""

MAX_PAGE_ITEMS = 2_000
"""Items that one page reads, so that a page of small ones does not hold up the others."""

MAX_PAGE_ROWS = 10_000
"""Rows that one page of a parallel scan looks at; most of them belong to other segments."""

CHUNK = 100
"""Rows fetched at a time."""

_PARAMETER = "KeyConditionExpression"
_FLIPPED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys that a query asks for: one partition, and bounds on the encoded sort key."""

    partition_key: bytes
    clauses: tuple[str, ...] = ()
    parameters: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Page:
    """What one page read. `last` is the last item read where there may be more."""

    items: list[Item] = field(default_factory=list)
    scanned_count: int = 0
    size_bytes: int = 0
    last: Item | None = None


# ── key conditions ───────────────────────────────────────────────────────────────────────────────────────────────────


def key_range(parsed: Parsed, binding: Binding, keys: tuple[KeyAttribute, ...]) -> KeyRange:
    """Return what a KeyConditionExpression asks for. Raise ValidationException."""
    assert parsed.condition is not None
    partition: bytes | None = None
    sort: tuple[tuple[str, ...], tuple[bytes, ...]] | None = None
    seen: set[str] = set()
    for condition in _conjuncts(parsed.condition):
        name, operator, values = _key_condition(condition, binding)
        if name in seen:
            raise ValidationException("KeyConditionExpressions must only contain one condition per key")
        seen.add(name)
        attribute = next((key for key in keys if key.name == name), None)
        if attribute is None:
            continue
        encoded = [_encoded(attribute, value) for value in values]
        if attribute is keys[0]:
            if operator != "=":
                raise ValidationException("Query key condition not supported")
            partition = encoded[0]
        else:
            if operator == "BETWEEN":
                check_bounds(values[0], values[1], _PARAMETER)
            sort = _clauses(operator, encoded)
    for key, given in zip(keys, (partition, sort), strict=False):
        if given is None and (key is keys[0] or len(seen) > 1):
            raise ValidationException(f"Query condition missed key schema element: {key.name}")
    if seen - {key.name for key in keys}:
        raise ValidationException("Query key condition not supported")
    assert partition is not None
    return KeyRange(partition, *(sort or ((), ())))


def _conjuncts(condition: Condition) -> Iterator[Condition]:
    if isinstance(condition, Logical):
        if condition.operator != "AND":
            raise ValidationException(
                f"Invalid {_PARAMETER}: Invalid operator used in {_PARAMETER}: {condition.operator}"
            )
        yield from _conjuncts(condition.left)
        yield from _conjuncts(condition.right)
    else:
        yield condition


def _key_condition(condition: Condition, binding: Binding) -> tuple[str, str, list[AttributeValue]]:
    """Return (attribute name, operator, values) of one simple condition."""
    match condition:
        case Comparison(operator="<>"):
            raise ValidationException(f"Invalid {_PARAMETER}: Invalid operator used in {_PARAMETER}: <>")
        case Comparison(left=Path() as path, right=Value() as value):
            return _name(path, binding), condition.operator, [binding.value(value)]
        case Comparison(left=Value() as value, right=Path() as path):
            return _name(path, binding), _FLIPPED[condition.operator], [binding.value(value)]
        case Between(operand=Path() as path, low=Value() as low, high=Value() as high):
            return _name(path, binding), "BETWEEN", [binding.value(low), binding.value(high)]
        case Function(name="begins_with", arguments=(Path() as path, Value() as value)):
            prefix = binding.value(value)
            if type_of(prefix) not in ("S", "B"):
                raise ValidationException(
                    f"Invalid {_PARAMETER}: Incorrect operand type for operator or function; operator or function: "
                    f"begins_with, operand type: {type_of(prefix)}"
                )
            return _name(path, binding), "begins_with", [prefix]
        case Function():
            raise ValidationException(f"Invalid {_PARAMETER}: Invalid operator used in {_PARAMETER}: {condition.name}")
        case Comparison() | Between():
            raise ValidationException(
                f"Invalid {_PARAMETER}: An operand of a key condition must be a key attribute on one side and a value "
                "on the other"
            )
        case _:
            operator = "IN" if type(condition).__name__ == "In" else "NOT"
            raise ValidationException(f"Invalid {_PARAMETER}: Invalid operator used in {_PARAMETER}: {operator}")


def _name(path: Path, binding: Binding) -> str:
    resolved = binding.path(path)
    if len(resolved) != 1:
        raise ValidationException(f"Invalid {_PARAMETER}: {_PARAMETER}s cannot have conditions on nested attributes")
    return str(resolved[0])


def _encoded(attribute: KeyAttribute, value: AttributeValue) -> bytes:
    if type_of(value) != attribute.type:
        raise ValidationException(
            "One or more parameter values were invalid: Condition parameter type does not match schema type"
        )
    encoded = encode_key(value)
    if not encoded:
        raise ValidationException(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an "
            f"empty {'string' if attribute.type == 'S' else 'binary'} value. Key: {attribute.name}"
        )
    return encoded


def _clauses(operator: str, encoded: list[bytes]) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """Return SQL on the column of sort keys, and its parameters."""
    if operator == "BETWEEN":
        return ("sort_key >= ?", "sort_key <= ?"), tuple(encoded)
    if operator == "begins_with":
        following = _next_prefix(encoded[0])
        if following is None:
            return ("sort_key >= ?",), (encoded[0],)
        return ("sort_key >= ?", "sort_key < ?"), (encoded[0], following)
    return (f"sort_key {operator} ?",), (encoded[0],)


def _next_prefix(prefix: bytes) -> bytes | None:
    """Return the smallest bytes greater than everything that begins with `prefix`, or None when there are none."""
    shortened = prefix.rstrip(b"\xff")
    return shortened[:-1] + bytes([shortened[-1] + 1]) if shortened else None


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Walk:
    """How a page goes through a table or an index: where, from where, in which direction, how far."""

    table: Table
    index: Index | None = None
    range: KeyRange | None = None
    start: Item | None = None
    forward: bool = True
    limit: int | None = None
    segment: tuple[int, int] | None = None


def walk(reader: Reader, plan: Walk) -> Page:
    """Read one page. Raise ValidationException when the start key is not one of this table or index."""
    page = Page()
    limit = min(plan.limit or MAX_PAGE_ITEMS, MAX_PAGE_ITEMS)
    for number, (key, body) in enumerate(_rows(reader, plan), 1):
        if plan.segment is not None and zlib.crc32(key[0]) % plan.segment[1] != plan.segment[0]:
            if number >= MAX_PAGE_ROWS:
                page.last = whole_item(plan.table, key, body)
                break
            continue
        item = whole_item(plan.table, key, body)
        page.items.append(item)
        page.scanned_count += 1
        page.size_bytes += len(key[0]) + len(key[1]) + len(body)
        if page.scanned_count >= limit or page.size_bytes >= PAGE_SIZE_BYTES:
            page.last = item
            break
    return page


def _rows(reader: Reader, plan: Walk) -> Iterator[tuple[tuple[bytes, bytes], bytes]]:
    """Yield (primary key, body) in order, fetched in chunks."""
    columns = _order_columns(plan)
    position = None if plan.start is None else _position(plan, plan.start)
    chunk = min(CHUNK, plan.limit or CHUNK)
    while True:
        sql, parameters = _select(plan, columns, position)
        rows: list[Row] = reader.all(sql, [*parameters, chunk])
        for row in rows:
            yield (row[0], row[1]), row[2]
        if len(rows) < chunk:
            return
        position = tuple(rows[-1][3:])


def _order_columns(plan: Walk) -> tuple[str, ...]:
    if plan.index is not None:
        return ("x.partition_key", "x.sort_key", "x.item_partition_key", "x.item_sort_key")
    return ("x.partition_key", "x.sort_key")


def _select(plan: Walk, columns: tuple[str, ...], position: tuple[bytes, ...] | None) -> tuple[str, list[SqlValue]]:
    parameters: list[SqlValue] = [plan.table.table_id]
    where = ["x.table_id = ?"]
    if plan.index is None:
        source = "dynamodb_item x"
        found = "x.partition_key, x.sort_key, x.body"
    else:
        source = (
            "dynamodb_index_entry x JOIN dynamodb_item i ON i.table_id = x.table_id "
            "AND i.partition_key = x.item_partition_key AND i.sort_key = x.item_sort_key"
        )
        found = "i.partition_key, i.sort_key, i.body"
        where.append("x.index_number = ?")
        parameters.append(plan.index.number)
    if plan.range is not None:
        where.append("x.partition_key = ?")
        parameters.append(plan.range.partition_key)
        where.extend(f"x.{clause}" for clause in plan.range.clauses)
        parameters.extend(plan.range.parameters)
    if position is not None:
        placeholders = ", ".join("?" * len(columns))
        where.append(f"({', '.join(columns)}) {'>' if plan.forward else '<'} ({placeholders})")
        parameters.extend(position)
    order = ", ".join(column if plan.forward else f"{column} DESC" for column in columns)
    # Nothing of a request is in the text: names come from this file, values are parameters.
    sql = (
        f"SELECT {found}, {', '.join(columns)} FROM {source} WHERE {' AND '.join(where)} "  # noqa: S608
        f"ORDER BY {order} LIMIT ?"
    )
    return sql, parameters


def _position(plan: Walk, start: Item) -> tuple[bytes, ...]:
    """Return where an ExclusiveStartKey stands in the order. Raise ValidationException."""
    names = set(plan.table.key_names)
    if plan.index is not None:
        names |= {attribute.name for attribute in plan.index.keys.attributes}
    if set(start) != names:
        raise ValidationException("The provided starting key is invalid")
    try:
        key = key_of_item(plan.table, start)
        entry = None if plan.index is None else index_key(plan.index, start)
    except ValidationException as error:
        raise ValidationException(f"The provided starting key is invalid: {error.message}") from None
    position = key if entry is None else (*entry, *key)
    if plan.range is not None and position[0] != plan.range.partition_key:
        raise ValidationException("The provided starting key is outside query boundaries based on provided conditions")
    return position


def start_key(plan: Walk, item: Item) -> Item:
    """Return the LastEvaluatedKey that names an item in this table or index."""
    names = list(plan.table.key_names)
    if plan.index is not None:
        names += [attribute.name for attribute in plan.index.keys.attributes]
    return {name: item[name] for name in dict.fromkeys(names)}
