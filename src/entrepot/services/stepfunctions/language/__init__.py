"""The Amazon States Language: definition text to typed immutable states, and the evaluation of their expressions.

Owns both flavours of https://states-language.net/spec.html: parsing and validation (`parse`), the typed states
(`definition`); for JSONPath paths, payload templates, intrinsic functions and choice conditions; for JSONata expressions
in bounds (`jsonata`) and templates of them. Pure: no I/O, no execution, and of time only what an evaluation may use;
it must not import anything of the rest of the package.
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
