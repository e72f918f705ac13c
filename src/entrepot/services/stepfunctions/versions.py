"""Versions of state machines, numbered snapshots of a revision, and aliases, names that lead to one or two of them.

Functions take the transaction or reader first. Source:
https://docs.aws.amazon.com/step-functions/latest/dg/concepts-cd-aliasing-versioning.html
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Reader, Transaction, Value

from . import machines
from .errors import (
    ConflictException,
    InvalidArn,
    InvalidName,
    ResourceNotFound,
    ServiceQuotaExceededException,
    StateMachineDoesNotExist,
    ValidationException,
)
from .executions import Summary, execution_arn
from .machines import Machine

VERSION_LIMIT = 1_000
"""Versions of a state machine. Source: Step Functions' service quotas."""

ALIAS_LIMIT = 100
"""Aliases of a state machine. Source: Step Functions' service quotas."""

INITIAL = "INITIAL"
"""The revisionId of a state machine that was never updated."""

_ALIAS_NAME = re.compile(r"(?=.*[A-Za-z_\-.])[A-Za-z0-9_\-.]{1,80}")


@dataclass(frozen=True, slots=True)
class Version:
    """A published revision."""

    arn: str
    machine_id: int
    number: int
    revision_id: int
    description: str
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class Route:
    """Where an alias leads, and with what weight out of 100."""

    version: int
    weight: int


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for one version, or for two with weights."""

    arn: str
    machine_id: int
    name: str
    description: str
    routes: tuple[Route, ...]
    created_at_ms: int
    updated_at_ms: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """What an ARN leads to: the state machine with the revision to run, and how it was named."""

    machine: Machine
    version: int | None = None
    alias: str | None = None


def resolve(reader: Reader, account: Account, arn: str, chance: float) -> Resolved:
    """Return what to run for the ARN of a state machine, a version or an alias.

    `chance` in [0, 1) chooses among the versions of an alias. Raises InvalidArn, StateMachineDoesNotExist.
    """
    name, qualifier = machines.split_arn(arn)
    if not qualifier:
        return Resolved(machines.get(reader, account, arn))
    machine = machines.find(reader, account, name)
    if machine is None or arn != f"{machine.arn}:{qualifier}":
        raise StateMachineDoesNotExist(f"State Machine Does Not Exist: '{arn}'")
    alias = None
    number = int(qualifier) if qualifier.isdecimal() else 0
    if not number:
        found = _find_alias(reader, machine, qualifier)
        if found is None:
            raise StateMachineDoesNotExist(f"State Machine Does Not Exist: '{arn}'")
        alias, number = found.name, _chosen(found.routes, chance)
    version = _find(reader, machine, number)
    if version is None:
        raise StateMachineDoesNotExist(f"State Machine Does Not Exist: '{arn}'")
    snapshot = replace(machines.of_revision(reader, account, version.revision_id), tags=machine.tags)
    return Resolved(snapshot, number, alias)


def _chosen(routes: Sequence[Route], chance: float) -> int:
    left = chance * 100
    for route in routes:
        if left < route.weight:
            return route.version
        left -= route.weight
    return routes[-1].version


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def publish(
    tx: Transaction, account: Account, machine: Machine, description: str = "", revision: str | None = None
) -> Version:
    """Return a version of the state machine's revision: a new one, or the one that was published of it already.

    Raises ConflictException when the state machine is not at `revision`, ServiceQuotaExceededException.
    """
    if revision is not None:
        current = INITIAL if machines.has_first_revision(tx, machine) else machine.revision
        if revision not in (current, machine.revision):
            raise ConflictException(
                f"Failed to publish the State Machine version for revision {revision}. "
                f"The current State Machine revision is {current}."
            )
    last = tx.one(
        f"SELECT {_COLUMNS} FROM state_machine_version WHERE state_machine_id = ? AND deleted_at_ms IS NULL "  # noqa: S608
        "ORDER BY number DESC LIMIT 1",
        (machine.id,),
    )
    if last is not None and last[2] == machine.revision_id:
        return _version(machine, last)
    row = tx.one(
        "SELECT COALESCE(MAX(number), 0), SUM(deleted_at_ms IS NULL) FROM state_machine_version "
        "WHERE state_machine_id = ?",
        (machine.id,),
    )
    assert row is not None
    if (row[1] or 0) >= VERSION_LIMIT:
        raise ServiceQuotaExceededException(f"A state machine can have {VERSION_LIMIT} versions.")
    number, now_ms = row[0] + 1, clock.now_ms()
    tx.execute(
        "INSERT INTO state_machine_version (state_machine_id, number, revision_id, description, created_at_ms) "
        "VALUES (?, ?, ?, ?, ?)",
        (machine.id, number, machine.revision_id, description, now_ms),
    )
    return Version(f"{machine.arn}:{number}", machine.id, number, machine.revision_id, description, now_ms)


_COLUMNS = "state_machine_id, number, revision_id, description, created_at_ms"


def _version(machine: Machine, row: tuple[Any, ...]) -> Version:
    machine_id, number, revision_id, description, created_at_ms = row
    return Version(f"{machine.arn}:{number}", machine_id, number, revision_id, description, created_at_ms)


def _find(reader: Reader, machine: Machine, number: int) -> Version | None:
    row = reader.one(
        f"SELECT {_COLUMNS} FROM state_machine_version "  # noqa: S608
        "WHERE state_machine_id = ? AND number = ? AND deleted_at_ms IS NULL",
        (machine.id, min(number, 1 << 62)),
    )
    return None if row is None else _version(machine, row)


def get(reader: Reader, account: Account, arn: str) -> Version:
    """Return the version of this ARN. Raises InvalidArn, StateMachineDoesNotExist."""
    name, qualifier = machines.split_arn(arn)
    machine = machines.find(reader, account, name)
    version = None
    if machine is not None and qualifier.isdecimal():
        version = _find(reader, machine, int(qualifier))
    if version is None or version.arn != arn:
        raise StateMachineDoesNotExist(f"State Machine Does Not Exist: '{arn}'")
    return version


def page(reader: Reader, machine: Machine, before: int, limit: int) -> list[Version]:
    """Return up to `limit` versions with numbers below `before`, the newest first."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM state_machine_version "  # noqa: S608
        "WHERE state_machine_id = ? AND number < ? AND deleted_at_ms IS NULL ORDER BY number DESC LIMIT ?",
        (machine.id, before, limit),
    )
    return [_version(machine, row) for row in rows]


def delete(tx: Transaction, account: Account, arn: str) -> None:
    """Delete a version; one that is not there is no error. Executions of it go on.

    Raises InvalidArn, ConflictException when an alias leads to it.
    """
    _, qualifier = machines.split_arn(arn)
    if not qualifier.isdecimal():
        raise InvalidArn(f"Invalid Arn: '{arn}'")
    try:
        version = get(tx, account, arn)
    except StateMachineDoesNotExist:
        return
    machine = machines.of_revision(tx, account, version.revision_id)
    leading = [alias.name for alias in aliases(tx, machine) if _leads_to(alias, version.number)]
    if leading:
        raise ConflictException(
            "Version to be deleted must not be referenced by an alias. "
            f"Current list of aliases referencing this version: [{', '.join(leading)}]"
        )
    tx.execute(
        "UPDATE state_machine_version SET deleted_at_ms = ? WHERE state_machine_id = ? AND number = ?",
        (clock.now_ms(), version.machine_id, version.number),
    )


def delete_all(tx: Transaction, machine: Machine) -> None:
    """Delete the versions and aliases of a state machine that is deleted."""
    tx.execute("DELETE FROM state_machine_version WHERE state_machine_id = ?", (machine.id,))
    tx.execute("DELETE FROM state_machine_alias WHERE state_machine_id = ?", (machine.id,))


# ── aliases ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _leads_to(alias: Alias, number: int) -> bool:
    return any(route.version == number for route in alias.routes)


def _alias(machine: Machine, row: tuple[Any, ...]) -> Alias:
    name, description, routes, created_at_ms, updated_at_ms = row
    made = tuple(Route(version, weight) for version, weight in json.loads(routes))
    return Alias(f"{machine.arn}:{name}", machine.id, name, description, made, created_at_ms, updated_at_ms)


def _find_alias(reader: Reader, machine: Machine, name: str) -> Alias | None:
    row = reader.one(
        "SELECT name, description, routes, created_at_ms, updated_at_ms FROM state_machine_alias "
        "WHERE state_machine_id = ? AND name = ?",
        (machine.id, name),
    )
    return None if row is None else _alias(machine, row)


def get_alias(reader: Reader, account: Account, arn: str) -> tuple[Machine, Alias]:
    """Return an alias and its state machine. Raises InvalidArn, ResourceNotFound."""
    name, qualifier = machines.split_arn(arn)
    if not qualifier:
        raise InvalidArn(f"Invalid Arn: '{arn}'")
    machine = machines.find(reader, account, name)
    alias = None if machine is None else _find_alias(reader, machine, qualifier)
    if machine is None or alias is None or alias.arn != arn:
        raise ResourceNotFound("Request references a resource that does not exist.")
    return machine, alias


def aliases(reader: Reader, machine: Machine) -> list[Alias]:
    """Return the aliases of a state machine by name; there are at most `ALIAS_LIMIT`."""
    rows = reader.all(
        "SELECT name, description, routes, created_at_ms, updated_at_ms FROM state_machine_alias "
        "WHERE state_machine_id = ? ORDER BY name",
        (machine.id,),
    )
    return [_alias(machine, row) for row in rows]


def create_alias(
    tx: Transaction, account: Account, name: str, description: str, routing: Sequence[tuple[str, int]]
) -> Alias:
    """Create an alias, or return the one that is the same. `routing` has pairs of (version ARN, weight).

    Raises InvalidName, InvalidArn, ValidationException, ResourceNotFound, ConflictException,
    ServiceQuotaExceededException.
    """
    if not _ALIAS_NAME.fullmatch(name):
        raise InvalidName(f"Invalid Name: '{name}'")
    machine, routes = _routes(tx, account, routing)
    found = _find_alias(tx, machine, name)
    if found is not None:
        if (found.routes, found.description) == (routes, description):
            return found
        raise ConflictException(
            "Failed to create alias because an alias with the same name and a different routing configuration "
            "already exists."
        )
    if len(aliases(tx, machine)) >= ALIAS_LIMIT:
        raise ServiceQuotaExceededException(f"A state machine can have {ALIAS_LIMIT} aliases.")
    now_ms = clock.now_ms()
    tx.execute(
        "INSERT INTO state_machine_alias (state_machine_id, name, description, routes, created_at_ms, updated_at_ms) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (machine.id, name, description, _kept(routes), now_ms, now_ms),
    )
    return Alias(f"{machine.arn}:{name}", machine.id, name, description, routes, now_ms, now_ms)


def update_alias(
    tx: Transaction, account: Account, arn: str, description: str | None, routing: Sequence[tuple[str, int]] | None
) -> int:
    """Change what is given of an alias; return when (ms).

    Raises InvalidArn, ValidationException, ResourceNotFound.
    """
    machine, alias = get_alias(tx, account, arn)
    routes = alias.routes
    if routing is not None:
        owner, routes = _routes(tx, account, routing)
        if owner.id != machine.id:
            raise ValidationException("The routing configuration must have versions of the alias's own state machine.")
    now_ms = clock.now_ms()
    tx.execute(
        "UPDATE state_machine_alias SET description = ?, routes = ?, updated_at_ms = ? "
        "WHERE state_machine_id = ? AND name = ?",
        (alias.description if description is None else description, _kept(routes), now_ms, machine.id, alias.name),
    )
    return now_ms


def delete_alias(tx: Transaction, account: Account, arn: str) -> None:
    """Delete an alias. Raises InvalidArn, ResourceNotFound."""
    machine, alias = get_alias(tx, account, arn)
    tx.execute("DELETE FROM state_machine_alias WHERE state_machine_id = ? AND name = ?", (machine.id, alias.name))


def _kept(routes: Sequence[Route]) -> str:
    return json.dumps([[route.version, route.weight] for route in routes])


def _routes(reader: Reader, account: Account, routing: Sequence[tuple[str, int]]) -> tuple[Machine, tuple[Route, ...]]:
    """Return the state machine and the routes of a routing configuration, checked."""
    arns, weights = [arn for arn, _ in routing], [weight for _, weight in routing]
    if not 1 <= len(routing) <= 2:
        raise ValidationException("A routing configuration must have one or two state machine versions.")
    if sum(weights) != 100 or min(weights) < 0:
        raise ValidationException(
            f"Sum of routing configuration weights must equal 100. Received: {json.dumps(weights)}"
        )
    if len(set(arns)) != len(arns):
        raise ValidationException(
            f"Routing configuration must contain distinct state machine version ARNs. Received: [{', '.join(arns)}]"
        )
    if len({machines.split_arn(arn)[0] for arn in arns}) != 1:
        raise ValidationException(
            "Routing configuration must contain state machine version ARNs of the same state machine. "
            f"Received: [{', '.join(arns)}]"
        )
    found = []
    for arn in arns:
        if not machines.split_arn(arn)[1].isdecimal():
            raise InvalidArn(f"Invalid Arn: '{arn}': the ARN of a state machine version is required.")
        try:
            found.append(get(reader, account, arn))
        except StateMachineDoesNotExist:
            raise ResourceNotFound("Request references a resource that does not exist.") from None
    machine = machines.of_revision(reader, account, found[0].revision_id)
    return machine, tuple(Route(version.number, weight) for version, weight in zip(found, weights, strict=True))


# ── executions ───────────────────────────────────────────────────────────────────────────────────────────────────────


def note_execution(tx: Transaction, execution_id: int, resolved: Resolved) -> None:
    """Keep by what an execution was started."""
    if resolved.version is not None:
        tx.execute(
            "INSERT INTO execution_of_version (execution_id, state_machine_id, version, alias) VALUES (?, ?, ?, ?)",
            (execution_id, resolved.machine.id, resolved.version, resolved.alias),
        )


def of_executions(reader: Reader, ids: Sequence[int]) -> dict[int, tuple[int, str | None]]:
    """Return (version, alias) by execution id, for those that were started by a version or alias."""
    if not ids:
        return {}
    marks = ", ".join("?" * len(ids))
    rows = reader.all(
        f"SELECT execution_id, version, alias FROM execution_of_version WHERE execution_id IN ({marks})",  # noqa: S608
        tuple(ids),
    )
    return {id_: (version, alias) for id_, version, alias in rows}


def executions_page(
    reader: Reader, account: Account, arn: str, status: str | None, before: int, limit: int
) -> tuple[Machine, list[Summary]]:
    """Return the state machine, and up to `limit` executions that were started by a version or alias, newest first.

    Only those with ids below `before`. Raises InvalidArn, StateMachineDoesNotExist.
    """
    machine = resolve(reader, account, arn, 0.0).machine
    qualifier = machines.split_arn(arn)[1]
    named: tuple[str, Value] = ("v.alias = ?", qualifier)
    if qualifier.isdecimal():
        named = ("v.version = ?", int(qualifier))
    wanted = "" if status is None else "AND e.status = ? "
    rows = reader.all(
        "SELECT e.id, e.name, e.status, e.stopped_at_ms, e.redrive_count, e.redriven_at_ms "  # noqa: S608
        "FROM execution_of_version v JOIN execution e ON e.id = v.execution_id "
        f"WHERE v.state_machine_id = ? AND {named[0]} AND v.execution_id < ? {wanted}"
        "ORDER BY v.execution_id DESC LIMIT ?",
        (machine.id, named[1], before, *(() if status is None else (status,)), limit),
    )
    return machine, [
        Summary(id_, name, execution_arn(account, machine, name, id_), status_, stopped_at_ms, redrives or 0, redriven)
        for id_, name, status_, stopped_at_ms, redrives, redriven in rows
    ]
