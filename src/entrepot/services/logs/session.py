"""One connection to the file of log events, and the rows by which groups and streams are found."""

from typing import Any

import apsw

from entrepot.services.logs.errors import ResourceNotFoundError


class Session:
    """One connection: rows in, rows out."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection

    def all(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return every row."""
        return self.connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        """Return the first row, or None."""
        row: tuple[Any, ...] | None = self.connection.execute(sql, parameters).fetchone()
        return row

    def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> int:
        """Run one statement; return the number of rows that it changed."""
        self.connection.execute(sql, parameters).fetchall()
        return self.connection.changes()


def find_group(session: Session, name: str) -> int:
    """Return a group's id; ResourceNotFoundError."""
    row = session.one("SELECT group_id FROM log_group WHERE name = ?", (name,))
    if row is None:
        raise ResourceNotFoundError("The specified log group does not exist.")
    return int(row[0])


def find_stream(session: Session, group: str, name: str) -> int:
    """Return a stream's id; ResourceNotFoundError."""
    row = session.one(
        "SELECT stream_id FROM log_stream WHERE group_id = ? AND name = ?", (find_group(session, group), name)
    )
    if row is None:
        raise ResourceNotFoundError("The specified log stream does not exist.")
    return int(row[0])
