"""Rules and their targets: values, and the tables that hold them.

Quotas as AWS's: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrepot import clock, ids
from entrepot.database import Reader, Row, Transaction
from entrepot.services.events import due_times
from entrepot.services.events.errors import ResourceNotFoundError

DEFAULT_BUS = "default"

RULES_LIMIT = 2000
"""Rules on one event bus. AWS begins with 300 and raises that on request; matching costs no more with 2,000."""

TARGETS_LIMIT = 5
"""Targets of one rule."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a delivery is tried. Source: https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_RetryPolicy.html"""

    maximum_retry_attempts: int = 185
    maximum_event_age_s: int = 86_400


@dataclass(frozen=True, slots=True)
class Target:
    """One target of a rule. `definition` is AWS's shape of it, as PutTargets got it.

    At most one of `input`, `input_path` and `input_template` is set; none of them: the event as it is.
    """

    target_id: str
    arn: str
    role_arn: str | None
    input: str | None
    input_path: str | None
    input_template: str | None
    input_paths: Mapping[str, str]
    retry_policy: RetryPolicy
    dead_letter_arn: str | None
    definition: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a bus. `state` is ENABLED or DISABLED; `targets` are filled where the rule was loaded to match.

    It has an `event_pattern`, a `schedule_expression` or both; '' is none.
    """

    bus_name: str
    name: str
    arn: str
    event_pattern: str
    state: str
    description: str
    role_arn: str
    targets: tuple[Target, ...] = ()
    schedule_expression: str = ""


def target_of(definition: Mapping[str, Any]) -> Target:
    """Return the target that AWS's shape describes (validated before)."""
    transformer = definition.get("InputTransformer") or {}
    policy = definition.get("RetryPolicy") or {}
    return Target(
        definition["Id"],
        definition["Arn"],
        definition.get("RoleArn"),
        definition.get("Input"),
        definition.get("InputPath"),
        transformer.get("InputTemplate"),
        transformer.get("InputPathsMap") or {},
        RetryPolicy(policy.get("MaximumRetryAttempts", 185), policy.get("MaximumEventAgeInSeconds", 86_400)),
        (definition.get("DeadLetterConfig") or {}).get("Arn"),
        definition,
    )


def require_bus(reader: Reader, bus_name: str) -> None:
    """Raise ResourceNotFoundError unless the bus exists."""
    if reader.one("SELECT 1 FROM events_bus WHERE name = ?", (bus_name,)) is None:
        raise ResourceNotFoundError(f"Event bus {bus_name} does not exist.")


_COLUMNS = "bus_name, name, event_pattern, state, description, role_arn, schedule_expression"


class Rules:
    """The table of rules and targets; `rule_arn` names a rule (`rule/NAME` on the default bus, else `rule/BUS/NAME`)."""

    def __init__(self, arn_prefix: str) -> None:
        self._arn_prefix = arn_prefix

    def rule_arn(self, bus_name: str, name: str) -> str:
        """Return the ARN of a rule."""
        return f"{self._arn_prefix}{name}" if bus_name == DEFAULT_BUS else f"{self._arn_prefix}{bus_name}/{name}"

    def parse_arn(self, rule_arn: str) -> tuple[str, str]:
        """Return (bus name, rule name) of a rule's ARN."""
        bus_name, _, name = rule_arn.removeprefix(self._arn_prefix).rpartition("/")
        return bus_name or DEFAULT_BUS, name

    def _rule(self, row: Row, targets: tuple[Target, ...] = ()) -> Rule:
        bus_name, name, event_pattern, state, description, role_arn, schedule_expression = row
        arn = self.rule_arn(bus_name, name)
        return Rule(bus_name, name, arn, event_pattern, state, description, role_arn, targets, schedule_expression)

    def get(self, reader: Reader, bus_name: str, name: str) -> Rule:
        """Return the rule without its targets; raise ResourceNotFoundError."""
        row = reader.one(f"SELECT {_COLUMNS} FROM events_rule WHERE bus_name = ? AND name = ?", (bus_name, name))  # noqa: S608
        if row is None:
            require_bus(reader, bus_name)
            raise ResourceNotFoundError(f"Rule {name} does not exist on EventBus {bus_name}.")
        return self._rule(row)

    def all(self, reader: Reader, bus_name: str) -> list[Rule]:
        """Return all rules of a bus (at most RULES_LIMIT), by name, with their targets."""
        targets: dict[str, list[Target]] = {}
        for rule_name, definition in reader.all(
            "SELECT rule_name, definition FROM events_target WHERE bus_name = ? ORDER BY rule_name, target_id",
            (bus_name,),
        ):
            targets.setdefault(rule_name, []).append(target_of(json.loads(definition)))
        rows = reader.all(f"SELECT {_COLUMNS} FROM events_rule WHERE bus_name = ? ORDER BY name", (bus_name,))  # noqa: S608
        return [self._rule(row, tuple(targets.get(row[1], ()))) for row in rows]

    def put(self, tx: Transaction, rule: Rule) -> None:
        """Create or replace a rule; its targets stay."""
        tx.execute(
            f"INSERT INTO events_rule ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (bus_name, name) DO UPDATE SET "  # noqa: S608
            "event_pattern = excluded.event_pattern, state = excluded.state, description = excluded.description, "
            "role_arn = excluded.role_arn, schedule_expression = excluded.schedule_expression",
            (
                rule.bus_name,
                rule.name,
                rule.event_pattern,
                rule.state,
                rule.description,
                rule.role_arn,
                rule.schedule_expression,
            ),
        )
        self._settle(tx, rule.bus_name, rule.name, rule.state, rule.schedule_expression)
        self.changed(tx, rule.bus_name)

    def _settle(self, tx: Transaction, bus_name: str, name: str, state: str, expression: str) -> None:
        due_times.settle(tx, bus_name, name, expression if state == "ENABLED" else "", clock.now_ms())

    def set_state(self, tx: Transaction, bus_name: str, name: str, state: str) -> None:
        """Enable or disable a rule."""
        rule = self.get(tx, bus_name, name)
        self._settle(tx, bus_name, name, state, rule.schedule_expression)
        tx.execute("UPDATE events_rule SET state = ? WHERE bus_name = ? AND name = ?", (state, bus_name, name))
        self.changed(tx, bus_name)

    def delete(self, tx: Transaction, bus_name: str, name: str) -> None:
        """Delete a rule that has no targets."""
        self._settle(tx, bus_name, name, "DISABLED", "")
        tx.execute("DELETE FROM events_rule WHERE bus_name = ? AND name = ?", (bus_name, name))
        self.changed(tx, bus_name)

    def targets(self, reader: Reader, bus_name: str, name: str) -> list[Target]:
        """Return the targets of a rule, by id."""
        rows = reader.all(
            "SELECT definition FROM events_target WHERE bus_name = ? AND rule_name = ? ORDER BY target_id",
            (bus_name, name),
        )
        return [target_of(json.loads(definition)) for (definition,) in rows]

    def put_target(self, tx: Transaction, bus_name: str, name: str, target: Target) -> None:
        """Add a target to a rule, or replace the one with its id."""
        definition = json.dumps(target.definition, ensure_ascii=False, separators=(",", ":"))
        tx.execute(
            "INSERT INTO events_target (bus_name, rule_name, target_id, arn, definition) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (bus_name, rule_name, target_id) DO UPDATE SET arn = excluded.arn, "
            "definition = excluded.definition",
            (bus_name, name, target.target_id, target.arn, definition),
        )
        self.changed(tx, bus_name)

    def remove_target(self, tx: Transaction, bus_name: str, name: str, target_id: str) -> bool:
        """Remove a target; return whether there was one."""
        changed = tx.execute(
            "DELETE FROM events_target WHERE bus_name = ? AND rule_name = ? AND target_id = ?",
            (bus_name, name, target_id),
        )
        self.changed(tx, bus_name)
        return changed > 0

    def names_by_target(self, reader: Reader, bus_name: str, target_arn: str) -> list[str]:
        """Return the names of the rules that have a target with this ARN, sorted."""
        rows = reader.all(
            "SELECT DISTINCT rule_name FROM events_target WHERE bus_name = ? AND arn = ? ORDER BY rule_name",
            (bus_name, target_arn),
        )
        return [name for (name,) in rows]

    def version(self, reader: Reader, bus_name: str) -> str:
        """Return the token of the bus's rules; another token means other rules."""
        row = reader.one("SELECT token FROM events_rules_version WHERE bus_name = ?", (bus_name,))
        return "" if row is None else str(row[0])

    def changed(self, tx: Transaction, bus_name: str) -> None:
        """Make everybody compile the rules and archives of a bus anew."""
        # Random, not counted: a token of a transaction that was rolled back never comes again.
        tx.execute(
            "INSERT INTO events_rules_version (bus_name, token) VALUES (?, ?) "
            "ON CONFLICT (bus_name) DO UPDATE SET token = excluded.token",
            (bus_name, ids.random_hex(16)),
        )
