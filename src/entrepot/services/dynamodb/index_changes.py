"""UpdateTable's changes of global secondary indexes: one at a time is created or deleted.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateTable.html
"""

from typing import Any

from entrepot.database import Transaction
from entrepot.services.dynamodb import indexes
from entrepot.services.dynamodb.definitions import Table
from entrepot.services.dynamodb.errors import (
    LimitExceededException,
    ResourceInUseException,
    ResourceNotFoundException,
    ValidationException,
)


def apply(
    tx: Transaction,
    table: Table,
    definition: dict[str, Any],
    updates: list[dict[str, Any]],
    attributes: list[dict[str, Any]],
    number: int,
) -> None:
    """Change a definition in place, and begin the work. `number` is for an index that is created. Raises AwsError."""
    _number_all(table, definition)
    present = definition.setdefault("GlobalSecondaryIndexes", [])
    online = 0
    for update in updates:
        kinds = [kind for kind in ("Create", "Delete", "Update") if update.get(kind)]
        if len(kinds) != 1:
            raise ValidationException("One of Create, Delete or Update is required in each GlobalSecondaryIndexUpdate")
        change = update[kinds[0]]
        name = change["IndexName"]
        found = next((index for index in present if index["IndexName"] == name), None)
        if kinds[0] != "Update":
            online += 1
        if kinds[0] == "Create":
            if found is not None:
                raise ValidationException(f"One or more parameter values were invalid: Duplicate index name: {name}")
            if any(index.building for index in table.indexes):
                raise ResourceInUseException(f"Table {table.table_name} is building an index already")
            kept = {key: change[key] for key in ("IndexName", "KeySchema", "Projection") if change.get(key)}
            present.append({**kept, "Number": number, "Building": True})
            indexes.begin_build(tx, table.table_id, number)
        elif found is None:
            raise ResourceNotFoundException(f"Requested resource not found: Index {name} of table {table.table_name}")
        elif kinds[0] == "Delete":
            present.remove(found)
            indexes.begin_drop(tx, table.table_id, found["Number"])
    if online > 1:
        raise LimitExceededException(
            "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table"
        )
    _define_attributes(definition, attributes)


def _number_all(table: Table, definition: dict[str, Any]) -> None:
    """Write down the numbers that indexes had by their position so far."""
    numbers = {index.index_name: index.number for index in table.indexes}
    for kind in ("LocalSecondaryIndexes", "GlobalSecondaryIndexes"):
        for index in definition.get(kind) or []:
            index["Number"] = numbers[index["IndexName"]]


def _define_attributes(definition: dict[str, Any], given: list[dict[str, Any]]) -> None:
    """Take up the attributes of a new index; forget those that no key has any more."""
    known = {one["AttributeName"]: one for one in [*definition["AttributeDefinitions"], *given]}
    for one in definition["AttributeDefinitions"]:
        if known[one["AttributeName"]]["AttributeType"] != one["AttributeType"]:
            raise ValidationException(
                f"One or more parameter values were invalid: the type of {one['AttributeName']} cannot be changed"
            )
    schemas = [definition["KeySchema"]]
    for kind in ("LocalSecondaryIndexes", "GlobalSecondaryIndexes"):
        schemas += [index.get("KeySchema") or [] for index in definition.get(kind) or []]
    used = {element["AttributeName"] for schema in schemas for element in schema}
    definition["AttributeDefinitions"] = [one for name, one in known.items() if name in used]
    if not definition.get("GlobalSecondaryIndexes"):
        definition.pop("GlobalSecondaryIndexes", None)
