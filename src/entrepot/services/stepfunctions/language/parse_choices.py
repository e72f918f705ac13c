"""Reads the rules of a Choice state.

Source: https://docs.aws.amazon.com/step-functions/latest/dg/state-choice.html.
"""

from .choice import COMPARISONS, TYPE_TESTS, And, Comparison, Condition, IsPresent, Not, Or, is_number, is_timestamp
from .evaluation import Json
from .fields import ROOT_PATH, Fields

MAX_CONDITION_DEPTH = 30
"""How deeply And, Or and Not may be nested; AWS does not document its bound."""

_LOGICAL = ("And", "Or", "Not")
_PATH_COMPARISONS = {f"{name}Path": name for name in COMPARISONS if name != "StringMatches"}
_NEVER: Condition = Or(())


def parse_condition(fields: Fields, depth: int = 0) -> Condition:
    """Read the condition of a rule or of one of its parts. What else stands there is left to the caller."""
    if depth > MAX_CONDITION_DEPTH:
        fields.findings.error(f"Choice rules are nested more than {MAX_CONDITION_DEPTH} deep", fields.location)
        return _NEVER
    operators = [name for name in fields.source if name in _LOGICAL or _is_operator(name)]
    if len(operators) != 1:
        words = "exactly one comparison operator or one of [And, Or, Not]"
        fields.known.update(operators)
        fields.has("Variable")
        fields.findings.error(f"A choice rule must contain {words}", fields.location)
        return _NEVER
    operator = operators[0]
    if operator in _LOGICAL:
        return _parse_logical(fields, operator, depth)
    return _parse_comparison(fields, operator)


def _is_operator(name: str) -> bool:
    return name in COMPARISONS or name in _PATH_COMPARISONS or name in TYPE_TESTS or name == "IsPresent"


def _parse_logical(fields: Fields, operator: str, depth: int) -> Condition:
    if operator == "Not":
        return Not(_parse_nested(fields, fields.mapping("Not"), fields.at("Not"), depth))
    parts = [_parse_nested(fields, source, place, depth) for source, place in fields.objects(operator)]
    if not fields.array(operator):
        fields.problem(operator, "Value cannot be empty")
    return And(tuple(parts)) if operator == "And" else Or(tuple(parts))


def _parse_nested(fields: Fields, source: dict[str, Json], place: str, depth: int) -> Condition:
    nested = Fields(source, place, fields.findings)
    nested.comment()
    condition = parse_condition(nested, depth + 1)
    nested.finish()
    return condition


def _parse_comparison(fields: Fields, operator: str) -> Condition:
    fields.require("Variable")
    variable = fields.path("Variable") or ROOT_PATH
    if operator == "IsPresent":
        return IsPresent(variable, fields.boolean(operator))
    if operator in TYPE_TESTS:
        return Comparison(variable, operator, TYPE_TESTS[operator], fields.boolean(operator))
    if operator in _PATH_COMPARISONS:
        expected_path = fields.path(operator)
        return Comparison(
            variable, operator, COMPARISONS[_PATH_COMPARISONS[operator]], None, expected_path or ROOT_PATH
        )
    return Comparison(variable, operator, COMPARISONS[operator], _parse_expected(fields, operator))


def _parse_expected(fields: Fields, operator: str) -> Json:
    if operator.startswith("Boolean"):
        return fields.boolean(operator)
    if not operator.startswith("Numeric"):
        text = fields.string(operator)
        if operator.startswith("Timestamp") and isinstance(fields.source[operator], str) and not is_timestamp(text):
            fields.problem(operator, "String does not match RFC3339 timestamp")
        return text
    fields.has(operator)
    value = fields.source[operator]
    if not is_number(value):
        fields.problem(operator, "Expected value of type Number")
    return value
