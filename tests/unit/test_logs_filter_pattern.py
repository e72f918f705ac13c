"""The filter pattern language: AWS's examples, refusals, and hostile input."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.services.logs.errors import InvalidParameterError
from entrepot.services.logs.filter_pattern import compile_pattern, parse

APACHE = '127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'
TRAIL = json.dumps(
    {
        "eventType": "UpdateTrail",
        "sourceIPAddress": "111.111.111.111",
        "arrayKey": ["value", "another value"],
        "objectList": [{"name": "a", "id": 1}, {"name": "b", "id": 2}],
        "SomeObject": None,
        "Flag": True,
        "user": {"id": 1, "email": "John.Stiles@example.com"},
        "latency": 12.5,
        "dotted.key": "x",
    }
)


@pytest.mark.parametrize(
    ("pattern", "message", "expected"),
    [
        ("", "anything", True),
        ("ERROR", "[ERROR] 400", True),
        ("ERROR", "[error] 400", False),
        ("ERROR ARGUMENTS", "ERROR: invalid ARGUMENTS", True),
        ("ERROR ARGUMENTS", "ERROR", False),
        ("?ERROR ?WARN", "WARN x", True),
        ("?ERROR ?WARN", "INFO", False),
        ("ERROR -EXITING", "ERROR EXITING", False),
        ("ERROR -EXITING", "ERROR", True),
        ('"INTERNAL SERVER ERROR"', "an INTERNAL SERVER ERROR here", True),
        ('"INTERNAL SERVER ERROR"', "INTERNAL ERROR SERVER", False),
        ('-"a b" c', "c a b", False),
        (r'"say \"hi\""', 'they say "hi"', True),
        ('{ $.eventType = "UpdateTrail" }', TRAIL, True),
        ("{ $.eventType = Update* }", TRAIL, True),
        ('{ $.eventType != "UpdateTrail" }', TRAIL, False),
        ("{ $.sourceIPAddress = 111.111.* }", TRAIL, True),
        ('{ $.arrayKey[0] = "value" }', TRAIL, True),
        ('{ $.arrayKey[1] = "value" }', TRAIL, False),
        ('{ $.arrayKey[*] = "another*" }', TRAIL, True),
        ("{ $.objectList[1].id = 2 }", TRAIL, True),
        ("{ $.SomeObject IS NULL }", TRAIL, True),
        ("{ $.Flag IS TRUE }", TRAIL, True),
        ("{ $.Flag IS FALSE }", TRAIL, False),
        ("{ $.Other NOT EXISTS }", TRAIL, True),
        ("{ $.user NOT EXISTS }", TRAIL, False),
        ("{ $.latency >= 12.5 && $.latency < 1.3e1 }", TRAIL, True),
        ('{ ($.user.id = 1) && ($.user.email = "John*") }', TRAIL, True),
        ('{ $.user.id = 2 || ($.user.id = 1 && $.eventType = "Nope") }', TRAIL, False),
        ('{ $.["dotted.key"] = "x" }', TRAIL, True),
        ('{ $.a = "x" }', "no json", False),
        ("%[Uu]pdate.rail%", TRAIL, True),
        ("%^UpdateTrail$%", TRAIL, False),
        (r"%\d{3}\.\d{3}%", TRAIL, True),
        ("%gray|grey% -dog", "a grey cat", True),
        ("%gray|grey% -%d.g%", "a grey dog", False),
        ("?%a{3}% ?%b+%", "xbx", True),
        ("{ $.eventType = %Trail$% }", TRAIL, True),
        ("{ $.eventType != %Trail$% }", TRAIL, False),
        ("{ $.user.email = %Stiles@% && $.eventType = %^Up% }", TRAIL, True),
        ("{ $.user.* = 1 }", TRAIL, True),
        ("{ $.objectList[*].name = b }", TRAIL, True),
        ("{ $.latency EXISTS }", TRAIL, True),
        ("{ $.eventType = Update* }", "prefix " + TRAIL, True),
        (r"[ip = %127\.0\.0\.[1-9]%, ...]", APACHE, True),
        (r"[ip = %127\.0\.0\.[2-9]%, ...]", APACHE, False),
        ("[ip, ..., request = %GET|P{1,2}UT%, status, bytes]", APACHE, True),
        ("[ip, user, username, timestamp, request, status_code != 4* && status_code != 5*, bytes]", APACHE, False),
        ("[ip, user, username, timestamp, request, status_code, bytes]", APACHE, True),
        ("[ip, user, username, timestamp, request =*html*, status_code = 4*, bytes]", APACHE, True),
        ("[ip, user, username, timestamp, request, status_code = 5*, bytes]", APACHE, False),
        ("[..., status_code = 4*, bytes > 1000]", APACHE, True),
        ("[ip, ..., bytes < 1000]", APACHE, False),
        ("[ip, user]", APACHE, False),
        ("[w1 = 127.* || w1 = 10.*, ...]", APACHE, True),
    ],
)
def test_matches(pattern: str, message: str, expected: bool) -> None:
    assert compile_pattern(pattern)(message) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        "%[0-9%",
        "%a(b)%",
        "%bang!%",
        "{ $.a = %[% }",
        "{ $.a = %x% || $.b = %y% || $.c = %z% }",
        "{ $.a > %x% }",
        "error:",
        '"open',
        "{ $.a = 1",
        "{ $.a }",
        "{ $.a > x }",
        "{ $.a = 1 && }",
        "{ a = 1 }",
        "[a, a]",
        "[..., a, ...]",
        "[a = ]",
        "x" * 1025,
        "{" + "(" * 100 + "$.a = 1" + ")" * 100 + "}",
    ],
)
def test_refuses(pattern: str) -> None:
    with pytest.raises(InvalidParameterError):
        compile_pattern(pattern)


@given(st.text(alphabet='{}[]()"$.=*&|<>! ab1,?-%\\ISNOT', max_size=80), st.text(max_size=80))
def test_any_text_is_a_pattern_or_is_refused(pattern: str, message: str) -> None:
    try:
        matches = compile_pattern(pattern)
    except InvalidParameterError:
        return
    assert matches(message) in (True, False)


def test_many_wildcards_on_a_long_line_take_linear_time() -> None:
    pattern = "{ $.a = " + "*a" * 200 + "b }"
    assert compile_pattern(pattern)(json.dumps({"a": "a" * 200_000})) is False


def test_a_hostile_regular_expression_takes_linear_time() -> None:
    assert compile_pattern("%a*a*a*a*a*a*a*a*a*a*a*a*b%")("a" * 200_000) is False


def test_values_are_extracted_as_aws_shows_them() -> None:
    pattern = parse("[..., size]")
    assert pattern.extracted(pattern.read(APACHE)) == {
        "$1": "127.0.0.1",
        "$2": "-",
        "$3": "frank",
        "$4": "10/Oct/2000:13:25:15 -0700",
        "$5": "GET /index.html HTTP/1.0",
        "$6": "404",
        "$size": "1534",
    }
    pattern = parse("{ $.latency > 1 && $.arrayKey[*] = value }")
    assert pattern.extracted(pattern.read(TRAIL)) == {"$.latency": "12.5", "$.arrayKey[*]": "value"}
    assert parse("ERROR").extracted("ERROR") == {}


def test_a_value_is_named_by_a_selector_that_the_pattern_can_read() -> None:
    assert parse("{ $.user.id = * }").value("$.latency")({"latency": 12.5}) == "12.5"
    assert parse("[ip, bytes]").value("$bytes")({"bytes": "7"}) == "7"
    for pattern, selector in (("ERROR", "$.size"), ("[ip, bytes]", "$other"), ("{ $.a = 1 }", "$[")):
        with pytest.raises(InvalidParameterError):
            parse(pattern).value(selector)
