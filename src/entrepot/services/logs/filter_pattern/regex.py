"""Regular expressions between percent signs: what AWS allows in them, run by RE2, which is linear in the text.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html#regex-expressions
"""

import re
from collections.abc import Callable
from typing import NoReturn

import re2

REGEX_LIMIT_BYTES = 1 << 20
"""Memory that one compiled expression may take."""

Refuse = Callable[[str], NoReturn]
"""Raises InvalidParameterError with why the pattern is none."""

_ALLOWED = re.compile(r"(?:[A-Za-z0-9_#=@/;,:' \-^$?\[\]{}|*+.]|\\[!-~])+")


def compile_regex(quoted: str, refuse: Refuse) -> Callable[[str], bool]:
    """Return whether a text has a match of `quoted`, an expression between percent signs."""
    text = quoted[1:-1]
    if not _ALLOWED.fullmatch(text):
        refuse(f"the regular expression {quoted} has a character that filter patterns do not allow in one")
    options = re2.Options()
    options.max_mem = REGEX_LIMIT_BYTES
    options.log_errors = False
    try:
        search = re2.compile(text.replace("\\%", "%"), options).search
    except re2.error as error:
        why = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        refuse(f"the regular expression {quoted} is invalid: {why}")
    return lambda value: search(value) is not None
