"""What a table is: its keys, indexes, stream and time to live, as CreateTable's parameters describe them."""

import re
from dataclasses import dataclass
from typing import Any

from entrepot.services.dynamodb.errors import ValidationException

MAX_GLOBAL_INDEXES = 20
MAX_LOCAL_INDEXES = 5

VIEW_TYPES = ("NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES", "KEYS_ONLY")

TABLE_NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_KEY_TYPES = ("S", "N", "B")


@dataclass(frozen=True, slots=True)
class KeyAttribute:
    """A key attribute and its type, S, N or B."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Keys:
    """A primary key, or the key of an index."""

    partition: KeyAttribute
    sort: KeyAttribute | None

    @property
    def attributes(self) -> tuple[KeyAttribute, ...]:
        """Return the key's one or two attributes."""
        return (self.partition,) if self.sort is None else (self.partition, self.sort)


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index; `number` names it in the ledger. `projection` is ALL, KEYS_ONLY or INCLUDE.

    One that is `building` lacks entries of items that were there before it, and cannot be read yet.
    """

    number: int
    index_name: str
    is_global: bool
    keys: Keys
    projection: str
    non_key_attributes: tuple[str, ...] = ()
    building: bool = False


@dataclass(frozen=True, slots=True)
class TimeToLive:
    """The attribute that says when an item expires (seconds since 1970); `number` names its index in the ledger."""

    attribute_name: str
    number: int


@dataclass(frozen=True, slots=True)
class TableStream:
    """The newest stream of a table. `view_type` is KEYS_ONLY, NEW_IMAGE, OLD_IMAGE or NEW_AND_OLD_IMAGES."""

    stream_id: int
    label: str
    view_type: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table's definition. `key_names` are the names of its primary key's attributes."""

    table_name: str
    table_id: int
    revision: str
    keys: Keys
    key_names: tuple[str, ...]
    attribute_types: dict[str, str]
    indexes: tuple[Index, ...]
    billing_mode: str
    read_capacity_units: int
    write_capacity_units: int
    deletion_protection: bool
    created_at_ms: int
    stream: TableStream | None = None
    time_to_live: TimeToLive | None = None

    def index(self, index_name: str) -> Index:
        """Return the index of that name; raise ValidationException."""
        for index in self.indexes:
            if index.index_name == index_name:
                return index
        raise ValidationException(f"The table does not have the specified index: {index_name}")


def define(definition: dict[str, Any], table_name: str, table_id: int, revision: str, created_at_ms: int) -> Table:
    """Return the table that CreateTable's parameters describe. Raise ValidationException."""
    types = _attribute_types(definition.get("AttributeDefinitions") or [])
    keys = _keys(definition.get("KeySchema") or [], types)
    indexes = _indexes(definition, types, keys)
    used = {attribute.name for one in (keys, *(index.keys for index in indexes)) for attribute in one.attributes}
    if used != set(types):
        raise ValidationException(
            "One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match "
            "number of attributes defined in AttributeDefinitions"
        )
    billing_mode = definition.get("BillingMode") or "PROVISIONED"
    throughput = definition.get("ProvisionedThroughput") or {}
    if billing_mode not in ("PROVISIONED", "PAY_PER_REQUEST"):
        raise ValidationException(f"One or more parameter values were invalid: Unknown BillingMode {billing_mode}")
    if billing_mode == "PROVISIONED" and not throughput:
        raise ValidationException(
            "One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be "
            "specified when BillingMode is PROVISIONED"
        )
    if billing_mode == "PAY_PER_REQUEST" and throughput:
        raise ValidationException(
            "One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be "
            "specified when BillingMode is PAY_PER_REQUEST"
        )
    return Table(
        table_name=table_name,
        table_id=table_id,
        revision=revision,
        keys=keys,
        key_names=tuple(attribute.name for attribute in keys.attributes),
        attribute_types=types,
        indexes=indexes,
        billing_mode=billing_mode,
        read_capacity_units=int(throughput.get("ReadCapacityUnits", 0)),
        write_capacity_units=int(throughput.get("WriteCapacityUnits", 0)),
        deletion_protection=bool(definition.get("DeletionProtectionEnabled")),
        created_at_ms=created_at_ms,
        time_to_live=None if definition.get("TimeToLive") is None else TimeToLive(*definition["TimeToLive"]),
        stream=None if definition.get("Stream") is None else TableStream(*definition["Stream"]),
    )


def view_type_of(specification: dict[str, Any]) -> str | None:
    """Return the view type that a StreamSpecification asks for, or None to have no stream. Raise ValidationException."""
    view_type = specification.get("StreamViewType")
    if not specification.get("StreamEnabled"):
        if view_type is not None:
            raise ValidationException(
                "One or more parameter values were invalid: StreamViewType must not be given where StreamEnabled is false"
            )
        return None
    if view_type not in VIEW_TYPES:
        raise ValidationException(
            "One or more parameter values were invalid: StreamEnabled with StreamViewType "
            f"{view_type}; it is one of {', '.join(VIEW_TYPES)}"
        )
    return str(view_type)


def _attribute_types(definitions: list[dict[str, Any]]) -> dict[str, str]:
    types: dict[str, str] = {}
    for definition in definitions:
        name, kind = definition.get("AttributeName"), definition.get("AttributeType")
        if not isinstance(name, str) or not 0 < len(name) <= 255 or kind not in _KEY_TYPES:
            raise ValidationException(
                f"1 validation error detected: Value '{kind}' at 'attributeDefinitions.member.attributeType' failed "
                "to satisfy constraint: Member must satisfy enum value set: [B, N, S]"
            )
        if name in types:
            raise ValidationException(
                f"Cannot have two attributes with the same name: duplicate AttributeName {name} in AttributeDefinitions"
            )
        types[name] = kind
    return types


def _keys(schema: list[dict[str, Any]], types: dict[str, str]) -> Keys:
    roles = [element.get("KeyType") for element in schema]
    if roles not in (["HASH"], ["HASH", "RANGE"]):
        raise ValidationException(
            "Invalid KeySchema: The first KeySchemaElement must be a HASH key type, the second, if any, a RANGE key "
            "type"
        )
    attributes = []
    for element in schema:
        name = str(element.get("AttributeName"))
        if name not in types:
            raise ValidationException(
                "One or more parameter values were invalid: Some index key attributes are not defined in "
                f"AttributeDefinitions. Keys: [{name}], AttributeDefinitions: [{', '.join(types)}]"
            )
        attributes.append(KeyAttribute(name, types[name]))
    if len(attributes) == 2 and attributes[0].name == attributes[1].name:
        raise ValidationException("Both the Hash Key and the Range Key element in the KeySchema have the same name")
    return Keys(attributes[0], attributes[1] if len(attributes) == 2 else None)


def _indexes(definition: dict[str, Any], types: dict[str, str], keys: Keys) -> tuple[Index, ...]:
    local = definition.get("LocalSecondaryIndexes") or []
    globals_ = definition.get("GlobalSecondaryIndexes") or []
    if len(local) > MAX_LOCAL_INDEXES or len(globals_) > MAX_GLOBAL_INDEXES:
        raise ValidationException(
            f"One or more parameter values were invalid: at most {MAX_LOCAL_INDEXES} local and {MAX_GLOBAL_INDEXES} "
            "global secondary indexes per table"
        )
    indexes: list[Index] = []
    for number, (is_global, one) in enumerate([*((False, i) for i in local), *((True, i) for i in globals_)], 1):
        name = str(one.get("IndexName"))
        if not TABLE_NAME.fullmatch(name) or name in {index.index_name for index in indexes}:
            raise ValidationException(f"One or more parameter values were invalid: Index name {name} is not valid")
        index_keys = _keys(one.get("KeySchema") or [], types)
        if not is_global and (index_keys.partition != keys.partition or index_keys.sort is None or keys.sort is None):
            raise ValidationException(
                "One or more parameter values were invalid: Index KeySchema does not have the table's hash key and a "
                f"range key of its own, or the table has no range key, for index: {name}"
            )
        projection = one.get("Projection") or {}
        kind = projection.get("ProjectionType")
        if kind not in ("ALL", "KEYS_ONLY", "INCLUDE"):
            raise ValidationException(
                f"One or more parameter values were invalid: Unknown ProjectionType: {kind} for index {name}"
            )
        attributes = tuple(projection.get("NonKeyAttributes") or ())
        if bool(attributes) != (kind == "INCLUDE"):
            raise ValidationException(
                "One or more parameter values were invalid: NonKeyAttributes go with the ProjectionType INCLUDE, and "
                f"with no other, for index {name}"
            )
        indexes.append(
            Index(one.get("Number", number), name, is_global, index_keys, kind, attributes, bool(one.get("Building")))
        )
    return tuple(indexes)
