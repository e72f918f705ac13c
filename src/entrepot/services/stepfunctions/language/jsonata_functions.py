"""The functions that Step Functions adds to JSONata, and those of JSONata that had to be bounded or corrected.

Texts and corner cases of `$partition`, `$range`, `$hash`, `$random`, `$uuid` and `$parse` are those measured on AWS: an
argument that is no integer is rounded towards zero, several missing arguments give nothing.
Source: https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html#jsonata-functions-provided-by-sfn
"""

import hashlib
import json
import math
import secrets
from collections.abc import Callable
from typing import Any

from jsonata.functions import Functions
from jsonata.jexception import JException
from jsonata.jsonata import Jsonata
from jsonata.utils import Utils

from entrepot import ids

from . import json_text
from .jsonata_bounds import MEMORY_LIMIT_BYTES, Pattern, look, memory_exceeded

RANGE_LIMIT = 360_145
"""The longest list that $range makes, as on AWS."""

HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}

PICTURE_LIMIT_CHARACTERS = 256
"""The longest picture of a number or date."""

ROMAN_LIMIT = 100_000
"""The largest number that is written in roman letters: each thousand is a letter."""

NULL = Utils.NULL_VALUE
"""JSON's null inside the library, where None means "nothing"."""


def null_marked(value: Any) -> Any:
    """Return `value` with the library's null in place of None; parts without null are shared, not copied."""
    if value is None:
        return NULL
    if isinstance(value, dict):
        made = {key: null_marked(part) for key, part in value.items()}
        return made if any(made[key] is not part for key, part in value.items()) else value
    if isinstance(value, list):
        items = [null_marked(part) for part in value]
        return items if any(item is not part for item, part in zip(items, value, strict=True)) else value
    return value


def _mismatch(function: str, number: int) -> JException:
    return JException("T0410", -1, number, function)


def _said(message: str) -> JException:
    return JException("D3137", -1, message)


def _no_more(function: str, surplus: Any, number: int) -> None:
    if surplus is not None:
        raise _mismatch(function, number)


def _integer(value: Any, function: str, number: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _mismatch(function, number)
    return int(value)


def partition(array: Any, size: Any, surplus: Any) -> Any:
    """$partition(array, size): chunks of `size`, the last one holds the rest."""
    _no_more("partition", surplus, 3)
    if array is None:
        return None
    if not isinstance(array, list):
        raise JException("T0412", -1, 1, "partition", "undefined")
    if not array:
        return None
    if size is None:
        return [array]
    wanted = _integer(size, "partition", 2)
    if wanted < 0:
        raise _said("Second argument must be zero or greater")
    if wanted == 0:
        return None
    return [list(array[start : start + wanted]) for start in range(0, len(array), wanted)]


def range_(start: Any, end: Any, step: Any, surplus: Any) -> Any:
    """$range(start, end, step): `end` is in it when the steps land on it; one element stands alone."""
    _no_more("range", surplus, 4)
    first, last = _integer(start, "range", 1), _integer(end, "range", 2)
    if step is None:
        return None
    by = _integer(step, "range", 3)
    if by == 0 or (last - first) * by < 0:
        return None
    numbers = range(first, last + (1 if by > 0 else -1), by)
    if (last - first) // by + 1 > RANGE_LIMIT:
        raise memory_exceeded()
    return numbers[0] if len(numbers) == 1 else list(numbers)


def hash_(text: Any, algorithm: Any, surplus: Any) -> Any:
    """$hash(text, algorithm): in hexadecimal digits."""
    _no_more("hash", surplus, 3)
    if not isinstance(text, str):
        raise _mismatch("hash", 1)
    if algorithm is None:
        return None
    if not isinstance(algorithm, str):
        raise _mismatch("hash", 2)
    if algorithm not in HASHES:
        raise _said(f"Hash algorithm '{algorithm}' must be one of SHA-1, SHA-384, SHA-256, SHA-512, MD5")
    return hashlib.new(HASHES[algorithm], text.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest()


def random_(seed: Any, surplus: Any) -> Any:
    """$random() or $random(seed): from 0 to below 1; with a seed what java.util.Random gives first."""
    _no_more("random", surplus, 2)
    if seed is None:
        return secrets.randbelow(1 << 53) / (1 << 53)
    return _java_random(_integer(seed, "random", 1))


def _java_random(seed: int) -> float:
    """Return what `new java.util.Random(seed).nextDouble()` gives (its documentation states the formula)."""
    mask = (1 << 48) - 1
    state = (seed ^ 0x5DEECE66D) & mask
    bits = []
    for width in (26, 27):
        state = (state * 0x5DEECE66D + 0xB) & mask
        bits.append(state >> (48 - width))
    return float(((bits[0] << 27) + bits[1]) / (1 << 53))


def uuid(surplus: Any) -> Any:
    """$uuid(): a random UUID (version 4)."""
    _no_more("uuid", surplus, 1)
    return ids.random_uuid()


def parse(text: Any, surplus: Any) -> Any:
    """$parse(text): the value of a JSON text, strictly."""
    _no_more("parse", surplus, 2)
    if text is None:
        return None
    if not isinstance(text, str):
        raise _mismatch("parse", 1)
    try:
        return null_marked(_plain_numbers(json_text.loads(text, unique_keys=True)))
    except json_text.InvalidJson:
        raise _said("Invalid JSON") from None


def _plain_numbers(value: Any) -> Any:
    """Return `value` with whole floats as integers (1.0 is 1), and integers beyond 64 bits as floats, as AWS has them."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**63 else value
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            raise json_text.InvalidJson("a number is out of range") from None
    if isinstance(value, dict):
        return {key: _plain_numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(part) for part in value]
    return value


def pad(text: Any, width: Any, letters: Any) -> Any:
    """$pad(text, width, letters), bounded."""
    if isinstance(width, int | float) and abs(width) > MEMORY_LIMIT_BYTES:
        raise memory_exceeded()
    return Functions.pad(text, width, letters)


def join(texts: Any, separator: Any) -> Any:
    """$join(texts, separator), bounded."""
    if texts is not None and sum(map(len, texts)) + len(texts) * len(separator or "") > MEMORY_LIMIT_BYTES:
        raise memory_exceeded()
    return Functions.join(texts, separator)


def number(value: Any) -> Any:
    """$number(value), with JSONata's error for what is no number."""
    try:
        found = Functions.number(value)
    except (ValueError, OverflowError):
        raise JException("D3030", -1, value) from None
    if isinstance(found, float) and not math.isfinite(found):
        raise JException("D3030", -1, value)
    return found


def power(base: Any, exponent: Any) -> Any:
    """$power(base, exponent), with JSONata's error for what no number can hold."""
    try:
        found = Functions.power(base, exponent)
    except (OverflowError, ValueError, ZeroDivisionError):
        raise JException("D3061", -1, base, exponent) from None
    if isinstance(found, complex) or (isinstance(found, float) and not math.isfinite(found)):
        raise JException("D3061", -1, base, exponent)
    return found


def round_(value: Any, precision: Any) -> Any:
    """$round(value, precision), for the precisions that a number has."""
    if precision is not None and not -400 < precision < 400:
        precision = math.copysign(400, precision)
    return Functions.round(value, None if precision is None else int(precision))


def _bounded_picture(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a formatting function that takes pictures of reasonable length only."""

    def first(value: Any, picture: Any) -> Any:
        return function(value, _checked(value, picture))

    def second(value: Any, picture: Any, more: Any) -> Any:
        return function(value, _checked(value, picture), more)

    return first if function in (Functions.format_integer, Functions.parse_integer) else second


def _checked(value: Any, picture: Any) -> Any:
    if isinstance(picture, str):
        roman = "I" in picture.upper() and isinstance(value, int | float) and abs(value) > ROMAN_LIMIT
        if len(picture) > PICTURE_LIMIT_CHARACTERS or roman:
            raise memory_exceeded()
    return picture


def to_millis(text: Any, picture: Any) -> Any:
    """$toMillis(text, picture), for pictures of reasonable length only."""
    return Functions.datetime_to_millis(text, _checked(None, picture))


def spread(value: Any) -> Any:
    """$spread(value), in time that grows with its length."""
    if isinstance(value, dict):
        return Utils.create_sequence_from_iter([{key: part} for key, part in value.items()])
    if not isinstance(value, list):
        return value
    made: list[Any] = []
    for item in value:
        part = spread(item)
        if part is not None:
            made.extend(part if isinstance(part, list) else [part])
    return Utils.create_sequence_from_iter(made)


def append(first: Any, second: Any) -> Any:
    """$append(first, second); each call copies, so that many of them look at the clock."""
    look()
    return Functions.append(first, second)


def distinct(array: Any) -> Any:
    """$distinct(array), in time that grows with its length."""
    if not isinstance(array, list) or len(array) <= 1:
        return array
    found: dict[str, Any] = {}
    for place, item in enumerate(array):
        if place % 1_024 == 0:
            look()
        found.setdefault(_identity(item), item)
    return Utils.create_sequence_from_iter(found.values())


def _identity(value: Any) -> str:
    """Return a text that is the same for equal values."""
    return json.dumps(_shown(value, exact=True), sort_keys=True)


def string(value: Any, pretty: Any) -> Any:
    """$string(value, pretty): numbers as JavaScript writes them, with 15 digits."""
    if isinstance(value, Utils.JList) and value.outer_wrapper:
        value = value[0]
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise JException("D3001", -1, value)
        return _number_text(value)
    shown = _shown(value)
    if shown == "":
        return ""
    if pretty is True:
        return json.dumps(shown, ensure_ascii=False, indent=2)
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def _number_text(value: float) -> str:
    """Return a number as JavaScript does: in full below 1e21, without a needless fraction."""
    if not isinstance(value, int):
        value = float(f"{value:.15g}")
    elif abs(value) >= 1e21:
        value = float(value)
    if abs(value) < 1e21 and value == int(value):
        return str(int(value))
    text = repr(float(value))
    if "e" not in text:
        return text
    digits, _, exponent = text.partition("e")
    power_ = int(exponent)
    if -6 <= power_ < 0:
        return f"{value:.{max(0, -power_) + len(digits.replace('-', '').replace('.', '')) - 1}f}"
    return f"{digits}e{'+' if power_ > 0 else '-'}{abs(power_)}"


def _shown(value: Any, *, exact: bool = False) -> Any:
    """Return a value as json.dumps takes it: a function is an empty text."""
    if value is NULL or value is None:
        return None
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise JException("D1001", -1, value)
        if isinstance(value, float) and not exact:
            value = float(f"{value:.15g}")
        return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e21 else value
    if isinstance(value, dict):
        return {key: _shown(part, exact=exact) for key, part in value.items()}
    if isinstance(value, list):
        return [_shown(part, exact=exact) for part in value]
    return ""


class _Length:
    """Adds up what a replacement makes, and refuses too much."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._characters = 0

    def add(self, part: str) -> None:
        self._characters += len(part)
        if self._characters > MEMORY_LIMIT_BYTES:
            raise memory_exceeded()
        self.parts.append(part)


def replace(text: Any, pattern: Any, replacement: Any, limit: Any) -> Any:
    """$replace(text, pattern, replacement, limit), in time that grows with the text and the result."""
    if text is None:
        return None
    if text is NULL:
        raise _mismatch("replace", 1)
    if pattern == "":
        raise JException("D3010", -1, pattern)
    if limit is not None and limit < 0:
        raise JException("D3011", -1, limit)
    most = math.inf if limit is None else limit
    made, position, count = _Length(), 0, 0
    for start, end, new in _replacements(text, pattern, replacement):
        if count >= most:
            break
        if count % 1_024 == 0:
            look()
        made.add(text[position:start])
        made.add(new())
        position, count = end, count + 1
    made.add(text[position:])
    return "".join(made.parts)


def _replacements(text: str, pattern: Any, replacement: Any) -> Any:
    if isinstance(pattern, Pattern):
        for match in pattern.finditer(text):
            if not match.group():
                raise JException("D1004", -1, pattern.pattern)
            yield match.start(), match.end(), lambda found=match: _new_text(found, replacement)
        return
    start = text.find(pattern)
    while start >= 0:
        yield start, start + len(pattern), lambda: str(replacement)
        start = text.find(pattern, start + len(pattern))


def _new_text(match: Any, replacement: Any) -> str:
    groups = [group if group is not None else "" for group in match.groups()]
    if isinstance(replacement, str):
        return _filled(replacement, match.group(), groups)
    found = {"match": match.group(), "start": match.start(), "end": match.end(), "groups": groups}
    made = Functions.func_apply(replacement, [found])
    if not isinstance(made, str):
        raise JException("D3012", -1, made)
    return made


def _filled(replacement: str, match: str, groups: list[str]) -> str:
    """Return a replacement with `$0`, `$1` … filled in and `$$` as a dollar sign, as JSONata does it."""
    made, position = _Length(), 0
    while (index := replacement.find("$", position)) >= 0:
        made.add(replacement[position:index])
        position = index + 1
        letter = replacement[position : position + 1]
        if letter == "$":
            made.add("$")
            position += 1
        elif letter == "0":
            made.add(match)
            position += 1
        elif letter.isascii() and letter.isdigit():
            digits = letter
            most = len(str(len(groups)))
            while len(digits) < most and replacement[position + len(digits) : position + len(digits) + 1].isdigit():
                digits += replacement[position + len(digits)]
            if len(digits) > 1 and int(digits) > len(groups):
                digits = digits[:-1]
            if 0 < int(digits) <= len(groups):
                made.add(groups[int(digits) - 1])
            position += len(digits)
        else:
            made.add("$")
    made.add(replacement[position:])
    return "".join(made.parts)


class Function(Jsonata.JFunction):  # type: ignore[misc]  # the library has no types
    """One of the functions here, as the library calls it."""

    def __init__(self, name: str, signature: str, implementation: Callable[..., Any], arity: int) -> None:
        super().__init__(None, signature)
        self.function_name = name
        self.signature.set_function_name(name)
        self._implementation = implementation
        self._arity = arity

    def call(self, input: Any, args: Any) -> Any:
        """Call with the arguments given, filled up with None."""
        given = list(args or ())[: self._arity]
        result = self._implementation(*given, *[None] * (self._arity - len(given)))
        return Utils.convert_number(result) if Utils.is_numeric(result) else result

    def get_number_of_args(self) -> int:
        """How many arguments it takes at most."""
        return self._arity


def _functions() -> dict[str, Function | None]:
    table: list[tuple[str, str, Callable[..., Any], int]] = [
        ("append", "<xx:a>", append, 2),
        ("spread", "<x-:a<o>>", spread, 1),
        ("distinct", "<x:x>", distinct, 1),
        ("string", "<x-b?:s>", string, 2),
        ("partition", "<x?x?x?:x>", partition, 3),
        ("range", "<x?x?x?x?:x>", range_, 4),
        ("hash", "<x?x?x?:x>", hash_, 3),
        ("random", "<x?x?:x>", random_, 2),
        ("uuid", "<x?:x>", uuid, 1),
        ("parse", "<x?x?:x>", parse, 2),
        ("pad", "<s-ns?:s>", pad, 3),
        ("join", "<a<s>s?:s>", join, 2),
        ("number", "<(nsb)-:n>", number, 1),
        ("power", "<n-n:n>", power, 2),
        ("round", "<n-n?:n>", round_, 2),
        ("replace", "<s-(sf)(sf)n?:s>", replace, 4),
        ("formatNumber", "<n-so?:s>", _bounded_picture(Functions.format_number), 3),
        ("formatInteger", "<n-s:s>", _bounded_picture(Functions.format_integer), 2),
        ("parseInteger", "<s-s:n>", _bounded_picture(Functions.parse_integer), 2),
        ("fromMillis", "<n-s?s?:s>", _bounded_picture(Functions.datetime_from_millis), 3),
        ("toMillis", "<s-s?:n>", to_millis, 2),
    ]
    made: dict[str, Function | None] = {name: Function(name, *rest) for name, *rest in table}  # type: ignore[arg-type]
    made["eval"] = None  # AWS has no $eval
    return made


FUNCTIONS = _functions()
"""By name; None hides the library's function of that name."""
