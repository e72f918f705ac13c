"""The rows of functions, of their published versions and of their aliases.

`$LATEST` is what can be changed; a version is a copy of it that never changes; an alias is a name for one version, or for
two with a share of the invocations each.

Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-versions.html and configuration-aliases.html
"""

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from entrepot import clock, ids
from entrepot.database import Reader, Row, Transaction
from entrepot.services.lambda_.configuration import LATEST, FunctionConfiguration, refuse
from entrepot.services.lambda_.errors import (
    InvalidParameterValueError,
    PreconditionFailedError,
    ResourceConflictError,
)

ALIASES_LIMIT = 1_000
"""Aliases of one function."""

_ALIAS = re.compile(r"(?!^[0-9]+$)[a-zA-Z0-9-_]{1,128}", re.ASCII)
_VERSION = re.compile(r"\$LATEST|[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for a version. `weights`: the share (0 to 1) of invocations that another version gets."""

    function_name: str
    name: str
    version: str
    weights: Mapping[str, float] = field(default_factory=dict)
    description: str = ""
    revision_id: str = ""

    def choose(self) -> str:
        """Return the version of one invocation."""
        if self.weights:
            chosen = random.random()  # noqa: S311 - a share, not a secret
            for version, weight in self.weights.items():
                if chosen < weight:
                    return version
                chosen -= weight
        return self.version


# ── functions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def find(reader: Reader, name: str, version: str = LATEST) -> FunctionConfiguration | None:
    """Return a version of a function, or None."""
    if version == LATEST:
        row = reader.one("SELECT configuration FROM lambda_function WHERE name = ?", (name,))
    elif version.isdigit() and len(version) < 19:
        row = reader.one(
            "SELECT configuration FROM lambda_version WHERE name = ? AND version = ?", (name, int(version))
        )
    else:
        row = None
    return FunctionConfiguration.from_json(row[0]) if row else None


def listing(reader: Reader, *, after: str, limit: int) -> list[FunctionConfiguration]:
    """Return functions by name, after the name `after`."""
    rows = reader.all("SELECT configuration FROM lambda_function WHERE name > ? ORDER BY name LIMIT ?", (after, limit))
    return [FunctionConfiguration.from_json(text) for (text,) in rows]


def write(tx: Transaction, configuration: FunctionConfiguration) -> None:
    """Write $LATEST of a function, new or changed."""
    tx.execute(
        "INSERT INTO lambda_function (name, configuration) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET configuration = excluded.configuration",
        (configuration.name, configuration.to_json()),
    )


def delete(tx: Transaction, name: str) -> bool:
    """Delete a function with all that belongs to it, the mappings to it left out, as AWS; False when it is not there."""
    if not tx.execute("DELETE FROM lambda_function WHERE name = ?", (name,)):
        return False
    for table in ("version", "alias", "event_invoke_config", "provisioned_concurrency", "policy"):
        tx.execute(f"DELETE FROM lambda_{table} WHERE name = ?", (name,))  # noqa: S608 - our own tables
    return True


def tags(reader: Reader, name: str) -> dict[str, str]:
    """Return the tags of a function."""
    row = reader.one("SELECT tags FROM lambda_function WHERE name = ?", (name,))
    found: dict[str, str] = json.loads(row[0]) if row else {}
    return found


def write_tags(tx: Transaction, name: str, tags: Mapping[str, str]) -> None:
    """Replace the tags of a function."""
    tx.execute("UPDATE lambda_function SET tags = ? WHERE name = ?", (json.dumps(dict(tags)), name))


def next_number(tx: Transaction, counter: str) -> int:
    """Return the next version number of a function (`function/name`) or layer (`layer/name`), never used before."""
    tx.execute(
        "INSERT INTO lambda_counter (name, last) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET last = lambda_counter.last + 1",
        (counter,),
    )
    row = tx.one("SELECT last FROM lambda_counter WHERE name = ?", (counter,))
    assert row is not None
    return int(row[0])


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def publish(tx: Transaction, latest: FunctionConfiguration, description: str | None) -> FunctionConfiguration:
    """Publish $LATEST as a new version; when nothing has changed since the last one, return that."""
    row = tx.one(
        "SELECT configuration FROM lambda_version WHERE name = ? ORDER BY version DESC LIMIT 1", (latest.name,)
    )
    if row is not None:
        last = FunctionConfiguration.from_json(row[0])
        if _substance(last) == _substance(latest):
            return last
    version = next_number(tx, f"function/{latest.name}")
    published = replace(
        latest,
        version=str(version),
        description=latest.description if description is None else description,
        revision_id=ids.random_uuid(),
        modified_at_ms=clock.now_ms(),
        minimum_warm=0,
        reserved_concurrency=None,
    )
    tx.execute(
        "INSERT INTO lambda_version (name, version, configuration) VALUES (?, ?, ?)",
        (latest.name, version, published.to_json()),
    )
    return published


def _substance(configuration: FunctionConfiguration) -> FunctionConfiguration:
    """Return what makes one version differ from another."""
    return replace(
        configuration,
        version=LATEST,
        description="",
        revision_id="",
        modified_at_ms=0,
        minimum_warm=0,
        reserved_concurrency=None,
    )


def versions(reader: Reader, name: str, *, after: int = 0, limit: int) -> list[FunctionConfiguration]:
    """Return the published versions of a function in order."""
    rows = reader.all(
        "SELECT configuration FROM lambda_version WHERE name = ? AND version > ? ORDER BY version LIMIT ?",
        (name, after, limit),
    )
    return [FunctionConfiguration.from_json(text) for (text,) in rows]


def delete_version(tx: Transaction, name: str, version: str) -> bool:
    """Delete a version; ResourceConflictError while an alias names it; False when it is not there."""
    referring = [alias.name for alias in aliases(tx, name) if version in (alias.version, *alias.weights)]
    if referring:
        raise ResourceConflictError(
            f"Unable to delete version because the following aliases reference it: [{', '.join(referring)}]",
            Type="User",
        )
    if not version.isdigit() or len(version) > 18:
        return False
    return tx.execute("DELETE FROM lambda_version WHERE name = ? AND version = ?", (name, int(version))) > 0


# ── aliases ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_COLUMNS = "name, alias, version, weights, description, revision_id"


def _alias(row: Row) -> Alias:
    return Alias(row[0], row[1], row[2], json.loads(row[3]), row[4], row[5])


def find_alias(reader: Reader, name: str, alias: str) -> Alias | None:
    """Return an alias, or None."""
    row = reader.one(
        f"SELECT {_COLUMNS} FROM lambda_alias WHERE name = ? AND alias = ?",  # noqa: S608
        (name, alias),
    )
    return None if row is None else _alias(row)


def aliases(
    reader: Reader, name: str, *, version: str | None = None, after: str = "", limit: int = ALIASES_LIMIT
) -> list[Alias]:
    """Return the aliases of a function by name; only those of one version where that is given."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM lambda_alias WHERE name = ? AND alias > ? AND (version = ? OR ? IS NULL) "  # noqa: S608
        "ORDER BY alias LIMIT ?",
        (name, after, version, version, limit),
    )
    return [_alias(row) for row in rows]


def all_aliases(reader: Reader) -> list[Alias]:
    """Return every alias of every function."""
    return [_alias(row) for row in reader.all(f"SELECT {_COLUMNS} FROM lambda_alias")]  # noqa: S608


def put_alias(tx: Transaction, alias: Alias) -> Alias:
    """Write an alias, new or changed; return it as stored. Refuses what names no version, or wrong weights."""
    if not _ALIAS.fullmatch(alias.name):
        refuse(alias.name, "name", "satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)")
    for version in (alias.version, *alias.weights):
        if not _VERSION.fullmatch(version):
            refuse(version, "functionVersion", "satisfy regular expression pattern: (\\$LATEST|[0-9]+)")
    _check_weights(alias)
    alias = replace(alias, revision_id=ids.random_uuid())
    tx.execute(
        f"INSERT INTO lambda_alias ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) "  # noqa: S608
        "ON CONFLICT (name, alias) DO UPDATE SET version = excluded.version, weights = excluded.weights, "
        "description = excluded.description, revision_id = excluded.revision_id",
        (
            alias.function_name,
            alias.name,
            alias.version,
            json.dumps(dict(alias.weights)),
            alias.description,
            alias.revision_id,
        ),
    )
    return alias


def _check_weights(alias: Alias) -> None:
    if not alias.weights:
        return
    if len(alias.weights) > 1:
        raise InvalidParameterValueError(
            f"Number of items in AdditionalVersionWeights cannot be greater than 1, but found {len(alias.weights)}",
            Type="User",
        )
    if alias.version == LATEST or LATEST in alias.weights:
        raise InvalidParameterValueError("$LATEST is not supported for an alias pointing to more than 1 version")
    if alias.version in alias.weights:
        raise InvalidParameterValueError(
            f"Invalid function version {alias.version}. Function version {alias.version} is already included in "
            "routing configuration.",
            Type="User",
        )
    for version, weight in alias.weights.items():
        if not 0.0 <= weight <= 1.0:
            refuse(f"{{{version}={weight}}}", "routingConfig.additionalVersionWeights",
                   "have value less than or equal to 1.0 and greater than or equal to 0.0")  # fmt: skip


def delete_alias(tx: Transaction, name: str, alias: str) -> None:
    """Delete an alias with what is configured for it."""
    tx.execute("DELETE FROM lambda_alias WHERE name = ? AND alias = ?", (name, alias))
    for table in ("event_invoke_config", "provisioned_concurrency", "policy"):
        tx.execute(
            f"DELETE FROM lambda_{table} WHERE name = ? AND qualifier = ?",  # noqa: S608 - our own tables
            (name, alias),
        )


def check_revision(asked: str | None, actual: str) -> None:
    """Raise PreconditionFailedError when the caller asked for another revision."""
    if asked not in (None, actual):
        raise PreconditionFailedError(
            "The RevisionId provided does not match the latest RevisionId. Call the "
            "GetFunction/GetAlias API to retrieve the latest RevisionId",
            Type="User",
        )
