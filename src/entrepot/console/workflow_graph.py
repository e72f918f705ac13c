"""A state machine as a picture: its definition becomes boxes and links, and the history of an execution their status.

The picture is SVG that the style sheet colours. Every state names its status in words beside a sign, and leads to its row in the
table of states.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from entrepot.console.layout import Arrangement, Link, Point, TooLargeError, arrange
from entrepot.console.render import GLYPHS, anchor, words
from entrepot.console.workflow_states import StateOutcome

STATES_LIMIT = 400
"""A definition with more states is not drawn; the table of states shows them."""

DEPTH_LIMIT = 12

NAME_CHARS = 30
LABEL_CHARS = 30
BOX_HEIGHT = 46.0
HEADER_HEIGHT = 44.0
PADDING = 16.0
MARGIN = 10.0
DOT = 26.0

_COMPARISONS = {
    "Equals": "=",
    "EqualsPath": "=",
    "LessThan": "<",
    "LessThanPath": "<",
    "GreaterThan": ">",
    "GreaterThanPath": ">",
    "LessThanEquals": "≤",
    "LessThanEqualsPath": "≤",
    "GreaterThanEquals": "≥",
    "GreaterThanEqualsPath": "≥",
    "Matches": "like",
}


@dataclass(slots=True)
class _Box:
    """A state, or the dot at which an execution starts or ends (`state` is None)."""

    name: str
    state: Mapping[str, Any] | None
    branches: "list[_Graph]" = field(default_factory=list)
    width: float = DOT
    height: float = DOT


@dataclass(slots=True)
class _Edge:
    tail: int
    head: int
    label: str = ""
    kind: str = "next"


@dataclass(slots=True)
class _Graph:
    boxes: list[_Box]
    edges: list[_Edge]
    laid: Arrangement


def states_of(definition: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every state with its name, those of branches and Maps after the state that holds them."""
    waiting: list[Mapping[str, Any]] = [definition]
    while waiting:
        states = waiting.pop().get("States", {})
        for name, state in states.items():
            yield name, state
            waiting.extend(_machines_within(state))


def draw(definition_text: str, outcomes: Mapping[str, StateOutcome], title: str) -> Markup | None:
    """Return the picture; None when the definition cannot be drawn or is too large for it."""
    try:
        definition = json.loads(definition_text)
        count = sum(1 for _ in states_of(definition))
    except (ValueError, AttributeError, TypeError):
        return None
    if not 0 < count <= STATES_LIMIT:
        return None
    try:
        graph = _graph(definition, 0)
    except TooLargeError:
        return None
    parts = list(_drawn(graph, MARGIN, MARGIN, outcomes))
    width, height = graph.laid.width + 2 * MARGIN, graph.laid.height + 2 * MARGIN
    return Markup(
        '<div class="graph" role="region" aria-label="{}" tabindex="0">'
        '<svg viewBox="0 0 {w:.0f} {h:.0f}" width="{w:.0f}" height="{h:.0f}" role="group" aria-label="{}">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" '
        'markerUnits="userSpaceOnUse" orient="auto">'
        '<path class="arrow" d="M0 0 8 4 0 8z"/></marker></defs>{}</svg></div>'
    ).format(title, title, Markup("").join(parts), w=width, h=height)


# ── from the definition to boxes ─────────────────────────────────────────────────────────────────────────────────────


def _machines_within(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the branches of a Parallel, or what a Map does with each item."""
    if state.get("Type") == "Parallel":
        return list(state.get("Branches", ()))
    if state.get("Type") == "Map":
        inner = state.get("ItemProcessor") or state.get("Iterator")
        return [inner] if inner else []
    return []


def _graph(machine: Mapping[str, Any], depth: int) -> _Graph:
    states: Mapping[str, Mapping[str, Any]] = machine.get("States", {})
    start = machine.get("StartAt", "")
    names = [start, *(name for name in states if name != start)] if start in states else list(states)
    boxes = [_Box("Start", None)] if depth == 0 else []
    places = {}
    for name in names:
        places[name] = len(boxes)
        boxes.append(_box(name, states[name], depth))
    edges = [_Edge(0, places[start])] if depth == 0 and start in places else []
    for name in names:
        edges += [
            _Edge(places[name], places[target], _clipped(label, LABEL_CHARS), kind)
            for target, label, kind in _targets(states[name])
            if target in places
        ]
    if depth == 0:
        boxes.append(_Box("End", None))
        edges += [_Edge(places[name], len(boxes) - 1) for name in names if _is_last(states[name])]
    links = [Link(edge.tail, edge.head, len(edge.label) * 6.3 + 8 if edge.label else 0.0) for edge in edges]
    return _Graph(boxes, edges, arrange([(box.width, box.height) for box in boxes], links))


def _box(name: str, state: Mapping[str, Any], depth: int) -> _Box:
    # Wide enough for the name, and for the kind with the longest status word.
    letters = max(min(len(name), NAME_CHARS), len(_kind(state)) + 16)
    width = max(140.0, letters * 7.3 + 30)
    inner = _machines_within(state) if depth < DEPTH_LIMIT else []
    if not inner:
        return _Box(name, state, [], width, BOX_HEIGHT)
    branches = [_graph(machine, depth + 1) for machine in inner]
    inside = sum(branch.laid.width + PADDING for branch in branches) + PADDING
    tallest = max(branch.laid.height for branch in branches)
    return _Box(name, state, branches, max(width, inside), HEADER_HEIGHT + tallest + 2 * PADDING)


def _targets(state: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (state, label, kind of link) for everywhere a state can lead."""
    if state.get("Type") == "Choice":
        for rule in state.get("Choices", ()):
            yield rule.get("Next", ""), condition(rule), "choice"
        if "Default" in state:
            yield state["Default"], "otherwise", "choice"
    elif "Next" in state:
        yield state["Next"], "", "next"
    for catcher in state.get("Catch", ()):
        errors = catcher.get("ErrorEquals", ())
        yield catcher.get("Next", ""), "catch " + ", ".join(_error(name) for name in errors), "catch"


def _error(name: str) -> str:
    return "any error" if name == "States.ALL" else str(name)


def _is_last(state: Mapping[str, Any]) -> bool:
    return bool(state.get("End")) or state.get("Type") in ("Succeed", "Fail")


def condition(rule: Mapping[str, Any]) -> str:
    """Return a rule of a Choice for reading: `$.size > 10`."""
    if "Condition" in rule:
        return str(rule["Condition"]).removeprefix("{%").removesuffix("%}").strip()
    for name, word in (("And", " and "), ("Or", " or ")):
        if name in rule:
            return word.join(condition(part) for part in rule[name])
    if "Not" in rule:
        return f"not ({condition(rule['Not'])})"
    variable = str(rule.get("Variable", ""))
    for name, value in rule.items():
        if name.startswith("Is") and isinstance(value, bool):
            return f"{variable} {'is' if value else 'is not'} {name[2:].lower()}"
        for kind in ("String", "Numeric", "Boolean", "Timestamp"):
            sign = _COMPARISONS.get(name.removeprefix(kind)) if name.startswith(kind) else None
            if sign:
                return f"{variable} {sign} {json.dumps(value, ensure_ascii=False)}"
    return variable


# ── from boxes to SVG ────────────────────────────────────────────────────────────────────────────────────────────────


def _drawn(graph: _Graph, x: float, y: float, outcomes: Mapping[str, StateOutcome]) -> Iterator[Markup]:
    laid = graph.laid
    for edge, route, label in zip(graph.edges, laid.routes, laid.labels, strict=True):
        yield Markup('<path class="edge {}{}" d="{}" marker-end="url(#arrow)"/>').format(
            edge.kind, " taken" if _taken(graph, edge, outcomes) else "", _path(route, x, y)
        )
        if label is not None:
            yield Markup('<text class="edge-label" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
                x + label[0], y + label[1] + 4, edge.label
            )
    for box, (left, top) in zip(graph.boxes, laid.corners, strict=True):
        yield from _drawn_box(box, x + left, y + top, outcomes)


def _drawn_box(box: _Box, x: float, y: float, outcomes: Mapping[str, StateOutcome]) -> Iterator[Markup]:
    if box.state is None:
        yield Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(
            x + DOT / 2, y + DOT / 2, DOT / 2 - 1
        )
        yield Markup('<text class="dot-name" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
            x + DOT / 2, y + DOT / 2 + 3, box.name
        )
        return
    outcome = outcomes.get(box.name)
    status = outcome.status if outcome else ""
    told = f"{GLYPHS.get(status, '•')} {words(status)}" if status else ""
    if outcome and len(outcome.visits) > 1:
        told += f" ×{len(outcome.visits)}"
    holds = " holds" if box.branches else ""
    yield Markup(
        '<a class="state state-{}{}" href="#state-{}"><title>{}: {}{}</title>'
        '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="7"/>'
        '<text class="name" x="{:.1f}" y="{:.1f}">{}</text>'
        '<text class="kind" x="{:.1f}" y="{:.1f}">{}</text>'
        '<text class="word" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text></a>'
    ).format(
        status.lower() or "waiting", holds, anchor(box.name), box.name, _kind(box.state), f", {words(status)}" if status else "",
        x, y, box.width, box.height,
        x + 12, y + 19, _clipped(box.name, NAME_CHARS),
        x + 12, y + 36, _kind(box.state),
        x + box.width - 12, y + 36, told,
    )  # fmt: skip
    inside = sum(branch.laid.width + PADDING for branch in box.branches) + PADDING
    left = x + PADDING + (box.width - inside) / 2
    for branch in box.branches:
        yield from _drawn(branch, left, y + HEADER_HEIGHT + PADDING / 2, outcomes)
        left += branch.laid.width + PADDING


def _taken(graph: _Graph, edge: _Edge, outcomes: Mapping[str, StateOutcome]) -> bool:
    """Whether an execution went this way; a caught error leads to its catcher."""
    tail, head = graph.boxes[edge.tail], graph.boxes[edge.head]
    if tail.state is None:
        return head.name in outcomes
    outcome = outcomes.get(tail.name)
    if outcome is None:
        return False
    statuses = {visit.status for visit in outcome.visits}
    if head.state is None:
        return tail.state.get("Type") == "Fail" or "SUCCEEDED" in statuses
    entered = outcomes.get(head.name)
    if entered is None or all(visit.came_from != tail.name for visit in entered.visits):
        return False
    return "CAUGHT" in statuses if edge.kind == "catch" else "SUCCEEDED" in statuses


def _path(route: Sequence[Point], x: float, y: float) -> str:
    """Return a link as curves that leave and enter boxes upright."""
    (first_x, first_y), *rest = route
    drawn = [f"M{x + first_x:.1f} {y + first_y:.1f}"]
    last_x, last_y = first_x, first_y
    for to_x, to_y in rest:
        middle = (last_y + to_y) / 2
        if abs(to_x - last_x) < 0.5:
            drawn.append(f"L{x + to_x:.1f} {y + to_y:.1f}")
        else:
            drawn.append(
                f"C{x + last_x:.1f} {y + middle:.1f} {x + to_x:.1f} {y + middle:.1f} {x + to_x:.1f} {y + to_y:.1f}"
            )
        last_x, last_y = to_x, to_y
    return "".join(drawn)


def _kind(state: Mapping[str, Any]) -> str:
    """Return a state's type for its box; a task says what it calls."""
    kind = str(state.get("Type", ""))
    if kind == "Task":
        resource = str(state.get("Resource", ""))
        called = resource.split(":states:::", 1)[-1] if ":states:::" in resource else resource.rsplit(":", 1)[-1]
        return _clipped(called.removeprefix("aws-sdk:"), 26) or kind
    if kind == "Map":
        mode = (state.get("ItemProcessor") or {}).get("ProcessorConfig", {}).get("Mode", "")
        return "Map (distributed)" if mode == "DISTRIBUTED" else kind
    return kind


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
