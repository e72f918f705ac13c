"""The keys of items: taken from items and requests, checked, encoded."""

from entrepot.services.dynamodb.definitions import Index, KeyAttribute, Table
from entrepot.services.dynamodb.encoding import encode_key
from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.values import Item, type_of

MAX_PARTITION_KEY_BYTES = 2_048
MAX_SORT_KEY_BYTES = 1_024


def key_of_item(table: Table, item: Item) -> tuple[bytes, bytes]:
    """Return the encoded primary key of a whole item. Raise ValidationException."""
    encoded: list[bytes] = []
    for attribute in table.keys.attributes:
        value = item.get(attribute.name)
        if value is None:
            raise ValidationException(
                f"One or more parameter values were invalid: Missing the key {attribute.name} in the item"
            )
        if attribute.type not in value:
            raise ValidationException(
                f"One or more parameter values were invalid: Type mismatch for key {attribute.name} expected: "
                f"{attribute.type} actual: {type_of(value)}"
            )
        encoded.append(_checked_key(attribute, encode_key(value), is_sort=bool(encoded)))
    return encoded[0], encoded[1] if len(encoded) == 2 else b""


def key_of_request(table: Table, key: Item) -> tuple[bytes, bytes]:
    """Return the encoded primary key that a request's normalised `Key` gives. Raise ValidationException."""
    if len(key) != len(table.key_names):
        raise ValidationException("The provided key element does not match the schema")
    for attribute in table.keys.attributes:
        if attribute.type not in key.get(attribute.name, ()):
            raise ValidationException("The provided key element does not match the schema")
    return key_of_item(table, key)


def _checked_key(attribute: KeyAttribute, encoded: bytes, *, is_sort: bool) -> bytes:
    if not encoded:
        kind = "string" if attribute.type == "S" else "binary"
        raise ValidationException(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an "
            f"empty {kind} value. Key: {attribute.name}"
        )
    limit = MAX_SORT_KEY_BYTES if is_sort else MAX_PARTITION_KEY_BYTES
    if len(encoded) > limit:
        which = (
            "rangekey has exceeded the maximum size limit of1024"
            if is_sort
            else ("hashkey has exceeded the maximum size limit of2048")
        )
        raise ValidationException(f"One or more parameter values were invalid: Size of {which} bytes")
    return encoded


def index_key(index: Index, item: Item) -> tuple[bytes, bytes] | None:
    """Return the encoded key under which an item stands in an index, or None when it has not all attributes for it.

    Raise ValidationException when an attribute has another type than the index's.
    """
    encoded: list[bytes] = []
    for attribute in index.keys.attributes:
        value = item.get(attribute.name)
        if value is None:
            return None
        if attribute.type not in value:
            raise ValidationException(
                f"One or more parameter values were invalid: Type mismatch for Index Key {attribute.name} Expected: "
                f"{attribute.type} Actual: {type_of(value)} IndexName: {index.index_name}"
            )
        try:
            encoded.append(_checked_key(attribute, encode_key(value), is_sort=bool(encoded)))
        except ValidationException as error:
            raise ValidationException(f"{error.message} IndexName: {index.index_name}") from None
    return encoded[0], encoded[1] if len(encoded) == 2 else b""
