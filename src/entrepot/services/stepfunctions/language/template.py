"""Payload templates, compiled once. (Being written: signatures first.)"""

from dataclasses import dataclass

from .evaluation import Json, Scope


@dataclass(frozen=True, slots=True)
class Template:
    """A JSON value in which fields that end in `.$` are expressions."""

    source: Json

    def evaluate(self, scope: Scope) -> Json:
        """Return the filled-in value. Raises `StatesError`."""
        raise NotImplementedError
