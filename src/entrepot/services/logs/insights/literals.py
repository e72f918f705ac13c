"""Plain text inside regular expressions: what can be searched for without one.

Python's own parser of regular expressions reads the pattern; where it does not understand it, nothing is promised.
"""

import re
from functools import lru_cache
from typing import Any

from re import _constants, _parser  # isort: skip - it has no public name

SHORTEST = 3
"""Shorter text is not worth a search of its own."""


@lru_cache(256)
def whole(pattern: str) -> str | None:
    """Return the text that the pattern stands for, if it stands for one text only."""
    run, everything = _longest(pattern)
    return run if everything else None


@lru_cache(256)
def needed(pattern: str) -> str | None:
    """Return a text that is in everything the pattern matches."""
    run, _ = _longest(pattern)
    return run if len(run) >= SHORTEST else None


def _longest(pattern: str) -> tuple[str, bool]:
    """Return the longest text that must occur, and whether it is the whole pattern."""
    try:
        parsed = _parser.parse(pattern.replace("(?<", "(?P<").replace("(?P<=", "(?<=").replace("(?P<!", "(?<!"))
    except (re.error, RecursionError, OverflowError):
        return "", False
    if parsed.state.flags & (re.IGNORECASE | re.VERBOSE):
        return "", False
    runs = [""]
    others = _collect(list(parsed), runs)
    longest = max(runs, key=len)
    return longest, not others and len(runs) == 1


def _collect(nodes: list[tuple[Any, Any]], runs: list[str]) -> bool:
    """Add the runs of literals to `runs`; return whether there is anything else."""
    others = False
    for kind, argument in nodes:
        if kind is _constants.LITERAL:
            runs[-1] += chr(argument)
        else:
            others = True
            runs.append("")
            if kind is _constants.SUBPATTERN and not argument[1] & re.IGNORECASE:
                _collect(list(argument[3]), runs)
                runs.append("")
    return others
