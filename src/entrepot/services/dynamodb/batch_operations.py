"""BatchGetItem, BatchWriteItem, TransactGetItems and TransactWriteItems at the edge.

A batch here is one transaction too: more than AWS promises, never less.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from entrepot import clock
from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, Permission, ReadOperation, Request, Response, WriteOperation
from entrepot.services.dynamodb.definitions import Table
from entrepot.services.dynamodb.dynamodb import DynamoDB
from entrepot.services.dynamodb.errors import (
    ConditionalCheckFailedException,
    IdempotentParameterMismatchException,
    TransactionCanceledException,
    ValidationException,
)
from entrepot.services.dynamodb.expressions import parse_projection
from entrepot.services.dynamodb.item_operations import (
    PreparedWrite,
    prepare_check,
    prepare_delete,
    prepare_put,
    prepare_update,
)
from entrepot.services.dynamodb.keys import key_of_request
from entrepot.services.dynamodb.requests import (
    bind,
    capacity,
    check_paths,
    one_of,
    project,
    read_units,
    refuse_legacy,
    request_key,
    size_of_item,
    write_units,
)
from entrepot.services.dynamodb.values import Item

MAX_BATCH_WRITES = 25
MAX_BATCH_KEYS = 100
MAX_TRANSACTION = 100
BATCH_SIZE_BYTES = 16 * 1024 * 1024
"""Bytes that one BatchGetItem answers with; the keys left over are UnprocessedKeys (AWS's limit)."""

TOKEN_LIFE_MS = 600_000
"""How long a client request token makes a transaction idempotent (AWS: 10 minutes)."""

PRUNED_TOKENS = 20
"""Old tokens that one transaction removes."""

_WRITES: dict[str, tuple[str, Callable[[Table, Request], PreparedWrite]]] = {
    "Put": ("dynamodb:PutItem", prepare_put),
    "Update": ("dynamodb:UpdateItem", prepare_update),
    "Delete": ("dynamodb:DeleteItem", prepare_delete),
    "ConditionCheck": ("dynamodb:ConditionCheckItem", prepare_check),
}


def batch_operations(service: DynamoDB) -> list[Operation]:
    """Return the operations on several items."""

    def on_tables(action: str) -> Callable[[Request], Iterable[Permission]]:
        return lambda request: [
            Permission(f"dynamodb:{action}", service.table_arn(name)) for name in request.get("RequestItems") or {}
        ]

    def written(request: Request) -> list[Permission]:
        permissions = []
        for entry in request.get("TransactItems") or ():
            for kind, action in entry.items():
                name = _WRITES[kind][0] if kind in _WRITES else "dynamodb:*"
                permissions.append(Permission(name, service.table_arn(str(action.get("TableName", "*")))))
        return permissions

    def got(request: Request) -> list[Permission]:
        entries = request.get("TransactItems") or ()
        names = [str((entry.get("Get") or {}).get("TableName", "*")) for entry in entries]
        return [Permission("dynamodb:GetItem", service.table_arn(name)) for name in names]

    def batch_get_item(reader: Reader, request: Request, call: Call) -> Response:
        return _batch_get(service, reader, request)

    def batch_write_item(tx: Transaction, request: Request, call: Call) -> Response:
        return _batch_write(service, tx, request)

    def transact_get_items(reader: Reader, request: Request, call: Call) -> Response:
        return _transact_get(service, reader, request)

    def transact_write_items(tx: Transaction, request: Request, call: Call) -> Response:
        return _transact_write(service, tx, request)

    return [
        ReadOperation("BatchGetItem", on_tables("BatchGetItem"), batch_get_item),
        WriteOperation("BatchWriteItem", on_tables("BatchWriteItem"), batch_write_item),
        ReadOperation("TransactGetItems", got, transact_get_items),
        WriteOperation("TransactWriteItems", written, transact_write_items),
    ]


def _entries(request: Request, parameter: str, count: int, limit: int) -> None:
    if not 1 <= count <= limit:
        raise ValidationException(
            f"1 validation error detected: Value at '{parameter}' failed to satisfy constraint: Member must have "
            f"length greater than or equal to 1 and less than or equal to {limit}"
        )


def _consumed_list(request: Request, units: Mapping[str, float], found: Mapping[str, Table]) -> Response:
    wanted = one_of(request, "ReturnConsumedCapacity", ("NONE", "TOTAL", "INDEXES"))
    if wanted == "NONE":
        return {}
    return {"ConsumedCapacity": [capacity(wanted, found[name], amount) for name, amount in units.items()]}


def _batch_get(service: DynamoDB, reader: Reader, request: Request) -> Response:
    asked = request.get("RequestItems") or {}
    _entries(request, "requestItems", sum(len(one.get("Keys") or ()) for one in asked.values()), MAX_BATCH_KEYS)
    responses: dict[str, list[Item]] = {}
    unprocessed: dict[str, dict[str, Any]] = {}
    units: dict[str, float] = {}
    found: dict[str, Table] = {}
    size_bytes = 0
    for name, one in asked.items():
        refuse_legacy(one)
        table = found[name] = service.table(reader, service.table_name(name))
        text = one.get("ProjectionExpression")
        parsed = [] if text is None else [parse_projection(text)]
        binding = bind(one, parsed, "ProjectionExpression")
        paths = [binding.path(path) for projection in parsed for path in projection.paths]
        check_paths(paths)
        keys = [key_of_request(table, request_key(key)) for key in one["Keys"]]
        if len(set(keys)) != len(keys):
            raise ValidationException("Provided list of item keys contains duplicates")
        responses[name], units[name] = [], 0.0
        for position, key in enumerate(keys):
            if size_bytes >= BATCH_SIZE_BYTES:
                unprocessed[name] = {**one, "Keys": list(one["Keys"])[position:]}
                break
            item = service.read(reader, table, key)
            item_size_bytes = size_of_item(item)
            size_bytes += item_size_bytes
            units[name] += read_units(item_size_bytes, consistent=bool(one.get("ConsistentRead")))
            if item is not None:
                responses[name].append(project(item, paths) if paths else item)
    response: Response = {"Responses": responses, "UnprocessedKeys": unprocessed}
    return response | _consumed_list(request, units, found)


def _batch_write(service: DynamoDB, tx: Transaction, request: Request) -> Response:
    asked = request.get("RequestItems") or {}
    _entries(request, "requestItems", sum(len(entries) for entries in asked.values()), MAX_BATCH_WRITES)
    units: dict[str, float] = {}
    found: dict[str, Table] = {}
    for name, entries in asked.items():
        table = found[name] = service.table(tx, service.table_name(name))
        units[name] = 0.0
        writes = [_batch_entry(table, entry) for entry in entries]
        if len({write.key for write in writes}) != len(writes):
            raise ValidationException("Provided list of item keys contains duplicates")
        for write in writes:
            old, new = service.change(tx, table, write.key, write.change)
            units[name] += write_units(size_of_item(old), size_of_item(new))
    return {"UnprocessedItems": {}, **_consumed_list(request, units, found)}


def _batch_entry(table: Table, entry: Mapping[str, Any]) -> PreparedWrite:
    kinds = [kind for kind in ("PutRequest", "DeleteRequest") if entry.get(kind)]
    if len(kinds) != 1:
        raise ValidationException(
            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported "
            "datatypes"
            if kinds
            else "A WriteRequest must have a PutRequest or a DeleteRequest"
        )
    if kinds[0] == "PutRequest":
        return prepare_put(table, {"Item": entry["PutRequest"]["Item"]})
    return prepare_delete(table, {"Key": entry["DeleteRequest"]["Key"]})


def _transact_get(service: DynamoDB, reader: Reader, request: Request) -> Response:
    asked = request.get("TransactItems") or []
    _entries(request, "transactItems", len(asked), MAX_TRANSACTION)
    responses: list[dict[str, Any]] = []
    units: dict[str, float] = {}
    found: dict[str, Table] = {}
    for entry in asked:
        get = entry["Get"]
        table = service.table(reader, service.table_name(get["TableName"]))
        found[table.table_name] = table
        text = get.get("ProjectionExpression")
        parsed = [] if text is None else [parse_projection(text)]
        binding = bind(get, parsed, "ProjectionExpression")
        paths = [binding.path(path) for projection in parsed for path in projection.paths]
        check_paths(paths)
        item = service.read(reader, table, key_of_request(table, request_key(get["Key"])))
        amount = 2 * read_units(size_of_item(item), consistent=True)
        units[table.table_name] = units.get(table.table_name, 0.0) + amount
        responses.append({} if item is None else {"Item": project(item, paths) if paths else item})
    return {"Responses": responses, **_consumed_list(request, units, found)}


def _transact_write(service: DynamoDB, tx: Transaction, request: Request) -> Response:
    asked = request.get("TransactItems") or []
    _entries(request, "transactItems", len(asked), MAX_TRANSACTION)
    if not _first_use(tx, request):
        return {}
    prepared: list[tuple[Table, PreparedWrite]] = []
    for entry in asked:
        kinds = [kind for kind in _WRITES if entry.get(kind)]
        if len(kinds) != 1 or len(entry) != 1:
            raise ValidationException("TransactItems can only contain one of Check, Put, Update or Delete")
        action = entry[kinds[0]]
        table = service.table(tx, service.table_name(action["TableName"]))
        prepared.append((table, _WRITES[kinds[0]][1](table, action)))
    if len({(table.table_id, write.key) for table, write in prepared}) != len(prepared):
        raise ValidationException("Transaction request cannot include multiple operations on one item")
    reasons: list[dict[str, Any]] = []
    units: dict[str, float] = {}
    for table, write in prepared:
        try:
            old, new = service.change(tx, table, write.key, write.change)
        except ConditionalCheckFailedException as error:
            reasons.append({"Code": "ConditionalCheckFailed", "Message": error.message, **error.members})
            continue
        except ValidationException as error:
            reasons.append({"Code": "ValidationError", "Message": error.message})
            continue
        reasons.append({"Code": "None"})
        amount = 2 * write_units(size_of_item(old), size_of_item(new))
        units[table.table_name] = units.get(table.table_name, 0.0) + amount
    if any(reason["Code"] != "None" for reason in reasons):
        raise TransactionCanceledException(reasons)  # undoes what was written, with its caller's savepoint
    return _consumed_list(request, units, {table.table_name: table for table, _ in prepared})


def _first_use(tx: Transaction, request: Request) -> bool:
    """Note a client request token; tell whether this is its first use. Raise when another request used it."""
    token = request.get("ClientRequestToken")
    if token is None:
        return True
    now_ms = clock.now_ms()
    tx.execute(
        "DELETE FROM dynamodb_request_token WHERE token IN "
        "(SELECT token FROM dynamodb_request_token WHERE used_at_ms < ? ORDER BY used_at_ms LIMIT ?)",
        (now_ms - TOKEN_LIFE_MS, PRUNED_TOKENS),
    )
    canonical = json.dumps(request["TransactItems"], sort_keys=True, default=repr)
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    row = tx.one("SELECT digest, used_at_ms FROM dynamodb_request_token WHERE token = ?", (token,))
    if row is not None and row[1] >= now_ms - TOKEN_LIFE_MS:
        if row[0] != digest:
            raise IdempotentParameterMismatchException(
                "The request uses the same client token as a previous, but non-identical request."
            )
        return False
    tx.execute(
        "INSERT INTO dynamodb_request_token (token, digest, used_at_ms) VALUES (?, ?, ?) "
        "ON CONFLICT (token) DO UPDATE SET digest = excluded.digest, used_at_ms = excluded.used_at_ms",
        (token, digest, now_ms),
    )
    return True
