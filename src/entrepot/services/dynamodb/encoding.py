"""How keys and items lie in the ledger.

A key attribute becomes bytes whose order is DynamoDB's: strings as UTF-8, binaries as they are, numbers in a form
described at `encode_number`. An item's body is compact JSON without its key attributes: a string is a string, other
types are arrays that begin with the type, maps are objects.
"""

import base64
import json
from typing import Any

from entrepot.services.dynamodb.values import AttributeValue, Item, encode_text

_ZERO = b"\x80"
_POSITIVE = 0xC0
_NEGATIVE = 0x40
_BIAS = 129


def encode_number(text: str) -> bytes:
    """Return a normalised number as bytes in numeric order.

    A positive number is 0xC0, its exponent (0.d₁d₂… × 10^exponent, biased by 129), then pairs of digits, each plus one.
    A negative one is 0x40 and the complement of the same, closed by 0xFF so that fewer digits come later. Zero is 0x80.
    """
    if text == "0":
        return _ZERO
    negative = text.startswith("-")
    whole, _, fraction = text.lstrip("-").partition(".")
    whole = whole.lstrip("0")
    exponent = len(whole) if whole else len(fraction.lstrip("0")) - len(fraction)
    digits = (whole + fraction).strip("0")
    if len(digits) % 2:
        digits += "0"
    body = bytes([exponent + _BIAS, *(int(digits[i : i + 2]) + 1 for i in range(0, len(digits), 2))])
    if not negative:
        return bytes([_POSITIVE]) + body
    return bytes([_NEGATIVE]) + bytes(255 - byte for byte in body) + b"\xff"


def decode_number(encoded: bytes) -> str:
    """Return the normalised number that `encode_number` encoded."""
    if encoded == _ZERO:
        return "0"
    negative = encoded[0] == _NEGATIVE
    body = bytes(255 - byte for byte in encoded[1:-1]) if negative else encoded[1:]
    exponent = body[0] - _BIAS
    digits = "".join(f"{byte - 1:02d}" for byte in body[1:]).rstrip("0")
    if exponent <= 0:
        plain = f"0.{'0' * -exponent}{digits}"
    elif exponent >= len(digits):
        plain = digits + "0" * (exponent - len(digits))
    else:
        plain = f"{digits[:exponent]}.{digits[exponent:]}"
    return f"-{plain}" if negative else plain


def encode_key(value: AttributeValue) -> bytes:
    """Return a key attribute's value (S, N or B, normalised) as bytes in DynamoDB's order."""
    if "S" in value:
        return encode_text(value["S"])
    if "N" in value:
        return encode_number(value["N"])
    binary: bytes = value["B"]
    return binary


def decode_key(kind: str, encoded: bytes) -> AttributeValue:
    """Return the key attribute of type S, N or B that `encode_key` encoded."""
    if kind == "S":
        return {"S": encoded.decode()}
    return {"N": decode_number(encoded)} if kind == "N" else {"B": bytes(encoded)}


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


def encode_body(item: Item, key_names: tuple[str, ...]) -> bytes:
    """Return a normalised item without its key attributes as compact bytes."""
    plain = {
        name: value["S"] if "S" in value else _pack(value) for name, value in item.items() if name not in key_names
    }
    return _encoder.encode(plain).encode()


def decode_body(body: bytes) -> Item:
    """Return the attributes that `encode_body` encoded."""
    return {
        name: {"S": packed} if type(packed) is str else _unpack(packed) for name, packed in json.loads(body).items()
    }


def _pack(value: AttributeValue) -> Any:
    ((kind, content),) = value.items()
    match kind:
        case "S" | "BOOL":
            return content
        case "NULL":
            return None
        case "M":
            return {name: _pack(member) for name, member in content.items()}
        case "L":
            return ["L", *map(_pack, content)]
        case "N":
            return ["N", content]
        case "B":
            return ["B", base64.b64encode(content).decode()]
        case "BS":
            return ["BS", *(base64.b64encode(element).decode() for element in content)]
        case _:
            return [kind, *content]


def _unpack(packed: Any) -> AttributeValue:
    if packed is None:
        return {"NULL": True}
    if isinstance(packed, str):
        return {"S": packed}
    if isinstance(packed, bool):
        return {"BOOL": packed}
    if isinstance(packed, dict):
        return {"M": {name: _unpack(member) for name, member in packed.items()}}
    kind, *rest = packed
    match kind:
        case "N":
            return {"N": rest[0]}
        case "B":
            return {"B": base64.b64decode(rest[0])}
        case "L":
            return {"L": [_unpack(element) for element in rest]}
        case "BS":
            return {"BS": [base64.b64decode(element) for element in rest]}
        case _:
            return {kind: rest}
