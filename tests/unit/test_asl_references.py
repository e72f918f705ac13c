"""Which variables a definition's states refer to."""

import json
from typing import Any

import pytest

from entrepot.services.stepfunctions.language.parse import parse
from entrepot.services.stepfunctions.language.references import variable_references


def references(**states: Any) -> dict[str, list[str]]:
    text = json.dumps({"StartAt": next(iter(states)), "States": states})
    parse(text)
    return {name: list(found) for name, found in variable_references(text).items()}


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("$a", ["a"]),
        ("$a.b + $c", ["a", "c"]),
        ("$states.input.x", []),
        ("$sum($a)", ["a"]),
        ("$map($a, function($v, $i) { $v + $b })", ["a", "b"]),
        ("($x := $a; $x + 1)", ["a"]),
        ("$map($a, $uppercase)", ["a"]),
        ("{'k': [$a, $b ? $c : 1]}", ["a", "b", "c"]),
        ("$a[$ > $b]", ["a", "b"]),
    ],
)
def test_jsonata(expression: str, names: list[str]) -> None:
    state = {"Type": "Pass", "QueryLanguage": "JSONata", "Output": {"o": f"{{% {expression} %}}"}, "End": True}
    assert references(S=state) == ({"S": names} if names else {})


def test_texts_are_no_references() -> None:
    jsonata = {"Type": "Pass", "QueryLanguage": "JSONata", "Comment": "{% ( %}", "End": True}
    assert references(S=jsonata) == {}
    assert references(S={"Type": "Pass", "Comment": "$a", "Result": {"x.$": "$a"}, "End": True}) == {}


def test_jsonpath() -> None:
    found = references(
        A={
            "Type": "Pass",
            "Parameters": {
                "a.$": "$one.x",
                "b.$": "States.Format('{} $no', $two)",
                "c": "$text",
                "d.$": "$.p",
                "e.$": "$$.x",
            },
            "Assign": {"v.$": "$three"},
            "Next": "B",
        },
        B={
            "Type": "Choice",
            "Choices": [{"Variable": "$four", "NumericEqualsPath": "$five.n", "Next": "C"}],
            "Default": "C",
        },
        C={"Type": "Wait", "SecondsPath": "$six", "Next": "D"},
        D={
            "Type": "Parallel",
            "Branches": [{"StartAt": "I", "States": {"I": {"Type": "Pass", "OutputPath": "$seven", "End": True}}}],
            "End": True,
        },
    )
    assert found == {"A": ["one", "three", "two"], "B": ["five", "four"], "C": ["six"], "I": ["seven"]}
