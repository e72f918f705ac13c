"""The Amazon States Language: definition text to typed immutable states, and the evaluation of their expressions.

Owns the JSONPath flavour of https://states-language.net/spec.html: parsing and validation (`parse`), the typed states
(`definition`), paths, payload templates, intrinsic functions and choice conditions. Pure: no I/O, no clock, no
execution; it must not import anything of the rest of the package.
"""

from .definition import StateMachine, error_matches
from .diagnostics import Diagnostic, InvalidDefinition, UnsupportedFeature
from .evaluation import Scope, StatesError
from .parse import parse, validate

__all__ = [
    "Diagnostic",
    "InvalidDefinition",
    "Scope",
    "StateMachine",
    "StatesError",
    "UnsupportedFeature",
    "error_matches",
    "parse",
    "validate",
]
