"""The rules of each bus, compiled, as a transaction sees them; compiled anew only when the bus's rules have changed."""

import functools
from dataclasses import dataclass

from entrepot.database import Reader
from entrepot.services.events import archives
from entrepot.services.events.archives import Archive
from entrepot.services.events.index import PatternIndex
from entrepot.services.events.pattern import EventPattern
from entrepot.services.events.rules import Rule, Rules, Target

PATTERNS_REMEMBERED = 4096
"""Patterns that are kept compiled, so that one changed rule does not cost compiling all others. Those with `$or`, which can
be large once they are multiplied out, are not."""

BUSES_REMEMBERED = 128
"""Buses whose rules are kept compiled; there are at most 100."""

_remembered = functools.lru_cache(maxsize=PATTERNS_REMEMBERED)(EventPattern.parse)


def _compiled(text: str) -> EventPattern:
    return EventPattern.parse(text) if "$or" in text else _remembered(text)


@dataclass(frozen=True, slots=True)
class BusRules:
    """What happens to an event of a bus: `index` finds the enabled rules that it matches, `archives` who keeps it
    (None: nobody). `by_name` has all rules with their targets."""

    index: PatternIndex[Rule]
    by_name: dict[str, Rule]
    archives: PatternIndex[Archive] | None

    def target(self, rule_name: str, target_id: str) -> tuple[Rule, Target] | None:
        """Return a rule and one of its targets; None when either is gone."""
        rule = self.by_name.get(rule_name)
        for target in () if rule is None else rule.targets:
            if target.target_id == target_id:
                assert rule is not None
                return rule, target
        return None


class Rulebook:
    """Compiles the rules of buses and remembers them by their version's token."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._buses: dict[str, tuple[str, BusRules]] = {}

    def of(self, reader: Reader, bus_name: str) -> BusRules:
        """Return the rules of a bus as this transaction sees them."""
        version = self._rules.version(reader, bus_name)
        kept = self._buses.get(bus_name)
        if kept is None or kept[0] != version:
            if len(self._buses) >= BUSES_REMEMBERED:
                self._buses.clear()
            kept = self._buses[bus_name] = (version, self._compile(reader, bus_name))
        return kept[1]

    def _compile(self, reader: Reader, bus_name: str) -> BusRules:
        rules = self._rules.all(reader, bus_name)
        enabled = [
            (_compiled(rule.event_pattern), rule) for rule in rules if rule.state == "ENABLED" and rule.event_pattern
        ]
        keeping = [
            (_compiled(archive.event_pattern or archives.ANY_EVENT), archive)
            for archive in archives.of_bus(reader, bus_name)
        ]
        return BusRules(
            PatternIndex(enabled), {rule.name: rule for rule in rules}, PatternIndex(keeping) if keeping else None
        )
