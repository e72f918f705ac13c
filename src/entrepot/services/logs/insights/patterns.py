"""The pattern of a line: its text with the parts that vary between events replaced.

AWS learns its patterns; these are found by rules (times, ids, addresses, numbers, quoted text), so that the same lines always
give the same pattern.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData_Patterns.html
"""

import re

PATTERN_LIMIT_CHARS = 2_000
"""A longer line is cut before its pattern is sought."""

TOKEN = "<*>"  # noqa: S105 - what stands for a variable part
"""What stands for a variable part."""

_VARIABLE = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"  # a time
    r"|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"  # a UUID
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"  # an IPv4 address
    r"|\b[0-9a-fA-F]{16,}\b"  # a hash
    r"|\"(?:[^\"\\]|\\.)*\"(?!\s*:)"  # a quoted value, not a key
    r"|(?<![A-Za-z_])[-+]?\d+(?:\.\d+)?"  # a number
    r"|\b(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{6,}\b"  # an id of letters and digits
)


def pattern_of(text: object) -> str | None:
    """Return the pattern of a line."""
    return None if text is None else _VARIABLE.sub(TOKEN, str(text)[:PATTERN_LIMIT_CHARS])


def regex_of(pattern: str) -> str:
    """Return a regular expression that the pattern's lines match."""
    return ".*?".join(re.escape(part) for part in pattern.split(TOKEN))


def severity_of(pattern: str) -> str:
    """Return the severity that the words of a pattern speak of."""
    for label, words in (("ERROR", r"error|fail|exception|fatal|denied"), ("WARN", r"warn"), ("DEBUG", r"debug|trace")):
        if re.search(words, pattern, re.IGNORECASE):
            return label
    return "INFO"
