"""The server's own log: what comes from outside is shown, and neither forges lines nor steers a terminal."""

import logging
import sys

from entrepot.serve import OneLine

NAME = "a\n2026-01-01 00:00:00 ERROR entrepot: forged \x1b]0;owned\x07\u2028"


def test_a_hostile_name_stays_in_its_line() -> None:
    record = logging.LogRecord("entrepot", logging.ERROR, "", 0, "The key %s failed", (NAME,), None)
    line = OneLine("%(levelname)s %(message)s").format(record)
    assert line == r"ERROR The key a\n2026-01-01 00:00:00 ERROR entrepot: forged \x1b]0;owned\x07\u2028 failed"


def test_lines_of_an_exception_are_indented() -> None:
    try:
        raise ValueError(NAME)
    except ValueError:
        record = logging.LogRecord("entrepot", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    first, *rest = OneLine("%(message)s").format(record).splitlines()
    assert first == "failed"
    assert all(line.startswith("  ") and line.isprintable() for line in rest)
    assert r"forged \x1b]0;owned\x07" in rest[-1]
