"""Paths: `$.a.b[0]`, `$$.Execution.Id`, `$name.field`, compiled once. (Being written: signatures first.)"""

from dataclasses import dataclass

from .evaluation import Json, Scope


@dataclass(frozen=True, slots=True)
class Path:
    """A JSONPath as the language has it. `field` is the field of the definition it stands in (for the error text)."""

    text: str
    field: str = ""

    def evaluate(self, scope: Scope) -> Json:
        """Return the value; a definite path that finds nothing raises `StatesError`."""
        raise NotImplementedError

    def exists(self, scope: Scope) -> bool:
        """Whether the path finds something (IsPresent)."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ReferencePath:
    """A path that names exactly one place (ResultPath)."""

    text: str

    def place(self, data: Json, value: Json) -> Json:
        """Return `data` with `value` at this place; missing nodes are made. `data` itself is not changed.

        Raises `StatesError` States.ResultPathMatchFailure where the place cannot be.
        """
        raise NotImplementedError
