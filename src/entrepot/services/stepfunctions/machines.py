"""State machines: what they are, their rows, and the rules for creating and changing them.

Functions take the transaction or reader first. Source:
https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html
"""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from entrepot import arns, clock
from entrepot.arns import Account
from entrepot.database import Reader, Transaction

from .errors import (
    InvalidArn,
    InvalidDefinitionError,
    InvalidLoggingConfiguration,
    InvalidName,
    StateMachineAlreadyExists,
    StateMachineDoesNotExist,
    StateMachineLimitExceeded,
    StateMachineTypeNotSupported,
    TooManyTags,
    ValidationException,
)
from .language import InvalidDefinition, StateMachine, parse

MACHINE_LIMIT = 10_000
"""State machines of an account. Source: Step Functions' service quotas."""

TAG_LIMIT = 50
"""Tags of a state machine. Source: Step Functions' service quotas."""

LEVELS = ("ALL", "ERROR", "FATAL", "OFF")

_FORBIDDEN = re.compile(r"[\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Logging:
    """A logging configuration. `log_group_name` None means /aws/vendedlogs/states/NAME."""

    level: str = "OFF"
    include_execution_data: bool = False
    log_group_name: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """A state machine with the revision that new executions run."""

    id: int
    name: str
    arn: str
    type: str
    revision_id: int
    definition: str
    role_arn: str
    logging: Logging
    tracing: str
    created_at_ms: int
    updated_at_ms: int
    tags: Mapping[str, str]
    deleted_at_ms: int | None = None

    @property
    def revision(self) -> str:
        """AWS's revisionId: changes with every update; before the first one it is told as absent, or INITIAL."""
        return f"{self.revision_id:08x}-0000-4000-8000-{self.id:012x}"

    @property
    def log_group_name(self) -> str:
        """Where executions are logged."""
        return self.logging.log_group_name or f"/aws/vendedlogs/states/{self.name}"


def check_name(name: str) -> None:
    """Raise InvalidName unless `name` is one that machines and executions may have."""
    if not 1 <= len(name) <= 80 or _FORBIDDEN.search(name):
        raise InvalidName(f"Invalid Name: '{name}'")


def split_arn(arn: str) -> tuple[str, str]:
    """Return (name, qualifier) of a state machine's ARN; the qualifier is a version's number, an alias, or empty.

    Raises InvalidArn, and ValidationException for what names a distributed Map inside a state machine.
    """
    try:
        parsed = arns.parse(arn)
    except ValueError:
        raise InvalidArn(f"Invalid Arn: '{arn}'") from None
    kind, _, name = parsed.resource.partition(":")
    if parsed.service != "states" or kind != "stateMachine" or not name:
        raise InvalidArn(f"Invalid Arn: 'Resource type not valid in this context: {kind}'")
    name, _, qualifier = name.partition(":")
    if "/" in name:
        raise ValidationException(f"Invalid Arn: '{arn}': an ARN with the label of a Map is not valid here.")
    if ":" in qualifier:
        raise InvalidArn(f"Invalid Arn: '{arn}'")
    return name, qualifier


def check_role(role_arn: str) -> None:
    """Raise InvalidArn unless this is a role's ARN."""
    try:
        parsed = arns.parse(role_arn)
    except ValueError:
        parsed = None
    if parsed is None or parsed.service != "iam" or not parsed.resource.startswith("role/"):
        raise InvalidArn(f"Invalid Role Arn: '{role_arn}'")


def check_definition(definition: str, type_: str) -> StateMachine:
    """Return the parsed definition. Raises InvalidDefinitionError with AWS's text."""
    try:
        return parse(definition, express=type_ == "EXPRESS")
    except InvalidDefinition as error:
        raise InvalidDefinitionError(str(error)) from error


def check_logging(level: str, include_execution_data: bool, log_group_arn: str | None) -> Logging:
    """Return a logging configuration. Raises InvalidLoggingConfiguration."""
    if level not in LEVELS:
        raise InvalidLoggingConfiguration(f"Invalid Logging Configuration: level must be one of {', '.join(LEVELS)}.")
    group = None
    if log_group_arn is not None:
        _, found, group = log_group_arn.partition(":log-group:")
        group = group.removesuffix(":*")
        if not found or not group:
            raise InvalidLoggingConfiguration(
                f"Invalid Logging Configuration: '{log_group_arn}' is no log group's ARN."
            )
    return Logging(level, include_execution_data, group)


_COLUMNS = """
    m.id, m.name, m.type, m.revision_id, m.created_at_ms, m.deleted_at_ms, m.tags,
    r.definition, r.role_arn, r.logging, r.tracing, r.updated_at_ms
"""


@functools.lru_cache(maxsize=128)
def _machine(account: Account, row: tuple[Any, ...]) -> Machine:
    """Return the state machine of a row; the same for the same row, so that all its executions share the definition."""
    (id_, name, type_, revision_id, created_at_ms, deleted_at_ms, tags, definition, role_arn, logging, tracing,
     updated_at_ms) = row  # fmt: skip
    arn = account.arn("states", f"stateMachine:{name}")
    return Machine(id_, name, arn, type_, revision_id, definition, role_arn, Logging(*json.loads(logging)), tracing,
                   created_at_ms, updated_at_ms, json.loads(tags), deleted_at_ms)  # fmt: skip


def find(reader: Reader, account: Account, name: str) -> Machine | None:
    """Return the state machine of this name, or None."""
    row = reader.one(
        f"SELECT {_COLUMNS} FROM state_machine m JOIN state_machine_revision r ON r.id = m.revision_id "  # noqa: S608
        "WHERE m.name = ? AND m.deleted_at_ms IS NULL",
        (name,),
    )
    return None if row is None else _machine(account, row)


def get(reader: Reader, account: Account, arn: str) -> Machine:
    """Return the state machine of this ARN.

    Raises InvalidArn, StateMachineDoesNotExist; ValidationException for the ARN of a version or alias.
    """
    name, qualifier = split_arn(arn)
    if qualifier:
        raise ValidationException(f"Invalid Arn: '{arn}': the ARN of a version or an alias is not valid here.")
    machine = find(reader, account, name) if account.arn("states", f"stateMachine:{name}") == arn else None
    if machine is None:
        raise StateMachineDoesNotExist(f"State Machine Does Not Exist: '{arn}'")
    return machine


def has_first_revision(reader: Reader, machine: Machine) -> bool:
    """Whether the state machine's revision is the one that it was created with; AWS gives that no id."""
    row = reader.one("SELECT MIN(id) FROM state_machine_revision WHERE state_machine_id = ?", (machine.id,))
    return row is not None and row[0] == machine.revision_id


def of_revision(reader: Reader, account: Account, revision_id: int) -> Machine:
    """Return the state machine as it was in a revision, also when it was deleted since."""
    row = reader.one(
        f"SELECT {_COLUMNS} FROM state_machine_revision r JOIN state_machine m ON m.id = r.state_machine_id "  # noqa: S608
        "WHERE r.id = ?",
        (revision_id,),
    )
    assert row is not None, revision_id
    machine = _machine(account, row)
    return machine if machine.revision_id == revision_id else replace(machine, revision_id=revision_id)


def page(reader: Reader, account: Account, after: str, limit: int) -> list[Machine]:
    """Return up to `limit` state machines whose names come after `after`, without those of distributed Maps."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM state_machine m JOIN state_machine_revision r ON r.id = m.revision_id "  # noqa: S608
        "WHERE m.name > ? AND m.name NOT LIKE '%/%' AND m.deleted_at_ms IS NULL ORDER BY m.name LIMIT ?",
        (after, limit),
    )
    return [_machine(account, row) for row in rows]


def _next_id(reader: Reader, table: str) -> int:
    row = reader.one(f"SELECT id FROM {table} ORDER BY id DESC LIMIT 1")  # noqa: S608
    return 1 if row is None else int(row[0]) + 1


def _add_revision(
    tx: Transaction, machine_id: int, definition: str, role_arn: str, logging: Logging, tracing: str
) -> int:
    revision_id = _next_id(tx, "state_machine_revision")
    kept = json.dumps([logging.level, logging.include_execution_data, logging.log_group_name])
    tx.execute(
        "INSERT INTO state_machine_revision "
        "(id, state_machine_id, definition, role_arn, logging, tracing, updated_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (revision_id, machine_id, definition, role_arn, kept, tracing, clock.now_ms()),
    )
    return revision_id


def create(
    tx: Transaction,
    account: Account,
    *,
    name: str,
    definition: str,
    role_arn: str,
    type_: str = "STANDARD",
    logging: Logging | None = None,
    tracing: str = "{}",
    tags: Mapping[str, str] | None = None,
) -> Machine:
    """Create a state machine, or return the one that is the same.

    Raises InvalidName, InvalidArn, InvalidDefinitionError, StateMachineAlreadyExists, StateMachineLimitExceeded.
    """
    logging = logging or Logging()
    check_name(name)
    check_role(role_arn)
    check_definition(definition, type_)
    if type_ not in ("STANDARD", "EXPRESS"):
        raise StateMachineTypeNotSupported(f"The type must be STANDARD or EXPRESS, not '{type_}'.")
    if len(tags or {}) > TAG_LIMIT:
        raise TooManyTags(f"A state machine can have {TAG_LIMIT} tags.")
    found = find(tx, account, name)
    if found is not None:
        if (found.definition, found.type, found.logging, found.tracing) == (definition, type_, logging, tracing):
            return found
        raise StateMachineAlreadyExists(f"State Machine Already Exists: '{found.arn}'")
    if _next_id(tx, "state_machine") > MACHINE_LIMIT:
        row = tx.one("SELECT COUNT(*) FROM state_machine WHERE deleted_at_ms IS NULL AND name NOT LIKE '%/%'")
        if row is not None and row[0] >= MACHINE_LIMIT:
            raise StateMachineLimitExceeded(f"There are {MACHINE_LIMIT} state machines already.")
    insert(tx, name, definition, role_arn, type_, logging, tracing, tags or {})
    created = find(tx, account, name)
    assert created is not None
    return created


def insert(
    tx: Transaction,
    name: str,
    definition: str,
    role_arn: str,
    type_: str,
    logging: Logging,
    tracing: str = "{}",
    tags: Mapping[str, str] | None = None,
) -> None:
    """Insert a state machine that was checked, or that of a distributed Map, `MACHINE/LABEL`."""
    machine_id = _next_id(tx, "state_machine")
    revision_id = _add_revision(tx, machine_id, definition, role_arn, logging, tracing)
    tx.execute(
        "INSERT INTO state_machine (id, name, type, revision_id, created_at_ms, deleted_at_ms, tags) "
        "VALUES (?, ?, ?, ?, ?, NULL, ?)",
        (machine_id, name, type_, revision_id, clock.now_ms(), json.dumps(dict(tags or {}))),
    )


def update(
    tx: Transaction,
    machine: Machine,
    *,
    definition: str | None = None,
    role_arn: str | None = None,
    logging: Logging | None = None,
    tracing: str | None = None,
) -> tuple[int, int]:
    """Change what is given, for executions that start from now on; return (revision id, updated at, ms).

    The same values again change nothing. Raises InvalidArn, InvalidDefinitionError.
    """
    if definition is not None and definition != machine.definition:
        check_definition(definition, machine.type)
    if role_arn is not None:
        check_role(role_arn)
    wanted = replace(
        machine,
        definition=machine.definition if definition is None else definition,
        role_arn=machine.role_arn if role_arn is None else role_arn,
        logging=machine.logging if logging is None else logging,
        tracing=machine.tracing if tracing is None else tracing,
    )
    if wanted == machine:
        return machine.revision_id, clock.now_ms()
    revision_id = _add_revision(tx, machine.id, wanted.definition, wanted.role_arn, wanted.logging, wanted.tracing)
    tx.execute("UPDATE state_machine SET revision_id = ? WHERE id = ?", (revision_id, machine.id))
    return revision_id, clock.now_ms()


def delete(tx: Transaction, machine: Machine) -> None:
    """Delete a state machine. Its executions go on to their end and can still be looked at."""
    tx.execute("UPDATE state_machine SET deleted_at_ms = ? WHERE id = ?", (clock.now_ms(), machine.id))


def set_tags(tx: Transaction, machine: Machine, tags: Mapping[str, str]) -> None:
    """Replace the tags. Raises TooManyTags."""
    if len(tags) > TAG_LIMIT:
        raise TooManyTags(f"A state machine can have {TAG_LIMIT} tags.")
    tx.execute("UPDATE state_machine SET tags = ? WHERE id = ?", (json.dumps(dict(tags)), machine.id))
