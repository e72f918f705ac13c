"""What is wrong with a definition: findings in AWS's codes and words, and the errors that carry them.

Source: https://docs.aws.amazon.com/step-functions/latest/apireference/API_ValidateStateMachineDefinitionDiagnostic.html.
"""

from dataclasses import dataclass

ERROR = "ERROR"
WARNING = "WARNING"

INVALID_JSON_DESCRIPTION = "INVALID_JSON_DESCRIPTION"
MISSING_DESCRIPTION = "MISSING_DESCRIPTION"
SCHEMA_VALIDATION_FAILED = "SCHEMA_VALIDATION_FAILED"
INVALID_STATE_NAME = "INVALID_STATE_NAME"
DUPLICATE_STATE_NAME = "DUPLICATE_STATE_NAME"
MISSING_TRANSITION_TARGET = "MISSING_TRANSITION_TARGET"
MISSING_END_STATE = "MISSING_END_STATE"
TOO_DEEPLY_NESTED = "TOO_DEEPLY_NESTED"
NOT_SERVED = "NOT_SERVED"
"""Not AWS's: the definition is valid, but this stack cannot run it."""

MAX_DIAGNOSTICS = 100
"""How many findings are kept, as in AWS's ValidateStateMachineDefinition."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: `severity` (ERROR or WARNING), AWS's `code`, `message`, `location` such as `/States/X` (or None)."""

    severity: str
    code: str
    message: str
    location: str | None

    def __str__(self) -> str:
        """AWS's form inside the message of CreateStateMachine (a finding without a place is "at null" there)."""
        return f"{self.code}: {self.message} at {self.location if self.location is not None else 'null'}"


class InvalidDefinition(Exception):
    """The definition is refused; `diagnostics` say why. str() is AWS's message for CreateStateMachine."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        self.diagnostics = diagnostics
        super().__init__(f"Invalid State Machine Definition: '{', '.join(map(str, diagnostics))}'")


class UnsupportedFeature(InvalidDefinition):
    """As far as it could be checked the definition is valid, but it uses what is not served; the message names it."""


class Findings:
    """Collects diagnostics while a definition is read."""

    def __init__(self) -> None:
        self.errors: list[Diagnostic] = []
        self.unsupported: list[Diagnostic] = []

    def error(self, message: str, location: str | None, code: str = SCHEMA_VALIDATION_FAILED) -> None:
        """Note an error."""
        if len(self.errors) < MAX_DIAGNOSTICS:
            self.errors.append(Diagnostic(ERROR, code, message, location))

    def refuse(self, message: str, location: str) -> None:
        """Note something that is valid but not served."""
        if len(self.unsupported) < MAX_DIAGNOSTICS:
            self.unsupported.append(Diagnostic(ERROR, SCHEMA_VALIDATION_FAILED, message, location))

    def raise_errors(self) -> None:
        """Raise `InvalidDefinition` or `UnsupportedFeature` when there is cause."""
        if self.errors:
            raise InvalidDefinition(tuple(self.errors))
        if self.unsupported:
            raise UnsupportedFeature(tuple(self.unsupported))
