"""Reads the fields of one JSON object of a definition, with AWS's words for what is wrong.

Each reader notes its problem in the findings and gives a harmless value, so that the rest can be read and reported too;
a definition with findings is never used.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from .definition import MAX_SECONDS
from .diagnostics import Findings
from .evaluation import Expression, Json
from .path import Path, ReferencePath, parse_path, parse_reference_path, parse_result_path
from .path_syntax import SyntaxProblem, is_variable_name
from .template import Template, parse_expression, parse_template

ROOT_PATH = parse_path("$", "")
ROOT_REFERENCE = parse_result_path("$")

T = TypeVar("T")


class Fields:
    """The fields of one object. `location` is its place (`/States/X`); `finish` reports what nobody asked for."""

    def __init__(self, source: dict[str, Json], location: str, findings: Findings) -> None:
        self.source = source
        self.location = location
        self.findings = findings
        self.known: set[str] = set()

    def at(self, name: str) -> str:
        """Return the place of a field."""
        return f"{self.location.rstrip('/')}/{name}"

    def has(self, name: str) -> bool:
        """Whether the field is there; it counts as known from now on."""
        self.known.add(name)
        return name in self.source

    def problem(self, name: str, message: str) -> None:
        """Note an error at a field."""
        self.findings.error(message, self.at(name))

    def require(self, *names: str) -> bool:
        """Note an error unless all fields are there."""
        missing = [name for name in names if not self.has(name)]
        if missing:
            self.findings.error(f"These fields are required: [{', '.join(missing)}]", self.location)
        return not missing

    def exclusive(self, *names: str) -> None:
        """Note an error when more than one of the fields is there."""
        present = [name for name in names if self.has(name)]
        if len(present) > 1:
            self.findings.error(f"Only one of these fields is allowed: [{', '.join(present)}]", self.location)

    def finish(self) -> None:
        """Report the fields that this object does not have."""
        for name in self.source:
            if name not in self.known:
                self.findings.error(f"Field '{name[:200]}' is not supported", self.location)

    def _typed(self, name: str, kind: type[T] | tuple[type, ...], words: str, default: T) -> T:
        if not self.has(name):
            return default
        value = self.source[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.problem(name, f"Expected value of type {words}")
            return default
        return value  # type: ignore[return-value]

    def string(self, name: str, default: str = "") -> str:
        """Read a string."""
        return self._typed(name, str, "String", default)

    def comment(self) -> str | None:
        """Read Comment."""
        return self.string("Comment") if self.has("Comment") else None

    def boolean(self, name: str) -> bool:
        """Read a boolean; False when absent."""
        return self._typed(name, bool, "Boolean", False)

    def array(self, name: str) -> list[Json]:
        """Read an array."""
        return self._typed(name, list, "Array", [])

    def mapping(self, name: str) -> dict[str, Json]:
        """Read an object."""
        return self._typed(name, dict, "Object", {})

    def objects(self, name: str) -> list[tuple[dict[str, Json], str]]:
        """Read an array of objects; gives each with its place (`…/Retry[0]`)."""
        found: list[tuple[dict[str, Json], str]] = []
        for number, item in enumerate(self.array(name)):
            place = f"{self.at(name)}[{number}]"
            if isinstance(item, dict):
                found.append((item, place))
            else:
                self.findings.error("Expected value of type Object", place)
        return found

    def integer(self, name: str, lowest: int, highest: int = MAX_SECONDS) -> int | None:
        """Read an integer within a range; None when absent or wrong."""
        if not self.has(name):
            return None
        value = self.source[name]
        if type(value) is not int:
            self.problem(name, "Expected value of type Integer")
            return None
        if not lowest <= value <= highest:
            self.problem(name, f"Value must be between {lowest} and {highest}")
            return None
        return value

    def number(self, name: str, lowest: float, default: float) -> float:
        """Read a number with a lower bound."""
        value: Any = self._typed(name, (int, float), "Number", default)
        if value < lowest:
            self.problem(name, f"Value must be greater than or equal to {lowest}")
            return default
        return float(value)

    def one_of(self, name: str, values: tuple[str, ...]) -> str:
        """Read a string that must be one of some; the first when absent or wrong."""
        value = self.string(name, values[0])
        if value not in values:
            self.problem(name, f"The field '{name}' should have one of these values: [{', '.join(values)}]")
            return values[0]
        return value

    def path_or_null(self, name: str) -> Path | None:
        """Read InputPath or OutputPath: `$` when absent, None when null."""
        if self.has(name) and self.source[name] is None:
            return None
        return self.path(name) or ROOT_PATH

    def path(self, name: str) -> Path | None:
        """Read a path; None when absent or wrong."""
        return self._compiled(name, lambda text: parse_path(text, name), "a valid JSONPath")

    def reference_path(self, name: str) -> Path | None:
        """Read a path that must name one place; None when absent or wrong."""
        return self._compiled(name, lambda text: parse_reference_path(text, name), "a valid Reference Path")

    def expression(self, name: str) -> Expression | None:
        """Read a path or an intrinsic call; None when absent or wrong."""
        words = "a valid JSONPath or a valid intrinsic function call"
        return self._compiled(name, lambda text: parse_expression(text, name), words)

    def result_path(self) -> ReferencePath | None:
        """Read ResultPath: `$` when absent, None when null."""
        if self.has("ResultPath") and self.source["ResultPath"] is None:
            return None
        return self._compiled("ResultPath", parse_result_path, "a valid Reference Path") or ROOT_REFERENCE

    def _compiled(self, name: str, compiler: Callable[[str], T], words: str) -> T | None:
        if not self.has(name):
            return None
        value = self.source[name]
        if not isinstance(value, str):
            self.problem(name, f"The value for the field '{name}' must be {words}")
            return None
        try:
            return compiler(value)
        except SyntaxProblem as problem:
            self.problem(name, f"The value for the field '{name}' must be {words}: {problem}")
            return None

    def template(self, name: str) -> Template | None:
        """Read a payload template of any JSON type; None when absent."""
        if not self.has(name):
            return None
        base = self.at(name)
        return parse_template(self.source[name], lambda message, place: self.findings.error(message, base + place))

    def object_template(self, name: str) -> Template | None:
        """Read a payload template that must be an object; None when absent or wrong."""
        if not self.has(name):
            return None
        if not isinstance(self.source[name], dict):
            self.problem(name, "Expected value of type Object")
            return None
        return self.template(name)

    def assign(self) -> Template | None:
        """Read Assign: a template whose fields are names of variables."""
        template = self.object_template("Assign")
        if template is not None:
            for key in self.source["Assign"]:
                if not is_variable_name(key.removesuffix(".$")):
                    self.problem("Assign", f"'{key[:200]}' is not a valid variable name")
        return template
