"""What AWS refuses in a JSONata expression when the state machine is created, though the language has it.

There is no context at the top level: a name there, or `$$`, has nothing to stand for. `$states.result` and
`$states.errorOutput` exist only in some fields.
"""

from collections.abc import Iterator
from typing import Any

from .jsonata import JsonataExpression, is_function, syntax_tree


def unsupported_references(expression: JsonataExpression, *, result: bool, error_output: bool) -> list[str]:
    """Return AWS's messages. `result`, `error_output`: whether `$states` has these members in the field."""
    found: list[str] = []
    for node, at_top in _nodes(syntax_tree(expression)):
        kind = getattr(node, "type", None)
        if kind == "variable" and node.value == "$":
            found.append("Reference to '$$' is not supported.")
        elif kind == "path":
            first = node.steps[0]
            if at_top and first.type == "name":
                found.append(f"Reference to '{first.value}' at the top level is not supported.")
            if first.type == "variable" and first.value == "states" and len(node.steps) > 1:
                member = node.steps[1].value if node.steps[1].type == "name" else None
                if (member == "result" and not result) or (member == "errorOutput" and not error_output):
                    found.append(f"Reference to '$states.{member}' is not supported.")
    return list(dict.fromkeys(found))


def variables(expression: JsonataExpression) -> set[str]:
    """Return the names of workflow variables that an expression refers to: no functions, nothing that it binds itself."""
    named: set[str] = set()
    own: set[str] = {"", "$", "states"}
    for node, _ in _nodes(syntax_tree(expression)):
        if node.type == "variable":
            named.add(node.value)
        elif node.type == "bind":
            own.add(node.lhs.value)
        elif node.type == "lambda":
            own.update(argument.value for argument in node.arguments)
        elif node.type in ("function", "partial") and node.procedure.type == "variable":
            own.add(node.procedure.value)
    return {name for name in named - own if not is_function(name)}


def _nodes(root: Any) -> Iterator[tuple[Any, bool]]:
    """Yield every node with whether it is evaluated where there is no context."""
    pending: list[tuple[Any, bool]] = [(root, True)]
    while pending:
        node, at_top = pending.pop()
        if isinstance(node, list | tuple):
            pending.extend((part, at_top) for part in node)
            continue
        if node is None or not hasattr(node, "type"):
            continue
        yield node, at_top
        if node.type == "path":
            first, *others = node.steps
            # A lone name is this node's own business; what is behind the first step has a context.
            if first.type != "name":
                pending.append((first, at_top))
            pending.extend((getattr(first, part, None), False) for part in ("predicate", "stages", "group"))
            pending.extend((step, False) for step in others)
            pending.append((node.group, False))
            continue
        for part in ("lhs", "rhs", "lhs_object", "procedure", "arguments", "expressions", "expression", "condition"):
            pending.append((getattr(node, part, None), at_top))
        for part in ("then", "_else", "body"):
            pending.append((getattr(node, part, None), at_top))
        for part in ("predicate", "stages", "expr", "group", "terms", "rhs_object", "rhs_terms"):
            pending.append((getattr(node, part, None), False))
        for part in ("pattern", "update", "delete"):
            pending.append((getattr(node, part, None), False))
