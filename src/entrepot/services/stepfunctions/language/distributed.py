"""What a distributed Map has beyond an inline one: where its items come from, how they are batched, where results go.

Immutable, compiled, like everything in `definition`. Source:
https://docs.aws.amazon.com/step-functions/latest/dg/input-output-fields-dist-map.html
"""

import re
from dataclasses import dataclass

from .evaluation import RUNTIME, Json, QueryEvaluationError, Scope, StatesError, shown
from .jsonata import JsonataExpression
from .path import Path
from .template import Template

MAX_ITEMS_LIMIT = 100_000_000
"""Items that a reader reads at most. Source: ReaderConfig's MaxItems."""

DELIMITERS = {"COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "SPACE": " ", "TAB": "\t"}
"""CSVDelimiter."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?")


@dataclass(frozen=True, slots=True)
class Amount:
    """A number: written in the definition, at a path (`…Path`), or given by a JSONata expression."""

    field: str
    value: float | int | None = None
    path: Path | None = None
    expression: JsonataExpression | None = None

    def integer(self, scope: Scope) -> int:
        """Return the integer, of whatever sign. Raises `StatesError`."""
        if self.expression is not None:
            found = self.expression.typed(scope, "number")
            if found != int(found):
                raise QueryEvaluationError(
                    self.expression.field,
                    f"The {self.expression.field} field must be an integer, but was: {shown(found)}",
                )
            return int(found)
        if self.path is None:
            return int(self.value or 0)
        value = self.path.evaluate(scope)
        if type(value) is int:
            return value
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            return int(value)
        raise self._unfit(value, "integer")

    def number(self, scope: Scope) -> float:
        """Return the number. Raises `StatesError`."""
        if self.expression is not None:
            return float(self.expression.typed(scope, "number"))
        if self.path is None:
            return float(self.value or 0)
        value = self.path.evaluate(scope)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return float(value)
        raise self._unfit(value, "float")

    def not_negative(self, scope: Scope) -> int:
        """Return the integer. Raises `StatesError`, also when it is below 0."""
        number = self.integer(scope)
        if number < 0:
            raise StatesError(RUNTIME, f"{self.field} cannot be negative.")
        return number

    def percentage(self, scope: Scope) -> float:
        """Return the percentage. Raises `StatesError`, also when it is not between 0 and 100."""
        number = self.number(scope)
        if not 0 <= number <= 100:
            raise StatesError(RUNTIME, f"{self.field} must be between 0 and 100.")
        return number

    def _unfit(self, value: Json, kind: str) -> StatesError:
        assert self.path is not None
        text = value if isinstance(value, str) else shown(value)
        return StatesError(
            RUNTIME,
            f'The {self.field}Path field refers to value "{text}" which is not a valid {kind}: {self.path.text}',
        )


@dataclass(frozen=True, slots=True)
class ItemReader:
    """Where the items come from when it is not the state's input."""

    action: str
    """`getObject` or `listObjectsV2`."""
    parameters: Template | None
    input_type: str = ""
    """CSV, JSON, JSONL, MANIFEST; empty: what a listing gives."""
    first_row: bool = True
    """CSVHeaderLocation FIRST_ROW; otherwise the `headers`."""
    headers: tuple[str, ...] = ()
    delimiter: str = ","
    max_items: Amount | None = None
    items_pointer: tuple[str, ...] = ()
    """ItemsPointer taken apart: the keys on the way to the array in a JSON document."""
    manifest_type: str = "S3_INVENTORY"
    flatten: bool = False
    """Transformation LOAD_AND_FLATTEN: the items are those inside the objects that are listed."""


@dataclass(frozen=True, slots=True)
class ItemBatcher:
    """How items are put together for one child execution."""

    max_items: Amount | None = None
    max_bytes: Amount | None = None
    batch_input: Template | None = None


@dataclass(frozen=True, slots=True)
class ResultWriter:
    """Where and how results are written. Without `parameters` they stay in the state's result."""

    parameters: Template | None = None
    transformation: str = ""
    """NONE, COMPACT, FLATTEN; empty: NONE when they are exported, else COMPACT."""
    lines: bool = False
    """OutputType JSONL."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """ProcessorConfig with Mode DISTRIBUTED, and the fields that go with it."""

    express: bool
    label: str
    definition: str
    """The item processor as a definition of its own: what the child executions run."""
    reader: ItemReader | None = None
    batcher: ItemBatcher | None = None
    writer: ResultWriter | None = None
