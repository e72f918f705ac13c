"""Paths: `$.a.b[0]`, `$$.Execution.Id`, `$name.field`, compiled once, evaluated often.

Definite paths without anything special are a plain run of lookups (the common case costs a fraction of a microsecond);
the others walk the data step by step with a bound on the nodes they may visit. Semantics are Jayway's, which AWS runs:
a definite path that finds nothing is an error, an indefinite one gives a list, which is empty where anything on the way is
missing (recorded AWS executions show that).
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .evaluation import (
    REFERENCE_PATH_CONFLICT,
    RESULT_PATH_MATCH_FAILURE,
    RUNTIME,
    Json,
    Scope,
    StatesError,
    shown,
)
from .path_filter import Test, parse_filter
from .path_syntax import (
    MAX_PATH_CHARACTERS,
    Cursor,
    Descend,
    Filter,
    Indexes,
    Keys,
    Slice,
    Step,
    SyntaxProblem,
    Wildcard,
    is_definite,
    parse_root,
    parse_steps,
)

MAX_VISITED_NODES = 500_000
"""How many nodes one evaluation may visit: several times what fits into AWS's 256 KiB of data."""

_JAYWAY_FIELDS = ("InputPath", "OutputPath")
_CHOICE_FIELDS = ("Variable", "EqualsPath", "ThanPath")
_MISS = (KeyError, IndexError, TypeError)


@dataclass(frozen=True, slots=True)
class Path:
    """A compiled path. Made by `parse_path`.

    `field` is the field of the definition that it stands in, for the error's text. `root` is `$`, `$$` or a variable's
    name. `keys` are the plain lookups of a simple path, None when the path needs a walk.
    """

    text: str
    field: str
    root: str
    steps: tuple[Step, ...]
    definite: bool
    keys: tuple[str | int, ...] | None
    read: Callable[[Scope], Json] = dataclasses.field(repr=False, compare=False)

    def evaluate(self, scope: Scope) -> Json:
        """Return the value. Raises `StatesError` when a definite path finds nothing."""
        try:
            return self.read(scope)
        except _MISS:
            raise self._failure(scope) from None

    def exists(self, scope: Scope) -> bool:
        """Whether the path finds something (null counts)."""
        try:
            found = self.read(scope)
        except _MISS:
            return False
        return self.definite or bool(found)

    def _failure(self, scope: Scope) -> StatesError:
        """Return the error AWS raises for this field when the path finds nothing."""
        data = _root_of(self.root, scope)
        if self.field in _JAYWAY_FIELDS:
            if data is None and self.steps:
                return StatesError(RUNTIME, "Unable to apply Path transformation to null or empty input.")
            return StatesError(RUNTIME, f"Invalid path '{self.text}' : {_jayway_reason(self, data)}")
        if self.field.endswith(_CHOICE_FIELDS):
            reason = "The choice state's condition path references an invalid value."
            return StatesError(RUNTIME, f"Invalid path '{self.text}': {reason}")
        if self.field == "ItemsPath":
            node, key = _where_it_ends(self, data)
            return StatesError(REFERENCE_PATH_CONFLICT, f'Unable to apply step "{key}" to input {shown(node)}')
        return StatesError(
            RUNTIME,
            f"The JSONPath '{self.text}' specified for the field '{self.field}'"
            f" could not be found in the input '{shown(data)}'",
        )


@dataclass(frozen=True, slots=True)
class ReferencePath:
    """A path that names exactly one place below `$` (ResultPath). Made by `parse_result_path`."""

    text: str
    keys: tuple[str | int, ...]

    def place(self, data: Json, value: Json) -> Json:
        """Return `data` with `value` at this place; missing nodes are made. `data` itself is not changed.

        Raises `StatesError` States.ResultPathMatchFailure where the place cannot be.
        """
        keys = self.keys
        if not keys:
            return value
        if len(keys) == 1 and type(data) is dict and isinstance(keys[0], str):
            return {**data, keys[0]: value}
        top: list[Json] = [None]
        holder: Json = top
        slot: str | int = 0
        node = data
        for key in keys:
            copied = _opened(node, key)
            holder[slot] = copied
            holder, slot = copied, key
            node = copied.get(key, _ABSENT) if isinstance(key, str) else copied[key]
        holder[slot] = value
        return top[0]


_ABSENT = object()


def _opened(node: Json, key: str | int) -> Json:
    """Return a copy of `node` that can take `key`: an object (made when missing) or a long enough array."""
    if isinstance(key, str):
        if node is _ABSENT:
            return {}
        if isinstance(node, dict):
            return dict(node)
    elif isinstance(node, list) and -len(node) <= key < len(node):
        return list(node)
    shown_node = {} if node is _ABSENT else node
    raise StatesError(RESULT_PATH_MATCH_FAILURE, f'Unable to apply step "{key}" to input {shown(shown_node)}')


def parse_path(text: str, field: str) -> Path:
    """Compile a path. Raises `SyntaxProblem`."""
    if len(text) > MAX_PATH_CHARACTERS:
        raise SyntaxProblem(f"a path may have {MAX_PATH_CHARACTERS} characters at most")
    cursor = Cursor(text)
    return parse_path_at(cursor, field, stops="")


def parse_path_at(cursor: Cursor, field: str, stops: str) -> Path:
    """Compile the path at the cursor; it ends before one of `stops`. Raises `SyntaxProblem`."""
    start = cursor.pos
    root = parse_root(cursor)
    steps = parse_steps(cursor, stops, parse_filter)
    keys = _plain_keys(steps)
    definite = is_definite(steps)
    read = _walker(root, steps, definite) if keys is None else _lookup(root, keys)
    return Path(cursor.text[start : cursor.pos], field, root, steps, definite, keys, read)


def parse_reference_path(text: str, field: str) -> Path:
    """Compile a path that must name one place: no wildcards, slices, filters or lists. Raises `SyntaxProblem`."""
    path = parse_path(text, field)
    if path.keys is None:
        raise SyntaxProblem(f"'{text[:200]}' is not a Reference Path: it may name one place only")
    return path


def parse_result_path(text: str) -> ReferencePath:
    """Compile a ResultPath. Raises `SyntaxProblem`."""
    path = parse_reference_path(text, "ResultPath")
    if path.root != "$" or path.keys is None:
        raise SyntaxProblem(f"'{text[:200]}' does not start at the state's input ('$')")
    return ReferencePath(text, path.keys)


def _plain_keys(steps: tuple[Step, ...]) -> tuple[str | int, ...] | None:
    keys: list[str | int] = []
    for step in steps:
        if isinstance(step, Keys) and len(step.names) == 1:
            keys.append(step.names[0])
        elif isinstance(step, Indexes) and len(step.numbers) == 1:
            keys.append(step.numbers[0])
        else:
            return None
    return tuple(keys)


def _root_of(root: str, scope: Scope) -> Json:
    if root == "$":
        return scope.data
    return scope.context if root == "$$" else scope.variables.get(root)


def _lookup(root: str, keys: tuple[str | int, ...]) -> Callable[[Scope], Json]:
    """Return the reader of a plain path; it raises KeyError, IndexError or TypeError when it finds nothing."""
    if root == "$" and not keys:
        return lambda scope: scope.data
    if root == "$" and len(keys) == 1 and isinstance(keys[0], str):
        only = keys[0]
        return lambda scope: scope.data[only]
    if root == "$" and all(isinstance(key, str) for key in keys):

        def read_names(scope: Scope) -> Json:
            node = scope.data
            for key in keys:
                node = node[key]
            return node

        return read_names

    def read(scope: Scope) -> Json:
        node: Json = scope.data if root == "$" else scope.context if root == "$$" else scope.variables[root]
        for key in keys:
            if type(key) is int and type(node) is not list:
                raise TypeError
            node = node[key]
        return node

    return read


def _walker(root: str, steps: tuple[Step, ...], definite: bool) -> Callable[[Scope], Json]:
    """Return the reader of a path that needs a walk."""

    def read(scope: Scope) -> Json:
        node: Json = scope.data if root == "$" else scope.context if root == "$$" else scope.variables[root]
        found = _Walk(node).find(node, steps)
        return found[0] if definite else found

    return read


class _Walk:
    """One evaluation of a path with a budget of nodes."""

    __slots__ = ("budget", "root")

    def __init__(self, root: Json) -> None:
        self.root = root
        self.budget = MAX_VISITED_NODES

    def _spend(self, nodes: int) -> None:
        self.budget -= nodes
        if self.budget < 0:
            raise StatesError(RUNTIME, f"The path visits more than {MAX_VISITED_NODES} nodes")

    def find(self, node: Json, steps: tuple[Step, ...]) -> list[Json]:
        """Return what the steps find; nothing where something on the way is missing."""
        nodes = [node]
        for number in range(len(steps)):
            nodes = self._apply(nodes, steps, number)
        return nodes

    def _apply(self, nodes: list[Json], steps: tuple[Step, ...], number: int) -> list[Json]:
        step = steps[number]
        below = number > 0 and isinstance(steps[number - 1], Descend)
        last = number == len(steps) - 1
        found: list[Json] = []
        for node in nodes:
            before = len(found)
            found.extend(self._one(node, step, last, below))
            self._spend(1 + len(found) - before)
        return found

    def _one(self, node: Json, step: Step, last: bool, below: bool) -> Iterator[Json]:
        if isinstance(step, Keys):
            yield from _named(node, step.names, last)
        elif isinstance(step, Indexes):
            if isinstance(node, list):
                yield from (node[n] for n in step.numbers if -len(node) <= n < len(node))
        elif isinstance(step, Slice):
            if isinstance(node, list):
                yield from node[step.start : step.stop]
        elif isinstance(step, Wildcard):
            yield from _children(node)
        elif isinstance(step, Descend):
            yield from self._descend(node)
        else:
            yield from self._filtered(node, step, below)

    def _descend(self, node: Json) -> Iterator[Json]:
        """Yield the node and all objects and arrays below it, parents first, in document order."""
        stack = [node]
        while stack:
            current = stack.pop()
            self._spend(1)
            if isinstance(current, dict | list):
                yield current
                children = list(_children(current))
                children.reverse()
                stack.extend(children)

    def _filtered(self, node: Json, step: Filter, below: bool) -> Iterator[Json]:
        """Yield an array's elements that pass; of an object the object itself. After `..` only objects are tested."""
        test: Test = step.test  # type: ignore[assignment]
        candidates = node if isinstance(node, list) and not below else [node] if isinstance(node, dict) else []
        for candidate in candidates:
            self._spend(1)
            if test.holds(candidate, self.root, self.find):
                yield candidate


def _children(node: Json) -> Iterator[Json]:
    if isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, list):
        yield from node


def _named(node: Json, names: tuple[str, ...], last: bool) -> Iterator[Json]:
    """Yield the fields; several names at the end of a path give one object of those that are there."""
    if not hasattr(node, "keys"):
        return
    if len(names) > 1 and last:
        yield {name: node[name] for name in names if name in node}
        return
    for name in names:
        if name in node:
            yield node[name]


def _where_it_ends(path: Path, data: Json) -> tuple[Json, str | int]:
    """Return the node at which a plain path cannot go on, and the key that it lacks."""
    node = data
    for key in path.keys or ():
        try:
            if type(key) is int and type(node) is not list:
                return node, key
            node = node[key]
        except _MISS:
            return node, key
    return node, path.text


def _jayway_reason(path: Path, data: Json) -> str:
    """Return what Jayway says about a plain path that finds nothing; the whole path for others."""
    keys = path.keys
    if keys is None:
        return f"No results for path: {path.text}"
    node = data
    seen = "$"
    for number, key in enumerate(keys):
        here = f"{seen}['{key}']" if isinstance(key, str) else f"{seen}[{key}]"
        if isinstance(key, int):
            if not isinstance(node, list):
                return f"Filter: [{key}] can only be applied to arrays. Current context is: {shown(node)}"
            if not -len(node) <= key < len(node):
                return f"No results for path: {_bracketed(keys)}"
        elif not hasattr(node, "keys"):
            return f"Expected to find an object with property ['{key}'] in path {seen} but found '{shown(node)}'."
        elif key not in node:
            return f"No results for path: {here}" if number == len(keys) - 1 else f"Missing property in path {here}"
        node = node[key]
        seen = here
    return f"No results for path: {_bracketed(keys)}"


def _bracketed(keys: tuple[str | int, ...]) -> str:
    return "$" + "".join(f"['{key}']" if isinstance(key, str) else f"[{key}]" for key in keys)
