"""Query and Scan at the edge."""

from typing import Any

from entrepot.database import Reader
from entrepot.operations import Call, Operation, ReadOperation, Request, Response
from entrepot.services.dynamodb.binding import Binding, ResolvedPath
from entrepot.services.dynamodb.conditions import bind_condition
from entrepot.services.dynamodb.definitions import Index, Table
from entrepot.services.dynamodb.dynamodb import DynamoDB
from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.expressions import (
    Between,
    Comparison,
    Condition,
    Function,
    In,
    Logical,
    Not,
    Parsed,
    Path,
    parse_condition,
    parse_projection,
)
from entrepot.services.dynamodb.queries import Walk, key_range, start_key, walk
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
)
from entrepot.services.dynamodb.values import Item

MAX_SEGMENTS = 1_000_000
"""TotalSegments at most (AWS's limit)."""

_SELECTS = ("ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "SPECIFIC_ATTRIBUTES", "COUNT")


def query_operations(service: DynamoDB) -> list[Operation]:
    """Return Query and Scan."""

    def query(reader: Reader, request: Request, call: Call) -> Response:
        refuse_legacy(request)
        text = request.get("KeyConditionExpression")
        if text is None:
            raise ValidationException(
                "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request."
            )
        return _answer(service, reader, request, parse_condition(text, "KeyConditionExpression"))

    def scan(reader: Reader, request: Request, call: Call) -> Response:
        refuse_legacy(request)
        return _answer(service, reader, request, None)

    return [
        ReadOperation("Query", on_table(service, "Query"), query),
        ReadOperation("Scan", on_table(service, "Scan"), scan),
    ]


def _answer(service: DynamoDB, reader: Reader, request: Request, key_condition: Parsed | None) -> Response:
    filter_text, projection_text = request.get("FilterExpression"), request.get("ProjectionExpression")
    filtered = None if filter_text is None else parse_condition(filter_text, "FilterExpression")
    projected = None if projection_text is None else parse_projection(projection_text)
    parsed = [one for one in (key_condition, filtered, projected) if one is not None]
    binding = bind(request, parsed, "FilterExpression" if key_condition is None else "KeyConditionExpression")
    table = service.table(reader, service.table_name(request["TableName"]))
    index = None if request.get("IndexName") is None else table.index(request["IndexName"])
    if index is not None and index.building:
        raise ValidationException(f"Cannot read from backfilling global secondary index: {index.index_name}")
    if index is not None and index.is_global and request.get("ConsistentRead"):
        raise ValidationException("Consistent reads are not supported on global secondary indexes")
    keys = (table.keys if index is None else index.keys).attributes
    if filtered is not None and key_condition is not None:
        _check_filter(filtered, binding, {key.name for key in keys})
    paths = [] if projected is None else [binding.path(path) for path in projected.paths]
    check_paths(paths)
    select = _select(request, index, paths)
    plan = _plan(request, table, index, key_condition, binding)
    page = walk(reader, plan)
    found = page.items
    if filtered is not None:
        assert filtered.condition is not None
        matches = bind_condition(filtered.condition, binding, filtered.parameter)
        found = [item for item in found if matches(item)]
    response: Response = {"Count": len(found), "ScannedCount": page.scanned_count}
    if select != "COUNT":
        response["Items"] = [_shape(item, table, index, select, paths) for item in found]
    if page.last is not None:
        response["LastEvaluatedKey"] = start_key(plan, page.last)
    units = read_units(page.size_bytes, consistent=bool(request.get("ConsistentRead")))
    return response | consumed(request, table, units, index_name=request.get("IndexName"))


def _plan(request: Request, table: Table, index: Index | None, key_condition: Parsed | None, binding: Binding) -> Walk:
    keys = (table.keys if index is None else index.keys).attributes
    limit = request.get("Limit")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ValidationException(
            f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
            "Member must have value greater than or equal to 1"
        )
    start = request.get("ExclusiveStartKey")
    return Walk(
        table=table,
        index=index,
        range=None if key_condition is None else key_range(key_condition, binding, keys),
        start=None if start is None else request_key(start),
        forward=bool(request.get("ScanIndexForward", True)),
        limit=limit,
        segment=_segment(request),
    )


def _segment(request: Request) -> tuple[int, int] | None:
    segment, total = request.get("Segment"), request.get("TotalSegments")
    if segment is None and total is None:
        return None
    if segment is None or total is None:
        missing, given = ("Segment", "TotalSegments") if segment is None else ("TotalSegments", "Segment")
        raise ValidationException(
            f"The {missing} parameter is required but was not present in the request when parameter {given} is present"
        )
    if not 1 <= total <= MAX_SEGMENTS or not 0 <= segment < total:
        raise ValidationException(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            f"Segment: {segment} is not less than TotalSegments: {total}"
        )
    return segment, total


def _select(request: Request, index: Index | None, paths: list[ResolvedPath]) -> str:
    default = "SPECIFIC_ATTRIBUTES" if paths else "ALL_ATTRIBUTES" if index is None else "ALL_PROJECTED_ATTRIBUTES"
    select = request.get("Select") or default
    one_of({"Select": select}, "Select", _SELECTS)
    if paths and select != "SPECIFIC_ATTRIBUTES":
        verb = "Count" if select == "COUNT" else select
        raise ValidationException(f"Cannot specify the ProjectionExpression when choosing to get {verb}")
    if select == "SPECIFIC_ATTRIBUTES" and not paths:
        raise ValidationException("Must specify the ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES")
    if select == "ALL_PROJECTED_ATTRIBUTES" and index is None:
        raise ValidationException("ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")
    if select == "ALL_ATTRIBUTES" and index is not None and index.is_global and index.projection != "ALL":
        raise ValidationException(
            "One or more parameter values were invalid: Select type ALL_ATTRIBUTES is not supported for global "
            f"secondary index {index.index_name} because its projection type is not ALL"
        )
    return str(select)


def _shape(item: Item, table: Table, index: Index | None, select: str, paths: list[ResolvedPath]) -> dict[str, Any]:
    if index is not None and index.projection != "ALL" and (index.is_global or select == "ALL_PROJECTED_ATTRIBUTES"):
        names = {*table.key_names, *(key.name for key in index.keys.attributes), *index.non_key_attributes}
        item = {name: value for name, value in item.items() if name in names}
    return project(item, paths) if paths else item


def _check_filter(parsed: Parsed, binding: Binding, key_names: set[str]) -> None:
    """Refuse a filter on the keys that the key condition is for."""
    assert parsed.condition is not None
    for path in _paths(parsed.condition):
        name = str(binding.path(path)[0])
        if name in key_names:
            raise ValidationException(
                "Filter Expression can only contain non-primary key attributes: Primary key attribute: " + name
            )


def _paths(condition: Condition) -> list[Path]:
    match condition:
        case Logical():
            return [*_paths(condition.left), *_paths(condition.right)]
        case Not():
            return _paths(condition.condition)
        case Comparison():
            operands = [condition.left, condition.right]
        case Between():
            operands = [condition.operand, condition.low, condition.high]
        case In():
            operands = [condition.operand, *condition.candidates]
        case Function():
            operands = list(condition.arguments)
    found = []
    for operand in operands:
        if isinstance(operand, Path):
            found.append(operand)
        elif isinstance(operand, Function):
            found += _paths(operand)
    return found
