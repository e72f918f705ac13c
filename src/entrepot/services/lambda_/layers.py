"""Layers: archives that several functions share, each published version unchangeable, as rows.

Source: https://docs.aws.amazon.com/lambda/latest/dg/chapter-layers.html
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.database import Reader, Row, Transaction
from entrepot.services.lambda_ import functions
from entrepot.services.lambda_.configuration import LAYERS_LIMIT, refuse
from entrepot.services.lambda_.errors import InvalidParameterValueError, ResourceNotFoundError
from entrepot.services.lambda_.policies import Policy

_NAME = re.compile(r"[a-zA-Z0-9-_]{1,140}", re.ASCII)
_ARN = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):layer:(?P<name>[a-zA-Z0-9-_]+)"
    r"(?::(?P<version>[0-9]{1,18}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class LayerVersion:
    """One version of a layer. `code_sha256` (hex) names its content beside the functions' code."""

    name: str
    version: int
    code_sha256: str
    code_size_bytes: int
    created_at_ms: int = 0
    description: str = ""
    license_info: str = ""
    runtimes: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()


_COLUMNS = "name, version, code_sha256, code_size_bytes, created_at_ms, document"


def _read(row: Row) -> LayerVersion:
    name, version, sha256, size_bytes, created_at_ms, text = row
    document = json.loads(text)
    return LayerVersion(
        name,
        version,
        sha256,
        size_bytes,
        created_at_ms,
        document["description"],
        document["license_info"],
        tuple(document["runtimes"]),
        tuple(document["architectures"]),
    )


def layer_arn(account: Account, name: str, version: int | None = None) -> str:
    """Return a layer's ARN, with the version where one is given."""
    return account.arn("lambda", f"layer:{name}" if version is None else f"layer:{name}:{version}")


def layer_name(account: Account, name_or_arn: str) -> str:
    """Return the name in a layer's name or ARN."""
    match = _ARN.fullmatch(name_or_arn)
    if match is not None and match["version"] is None:
        if (match["region"], match["account"]) != (account.region, account.account_id):
            raise no_such_layer()
        return match["name"]
    if not _NAME.fullmatch(name_or_arn):
        refuse(name_or_arn, "layerName", "satisfy regular expression pattern: [a-zA-Z0-9-_]+")
    return name_or_arn


def parse_version_arn(account: Account, arn: str) -> tuple[str, int]:
    """Return (name, version) of a layer version's ARN; ResourceNotFoundError for another account or region."""
    match = _ARN.fullmatch(arn)
    if match is None or match["version"] is None:
        refuse(arn, "arn", "satisfy regular expression pattern: "
               "arn:(aws[a-zA-Z-]*)?:lambda:[a-z]{2}(-gov)?-[a-z]+-\\d{1}:\\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+")  # fmt: skip
    if (match["region"], match["account"]) != (account.region, account.account_id):
        raise no_such_layer()
    return match["name"], int(match["version"])


def no_such_layer() -> ResourceNotFoundError:
    """Return AWS's error for a layer version that is not there."""
    return ResourceNotFoundError("The resource you requested does not exist.", Type="User")


def find(reader: Reader, name: str, version: int) -> LayerVersion | None:
    """Return a version of a layer, or None."""
    row = reader.one(
        f"SELECT {_COLUMNS} FROM lambda_layer_version WHERE name = ? AND version = ?",  # noqa: S608
        (name, version),
    )
    return None if row is None else _read(row)


def publish(
    tx: Transaction, name: str, code_sha256: str, code_size_bytes: int, *, description: str, license_info: str,
    runtimes: Sequence[str], architectures: Sequence[str],
) -> LayerVersion:  # fmt: skip
    """Publish a version of a layer."""
    version, now_ms = functions.next_number(tx, f"layer/{name}"), clock.now_ms()
    document = {
        "description": description,
        "license_info": license_info,
        "runtimes": list(runtimes),
        "architectures": list(architectures),
    }
    tx.execute(
        f"INSERT INTO lambda_layer_version ({_COLUMNS}, statements, revision_id) "  # noqa: S608
        "VALUES (?, ?, ?, ?, ?, ?, '[]', ?)",
        (name, version, code_sha256, code_size_bytes, now_ms, json.dumps(document), ids.random_uuid()),
    )
    return LayerVersion(
        name, version, code_sha256, code_size_bytes, now_ms, description, license_info, tuple(runtimes),
        tuple(architectures),
    )  # fmt: skip


def find_policy(reader: Reader, name: str, version: int) -> Policy | None:
    """Return the policy of a version, perhaps without statements; None when there is no such version."""
    row = reader.one(
        "SELECT statements, revision_id FROM lambda_layer_version WHERE name = ? AND version = ?", (name, version)
    )
    return None if row is None else Policy("", tuple(json.loads(row[0])), row[1])


def put_statements(tx: Transaction, name: str, version: int, statements: Sequence[Mapping[str, Any]]) -> str:
    """Replace the statements of a version's policy; return the new revision."""
    revision_id = ids.random_uuid()
    tx.execute(
        "UPDATE lambda_layer_version SET statements = ?, revision_id = ? WHERE name = ? AND version = ?",
        (json.dumps(list(statements)), revision_id, name, version),
    )
    return revision_id


def delete(tx: Transaction, name: str, version: int) -> None:
    """Delete a version; functions that use it keep what they have. No error when it is not there, as AWS."""
    tx.execute("DELETE FROM lambda_layer_version WHERE name = ? AND version = ?", (name, version))


def versions(reader: Reader, name: str, *, before: int, limit: int) -> list[LayerVersion]:
    """Return the versions of a layer, newest first, older than `before`."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM lambda_layer_version WHERE name = ? AND version < ? "  # noqa: S608
        "ORDER BY version DESC LIMIT ?",
        (name, before, limit),
    )
    return [_read(row) for row in rows]


def listing(reader: Reader, *, after: str, limit: int) -> list[LayerVersion]:
    """Return the newest version of each layer, by name."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM lambda_layer_version AS newest WHERE name > ? AND version = "  # noqa: S608
        "(SELECT max(version) FROM lambda_layer_version AS any_version WHERE any_version.name = newest.name) "
        "ORDER BY name LIMIT ?",
        (after, limit),
    )
    return [_read(row) for row in rows]


def resolve(reader: Reader, account: Account, arns: Sequence[str]) -> list[LayerVersion]:
    """Return the layer versions that a function asks for; InvalidParameterValueError as AWS words it."""
    if len(arns) > LAYERS_LIMIT:
        raise InvalidParameterValueError(f"Cannot reference more than {LAYERS_LIMIT} layers.", Type="User")
    found: dict[str, LayerVersion] = {}
    for arn in arns:
        name, version = parse_version_arn(account, arn)
        layer = find(reader, name, version)
        if layer is None:
            raise InvalidParameterValueError(f"Layer version {arn} does not exist.", Type="User")
        if name in found:
            raise InvalidParameterValueError(
                "Two different versions of the same layer are not allowed to be referenced in the same function. "
                f"{arn} and {layer_arn(account, name, found[name].version)}.",
                Type="User",
            )
        found[name] = layer
    return list(found.values())
