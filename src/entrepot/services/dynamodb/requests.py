"""What the operations on items share: reading a request's parts, and shaping what it asked to get back."""

from collections.abc import Mapping
from typing import Any

from entrepot.operations import Permission, Permissions, Request
from entrepot.services.dynamodb.binding import Binding, ResolvedPath
from entrepot.services.dynamodb.definitions import Table
from entrepot.services.dynamodb.dynamodb import DynamoDB
from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.expressions import Parsed, path_text
from entrepot.services.dynamodb.values import AttributeValue, Item, normalise_item

_LEGACY = {
    "Expected": "ConditionExpression",
    "AttributeUpdates": "UpdateExpression",
    "KeyConditions": "KeyConditionExpression",
    "QueryFilter": "FilterExpression",
    "ScanFilter": "FilterExpression",
    "AttributesToGet": "ProjectionExpression",
    "ConditionalOperator": "ConditionExpression",
}


def on_table(service: DynamoDB, action: str) -> Permissions:
    """Return what an operation on one table (or one of its indexes) needs."""

    def permissions(request: Request) -> list[Permission]:
        arn = service.table_arn(str(request.get("TableName", "*")))
        if index_name := request.get("IndexName"):
            arn = f"{arn}/index/{index_name}"
        return [Permission(f"dynamodb:{action}", arn)]

    return permissions


def refuse_legacy(request: Request) -> None:
    """Refuse the parameters that came before expressions."""
    for parameter, instead in _LEGACY.items():
        if parameter in request:
            raise ValidationException(f"The legacy parameter {parameter} is not supported here: use {instead} instead")


def bind(request: Mapping[str, Any], parsed: list[Parsed], parameters: str) -> Binding:
    """Return the request's placeholders, checked against the expressions that it has."""
    return Binding(
        parsed, request.get("ExpressionAttributeNames"), request.get("ExpressionAttributeValues"), parameters
    )


def request_key(key: Any) -> Item:
    """Return a request's `Key`, normalised."""
    if not isinstance(key, Mapping):
        raise ValidationException("The provided key element does not match the schema")
    return normalise_item(key)[0]


def one_of(request: Request, parameter: str, allowed: tuple[str, ...]) -> str:
    """Return a parameter that has a few values, the first being the default."""
    value = request.get(parameter) or allowed[0]
    if value not in allowed:
        raise ValidationException(
            f"1 validation error detected: Value '{value}' at '{parameter[0].lower()}{parameter[1:]}' failed to "
            f"satisfy constraint: Member must satisfy enum value set: [{', '.join(sorted(allowed))}]"
        )
    return str(value)


def consumed(request: Request, table: Table, units: float, *, index_name: str | None = None) -> dict[str, Any]:
    """Return `{"ConsumedCapacity": …}` where the request asks for it, else nothing."""
    wanted = one_of(request, "ReturnConsumedCapacity", ("NONE", "TOTAL", "INDEXES"))
    if wanted == "NONE":
        return {}
    return {"ConsumedCapacity": capacity(wanted, table, units, index_name=index_name)}


def capacity(wanted: str, table: Table, units: float, *, index_name: str | None = None) -> dict[str, Any]:
    """Return one ConsumedCapacity; `wanted` is TOTAL or INDEXES."""
    shape: dict[str, Any] = {"TableName": table.table_name, "CapacityUnits": units}
    if wanted == "INDEXES":
        shape["Table"] = {"CapacityUnits": 0.0 if index_name else units}
        if index_name:
            kind = "Global" if table.index(index_name).is_global else "Local"
            shape[f"{kind}SecondaryIndexes"] = {index_name: {"CapacityUnits": units}}
    return shape


def write_units(*sizes_bytes: int) -> float:
    """Return write capacity: one unit per KiB of the larger of the item before and after."""
    return float(max(1, -(-max(sizes_bytes) // 1024)))


def read_units(size_bytes: int, *, consistent: bool) -> float:
    """Return read capacity: one unit per 4 KiB, half of it for eventually consistent reads."""
    units = max(1, -(-size_bytes // 4096))
    return float(units) if consistent else units / 2


def size_of_item(item: Item | None) -> int:
    """Return an item's size in bytes as DynamoDB counts."""
    return 0 if item is None else normalise_item(item)[1]


def project(item: Item, paths: list[ResolvedPath]) -> Item:
    """Return what lies at the paths, in its nesting; elements of lists close ranks, as in DynamoDB's answers."""
    tree: dict[str | int, Any] = {}
    for path in paths:
        node = tree
        for element in path:
            node = node.setdefault(element, {})
    return _pick_map(item, tree)


def _pick_map(members: dict[str, AttributeValue], tree: dict[str | int, Any]) -> dict[str, AttributeValue]:
    picked = {}
    for name, branch in tree.items():
        if isinstance(name, str) and name in members:
            value = _pick(members[name], branch)
            if value is not None:
                picked[name] = value
    return picked


def _pick(value: AttributeValue, tree: dict[str | int, Any]) -> AttributeValue | None:
    """Return the part of a value that the tree asks for, or None when there is none."""
    if not tree:
        return value
    if "M" in value:
        members = _pick_map(value["M"], tree)
        return {"M": members} if members else None
    if "L" not in value:
        return None
    elements = value["L"]
    wanted = sorted(index for index in tree if isinstance(index, int) and index < len(elements))
    picked = [part for index in wanted if (part := _pick(elements[index], tree[index])) is not None]
    return {"L": picked} if picked else None


def check_paths(paths: list[ResolvedPath]) -> None:
    """Raise ValidationException when two paths of a projection overlap."""
    for index, one in enumerate(paths):
        for other in paths[:index]:
            shared = min(len(one), len(other))
            if one[:shared] == other[:shared]:
                raise ValidationException(
                    "Invalid ProjectionExpression: Two document paths overlap with each other; must remove or rewrite "
                    f"one of these paths; path one: {path_text(other)}, path two: {path_text(one)}"
                )
