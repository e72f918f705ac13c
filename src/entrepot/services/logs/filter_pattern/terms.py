"""Patterns of terms: all of them, any of those with `?`, none of those with `-`."""

import re
from collections.abc import Callable

from entrepot.services.logs.errors import InvalidParameterError
from entrepot.services.logs.filter_pattern.regex import Refuse, compile_regex

_TERM = re.compile(r'([?-]?)(?:"((?:[^"\\]|\\.)*)"|(%(?:[^%\\]|\\.)+%)|([^\s"]+))(?=\s|$)')
_REFUSED_IN_TERM = re.compile(r"""[\[\]{}()%&|=<>!,;:'?]""")


def compile_terms(text: str, refuse: Refuse) -> tuple[Callable[[str], bool], int]:
    """Return whether a message has the terms, and how many of them are regular expressions."""
    wanted: list[Callable[[str], bool]] = []
    unwanted: list[Callable[[str], bool]] = []
    any_of: list[Callable[[str], bool]] = []
    regexes = at = 0
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None:
            refuse(f"cannot read {text[at : at + 40]!r}")
        sign, quoted, regex, bare = match.groups()
        if bare is not None and _REFUSED_IN_TERM.search(bare):
            raise InvalidParameterError(f"Invalid character(s) in term '{bare}'. Put it in double quotes.")
        if regex is not None:
            regexes += 1
            test = compile_regex(regex, refuse)
        else:
            test = _contains(bare if bare is not None else unquoted(quoted))
        {"": wanted, "-": unwanted, "?": any_of}[sign].append(test)
        at = match.end()
        while at < len(text) and text[at].isspace():
            at += 1
    if wanted or unwanted:
        any_of = []  # as AWS does: optional terms beside others decide nothing
    if len(wanted) == 1 and not unwanted:
        return wanted[0], regexes

    def matches(message: str) -> bool:
        return (
            all(test(message) for test in wanted)
            and not any(test(message) for test in unwanted)
            and (not any_of or any(test(message) for test in any_of))
        )

    return matches, regexes


def _contains(term: str) -> Callable[[str], bool]:
    return lambda message: term in message


def unquoted(quoted: str) -> str:
    """Return what stands between double quotes, with its escapes undone."""
    return re.sub(r"\\(.)", r"\1", quoted)
