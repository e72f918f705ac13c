"""PutItem, GetItem, UpdateItem, DeleteItem at the edge."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from entrepot.database import Reader, Transaction
from entrepot.operations import Call, Operation, ReadOperation, Request, Response, WriteOperation
from entrepot.services.dynamodb.conditions import Predicate, bind_condition
from entrepot.services.dynamodb.definitions import Table
from entrepot.services.dynamodb.dynamodb import DynamoDB
from entrepot.services.dynamodb.errors import ConditionalCheckFailedException
from entrepot.services.dynamodb.expressions import Parsed, parse_condition, parse_projection, parse_update
from entrepot.services.dynamodb.keys import key_of_item, key_of_request
from entrepot.services.dynamodb.requests import (
    bind,
    check_paths,
    consumed,
    on_table,
    one_of,
    project,
    read_units,
    refuse_legacy,
    request_key,
    size_of_item,
    write_units,
)
from entrepot.services.dynamodb.updates import Update
from entrepot.services.dynamodb.values import Item, check_size, normalise_item

ALL_OLD = ("NONE", "ALL_OLD")
ALL_RETURNS = ("NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW")


@dataclass(frozen=True, slots=True)
class PreparedWrite:
    """A write whose request was checked: which item, and what becomes of it."""

    key: tuple[bytes, bytes]
    change: Callable[[Item | None], Item | None]
    update: Update | None = None


def prepare_put(table: Table, request: Request) -> PreparedWrite:
    """Check a PutItem (or Put). Raise ValidationException."""
    parsed = _condition_of(request)
    binding = bind(request, parsed, "ConditionExpression")
    item, size_bytes = normalise_item(request["Item"])
    check_size(size_bytes)
    key = key_of_item(table, item)
    condition = _predicate(parsed, binding)

    def change(old: Item | None) -> Item:
        check_condition(condition, old, request)
        return item

    return PreparedWrite(key, change)


def prepare_delete(table: Table, request: Request) -> PreparedWrite:
    """Check a DeleteItem (or Delete). Raise ValidationException."""
    parsed = _condition_of(request)
    condition = _predicate(parsed, bind(request, parsed, "ConditionExpression"))

    def change(old: Item | None) -> None:
        check_condition(condition, old, request)

    return PreparedWrite(key_of_request(table, request_key(request["Key"])), change)


def prepare_check(table: Table, request: Request) -> PreparedWrite:
    """Check a ConditionCheck. Raise ValidationException."""
    parsed = _condition_of(request)
    condition = _predicate(parsed, bind(request, parsed, "ConditionExpression"))

    def change(old: Item | None) -> Item | None:
        check_condition(condition, old, request)
        return old

    return PreparedWrite(key_of_request(table, request_key(request["Key"])), change)


def prepare_update(table: Table, request: Request) -> PreparedWrite:
    """Check an UpdateItem (or Update). Raise ValidationException."""
    text = request.get("UpdateExpression")
    parsed_update = None if text is None else parse_update(text)
    parsed = _condition_of(request)
    everything = [*([parsed_update] if parsed_update else []), *parsed]
    binding = bind(request, everything, "UpdateExpression, ConditionExpression")
    condition = _predicate(parsed, binding)
    update = None if parsed_update is None else Update(parsed_update, binding, table.key_names)
    key = request_key(request["Key"])
    encoded = key_of_request(table, key)

    def change(old: Item | None) -> Item:
        check_condition(condition, old, request)
        before = key if old is None else old
        if update is None:
            return before
        new = update.apply(before)
        check_size(normalise_item(new)[1], update=True)
        return new

    return PreparedWrite(encoded, change, update)


def _condition_of(request: Request) -> list[Parsed]:
    text = request.get("ConditionExpression")
    return [] if text is None else [parse_condition(text, "ConditionExpression")]


def _predicate(parsed: list[Parsed], binding: Any) -> Predicate | None:
    if not parsed:
        return None
    assert parsed[0].condition is not None
    return bind_condition(parsed[0].condition, binding, parsed[0].parameter)


def check_condition(condition: Predicate | None, old: Item | None, request: Request) -> None:
    """Raise ConditionalCheckFailedException, with the item where the request asks for it."""
    if condition is None or condition(old or {}):
        return
    wanted = one_of(request, "ReturnValuesOnConditionCheckFailure", ALL_OLD)
    raise ConditionalCheckFailedException(old if wanted == "ALL_OLD" else None)


def returned(wanted: str, old: Item | None, new: Item | None, update: Update | None) -> Response:
    """Return `{"Attributes": …}` as ReturnValues asks, or nothing."""
    match wanted:
        case "ALL_OLD":
            attributes = old
        case "ALL_NEW":
            attributes = new
        case "UPDATED_OLD" | "UPDATED_NEW" if update is not None:
            source = old if wanted == "UPDATED_OLD" else new
            attributes = None if source is None else project(source, update.paths())
        case _:
            attributes = None
    return {"Attributes": attributes} if attributes else {}


def item_operations(service: DynamoDB) -> list[Operation]:
    """Return the operations on single items."""

    def perform(
        tx: Transaction,
        request: Request,
        prepare: Callable[[Table, Request], PreparedWrite],
        return_values: tuple[str, ...],
    ) -> Response:
        refuse_legacy(request)
        wanted = one_of(request, "ReturnValues", return_values)

        def work(table: Table) -> Response:
            write = prepare(table, request)
            old, new = service.change(tx, table, write.key, write.change)
            response = returned(wanted, old, new, write.update)
            if "ReturnConsumedCapacity" in request:
                response |= consumed(request, table, write_units(size_of_item(old), size_of_item(new)))
            return response

        return service.on_table(tx, request["TableName"], work)

    def put_item(tx: Transaction, request: Request, call: Call) -> Response:
        return perform(tx, request, prepare_put, ALL_OLD)

    def update_item(tx: Transaction, request: Request, call: Call) -> Response:
        return perform(tx, request, prepare_update, ALL_RETURNS)

    def delete_item(tx: Transaction, request: Request, call: Call) -> Response:
        return perform(tx, request, prepare_delete, ALL_OLD)

    def get_item(reader: Reader, request: Request, call: Call) -> Response:
        refuse_legacy(request)
        text = request.get("ProjectionExpression")
        parsed = [] if text is None else [parse_projection(text)]
        binding = bind(request, parsed, "ProjectionExpression")
        key = request_key(request["Key"])

        def work(table: Table) -> Response:
            item = service.read(reader, table, key_of_request(table, key))
            response: Response = {}
            if item is not None:
                paths = [binding.path(path) for one in parsed for path in one.paths]
                check_paths(paths)
                response["Item"] = project(item, paths) if paths else item
            units = read_units(size_of_item(item), consistent=bool(request.get("ConsistentRead")))
            return response | consumed(request, table, units)

        return service.on_table(reader, request["TableName"], work)

    return [
        WriteOperation("PutItem", on_table(service, "PutItem"), put_item),
        ReadOperation("GetItem", on_table(service, "GetItem"), get_item),
        WriteOperation("UpdateItem", on_table(service, "UpdateItem"), update_item),
        WriteOperation("DeleteItem", on_table(service, "DeleteItem"), delete_item),
    ]
