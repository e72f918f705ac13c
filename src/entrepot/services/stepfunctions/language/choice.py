"""The conditions of Choice rules as a small tree. (Being written: signatures first.)"""

from typing import Protocol

from .evaluation import Scope


class Condition(Protocol):
    """A test on the scope."""

    def holds(self, scope: Scope) -> bool:
        """Whether the condition is true. Raises `StatesError` (States.Runtime) when a path finds nothing."""
        ...
