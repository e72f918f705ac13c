"""Checks the transitions of a workflow: every target exists, an end exists, every state can be reached.

Works on the JSON, so that states in any query language are checked alike. What each finding says and which suppresses
which is AWS's: dangling targets first, then a missing end, and unreachable states only where there is an end.
"""

from collections.abc import Iterator

from .diagnostics import MISSING_END_STATE, MISSING_TRANSITION_TARGET, Findings
from .evaluation import Json


def check_graph(start_at: str, states: dict[str, Json], location: str, findings: Findings) -> None:
    """Note what is wrong with the transitions. `location` is the place of the object that has StartAt and States."""
    base = location.rstrip("/")
    if start_at not in states:
        _note_missing(start_at, f"{base}/StartAt", findings)
    targets: dict[str, list[str]] = {}
    for name, state in states.items():
        found = list(_targets(state, f"{base}/States/{name}"))
        targets[name] = [target for target, _ in found]
        for target, place in found:
            if target not in states:
                _note_missing(target, place, findings)
    if not any(_is_end(state) for state in states.values()):
        findings.error("Workflow has no terminal state", None, MISSING_END_STATE)
    elif start_at in states:
        _check_reachable(start_at, targets, base, findings)


def _note_missing(target: str, place: str, findings: Findings) -> None:
    findings.error(f"Missing 'Next' target: {target[:200]}", place, MISSING_TRANSITION_TARGET)


def _check_reachable(start_at: str, targets: dict[str, list[str]], base: str, findings: Findings) -> None:
    reached: set[str] = set()
    pending = [start_at]
    while pending:
        name = pending.pop()
        if name in targets and name not in reached:
            reached.add(name)
            pending.extend(targets[name])
    for name in targets:
        if name not in reached:
            findings.error(f'State "{name}" is not reachable.', f"{base}/States/{name}", MISSING_TRANSITION_TARGET)


def _is_end(state: Json) -> bool:
    return isinstance(state, dict) and (state.get("End") is True or state.get("Type") in ("Succeed", "Fail"))


def _targets(state: Json, place: str) -> Iterator[tuple[str, str]]:
    """Yield each target of a state with the place that names it."""
    if not isinstance(state, dict):
        return
    for field in ("Next", "Default"):
        if isinstance(state.get(field), str):
            yield state[field], f"{place}/{field}"
    for field in ("Choices", "Catch"):
        entries = state.get(field)
        for number, entry in enumerate(entries if isinstance(entries, list) else []):
            if isinstance(entry, dict) and isinstance(entry.get("Next"), str):
                yield entry["Next"], f"{place}/{field}[{number}]/Next"
