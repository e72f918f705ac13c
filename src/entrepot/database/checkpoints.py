"""Moves the write-ahead log into the database file, so that the log stays small and commits do not pay for it.

A thread of its own does it whenever the log has grown; it does not stop writers or readers. The log can begin anew only
when all of it was moved and no long read needs it: under steady load the thread never quite catches up, so that beyond a
second limit the writer moves the (then short) rest itself. A long read can make the log grow for as long as it lasts.
"""

import contextlib
import threading
from pathlib import Path

import apsw

from entrepot.database.connections import open_connection
from entrepot.errors import StorageError

BACKGROUND_PAGES = 2_000
"""From this many pages of log on (8 MB) the thread moves them."""

FOREGROUND_PAGES = 16_000
"""From this many pages of log on (64 MB) the writer moves the rest, so that the log begins anew."""


class Checkpoints:
    """The thread that moves the log, and what the writer does about it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pages = 0
        self._wanted = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="database-checkpoints", daemon=True)
        self._thread.start()

    def watch(self, connection: apsw.Connection) -> None:
        """Learn the size of the log from each commit of a connection."""
        connection.set_wal_hook(self._committed)

    def _committed(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._pages = pages
        return 0

    def after_commit(self, connection: apsw.Connection) -> None:
        """Called by the writer between two groups."""
        if self._pages < BACKGROUND_PAGES:
            return
        if self._pages >= FOREGROUND_PAGES:
            with contextlib.suppress(apsw.Error):  # A failing disk shows at the next commit.
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._pages = 0
        else:
            self._wanted.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        connection: apsw.Connection | None = None
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closed:
                break
            try:
                if connection is None:
                    connection = open_connection(self._path, cache_kib=256)
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except (apsw.Error, StorageError):
                # A full or failing disk: the log keeps everything, and the next commit asks again.
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()
