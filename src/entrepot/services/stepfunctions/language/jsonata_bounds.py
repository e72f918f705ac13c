"""What one JSONata expression may use: depth, memory and processor time, and regular expressions that end.

AWS refuses depth beyond 100, values beyond 6,990,256 bytes (a number counts 8, a character 1) and evaluations beyond a
second; the bounds are the same here, checked at every node of the expression. What the library does in one call without
passing a node (a replacement, a pattern) is bounded by `Pattern` and by our own functions (`jsonata_functions`).
Source: https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html
"""

from collections.abc import Callable, Iterator
from typing import Any

import regex
from jsonata.regex_engine import RegexFlags
from jsonata.utils import Utils

from entrepot import clock

DEPTH_LIMIT = 100
"""How deeply an evaluation may nest, as on AWS."""

MEMORY_LIMIT_BYTES = 6_990_256
"""How much one value may hold on the way, as on AWS: 873,782 numbers."""

NUMBER_BYTES = 8
"""What a number, boolean or null counts."""

TIME_LIMIT_S = 1.0
"""Processor time of one evaluation. AWS: "an expression that takes longer than 1 second to evaluate will fail"."""

SCOPE_LIMIT_S = 2.0
"""Processor time of all expressions that one state evaluates together, so that many slow ones cannot add up."""

PATTERN_LIMIT_S = 0.25
"""Time of one search for a pattern: a hostile one would go on for ever."""

_NODES_PER_LOOK = 32
"""How many nodes are evaluated between two looks at the clock."""


class Exceeded(Exception):
    """The evaluation used more than it may; str() is AWS's text."""


def memory_exceeded() -> Exceeded:
    """Return the error of a value that is too large."""
    return Exceeded("Expression evaluation memory limit exceeded: Check for excessive memory usage")


def time_exceeded() -> Exceeded:
    """Return the error of an evaluation that takes too long."""
    return Exceeded("Expression evaluation timeout: Check for infinite loop")


_watching: list["Guard"] = []


class Meter:
    """The processor time that the expressions of one scope have used."""

    __slots__ = ("spent_s",)

    total_s = 0.0
    """What all expressions of this process have used; read it before and after."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    def add(self, used_s: float) -> None:
        """Count an evaluation."""
        self.spent_s += used_s
        Meter.total_s += used_s


def look() -> None:
    """Raise `Exceeded` when the evaluation under way has used its time; for loops that pass no node."""
    for guard in _watching[-1:]:
        guard.look()


class Guard:
    """Watches one evaluation through the library's callbacks at the entry and exit of every node."""

    __slots__ = ("_began_at_s", "_depth", "_ends_at_s", "_kept", "_meter", "_nodes", "_sizes")

    def __init__(self, meter: Meter) -> None:
        self._depth = 0
        self._nodes = 0
        self._meter = meter
        self._began_at_s = clock.thread_s()
        self._ends_at_s = self._began_at_s + min(TIME_LIMIT_S, SCOPE_LIMIT_S - meter.spent_s)
        self._sizes: dict[int, int] = {}
        self._kept: list[Any] = []

    def __enter__(self) -> "Guard":
        _watching.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _watching.pop()
        self._meter.add(clock.thread_s() - self._began_at_s)

    def look(self) -> None:
        """Look at the clock. Raises `Exceeded`."""
        if clock.thread_s() > self._ends_at_s:
            raise time_exceeded()

    def enter(self, node: Any, _input: Any, _environment: Any) -> None:
        """Count a node. Raises `Exceeded`."""
        self._depth += 1
        self._nodes += 1
        if self._depth > DEPTH_LIMIT:
            raise Exceeded(
                "Stack overflow error: Check for non-terminating recursive function. Consider rewriting as tail-recursive."
            )
        if self._nodes % _NODES_PER_LOOK == 0:
            self.look()

    def exit(self, node: Any, _input: Any, _environment: Any, result: Any) -> None:
        """Weigh what a node gave. Raises `Exceeded`."""
        self._depth -= 1
        if isinstance(result, str):
            if len(result) > MEMORY_LIMIT_BYTES:
                raise memory_exceeded()
        # What a name or a variable gives is part of the input or was weighed when it was made.
        elif isinstance(result, list | dict) and node.type not in ("name", "variable"):
            self._weigh(result, 0)

    def _weigh(self, value: Any, depth: int) -> int:
        """Return the size of a value. What was weighed before is not walked again, so shared parts cost nothing."""
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, list | dict):
            return NUMBER_BYTES
        known = self._sizes.get(id(value))
        if known is not None:
            return known
        if depth > 4 * DEPTH_LIMIT:
            raise memory_exceeded()
        total = 0
        if isinstance(value, Utils.RangeList):
            total = NUMBER_BYTES * (value.b - value.a)  # its own length is one too many
        elif isinstance(value, dict):
            for key, part in value.items():
                total += len(key) + self._weigh(part, depth + 1)
                if total > MEMORY_LIMIT_BYTES:
                    raise memory_exceeded()
        else:
            for part in value:
                total += self._weigh(part, depth + 1)
                if total > MEMORY_LIMIT_BYTES:
                    raise memory_exceeded()
        if total > MEMORY_LIMIT_BYTES:
            raise memory_exceeded()
        self._sizes[id(value)] = total
        self._kept.append(value)  # as long as it lives, its id belongs to it
        return total


class Pattern:
    """A compiled regular expression each of whose searches ends in time. Raises `Exceeded`."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self._compiled = regex.compile(pattern, flags)
        self.pattern = pattern

    @property
    def groups(self) -> int:
        """How many groups it captures."""
        return int(self._compiled.groups)

    def _ask(self, search: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return search(*arguments, timeout=PATTERN_LIMIT_S)
        except TimeoutError:
            raise time_exceeded() from None

    def search(self, string: str) -> Any:
        """As `re.Pattern.search`."""
        return self._ask(self._compiled.search, string)

    def match(self, string: str) -> Any:
        """As `re.Pattern.match`."""
        return self._ask(self._compiled.match, string)

    def fullmatch(self, string: str) -> Any:
        """As `re.Pattern.fullmatch`."""
        return self._ask(self._compiled.fullmatch, string)

    def split(self, string: str) -> list[str]:
        """Return what stands between the matches, without the groups."""
        pieces, position = [], 0
        for match in self.finditer(string):
            pieces.append(string[position : match.start()])
            position = match.end()
        return [*pieces, string[position:]]

    def sub(self, replacement: Any, string: str, count: int = 0) -> Any:
        """As `re.Pattern.sub`."""
        return self._ask(self._compiled.sub, replacement, string, count)

    def finditer(self, string: str) -> Iterator[Any]:
        """As `re.Pattern.finditer`; the time limit is for all of it."""
        found = self._ask(self._compiled.finditer, string)
        while True:
            try:
                match = next(found, None)
            except TimeoutError:
                raise time_exceeded() from None
            if match is None:
                return
            yield match


def regex_engine(pattern: str, flags: RegexFlags) -> Pattern:
    """Compile a regular expression of the language; the library calls this."""
    chosen = (regex.IGNORECASE if flags.case_insensitive else 0) | (regex.MULTILINE if flags.multiline else 0)
    return Pattern(pattern, chosen)


class BoundedRe:
    """Stands for the module `re` where the library compiles patterns that an expression's author can shape."""

    IGNORECASE = regex.IGNORECASE

    @staticmethod
    def sub(pattern: "Pattern | str", replacement: Any, string: str) -> Any:
        """As `re.sub`."""
        return (Pattern(pattern) if isinstance(pattern, str) else pattern).sub(replacement, string)

    @staticmethod
    def compile(pattern: str, flags: int = 0) -> Pattern:
        """As `re.compile`."""
        return Pattern(pattern, flags)

    @staticmethod
    def fullmatch(pattern: str, string: str) -> Any:
        """As `re.fullmatch`."""
        return Pattern(pattern).fullmatch(string)

    @staticmethod
    def split(pattern: str, string: str) -> Any:
        """As `re.split`."""
        return Pattern(pattern).split(string)
