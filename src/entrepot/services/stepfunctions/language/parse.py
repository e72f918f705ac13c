"""Definition text to `StateMachine`. (Being written: signatures first.)"""

from dataclasses import dataclass

from .definition import StateMachine


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: `severity` ERROR or WARNING, AWS's `code`, `message`, `location` such as `/States/X`."""

    severity: str
    code: str
    message: str
    location: str


class InvalidDefinition(Exception):
    """The definition is refused; `diagnostics` say why. str() is AWS's text for CreateStateMachine."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__("Invalid State Machine Definition: ''")
        self.diagnostics = diagnostics


class UnsupportedFeature(InvalidDefinition):
    """The definition is valid, but uses something that this release does not have; the message names it."""


def parse(definition_text: str) -> StateMachine:
    """Return the typed state machine. Raises `InvalidDefinition` (and its subclass `UnsupportedFeature`)."""
    raise NotImplementedError
