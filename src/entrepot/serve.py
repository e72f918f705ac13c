"""The server's process: `entrepot up` reads its options and becomes this, which carries none of the commands' libraries.

Called as `python -m entrepot.serve DIR PORTS`, PORTS a JSON object with those of `sftp_port`, `api_port` and `console_port` that
were given. Exit codes are the commands'.
"""

# ruff: noqa: E402
# No collection of garbage during the imports: what they make stays, and looking through it takes a tenth of the start.
import gc

gc.disable()

import ctypes
import json
import logging
import sys
from pathlib import Path
from typing import Any

import msgspec

from entrepot import server, settings
from entrepot.errors import EntrepotError
from entrepot.loglines import printable
from entrepot.settings import SettingsError, StackFolder

ARENAS = 2
"""malloc keeps a heap of its own for each of up to eight threads a core; memory that one frees does not help another."""

_M_ARENA_MAX = -8


class OneLine(logging.Formatter):
    """One line a record, and indented ones for an exception: a key or a name from outside must not forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


def main(folder: str, ports: str) -> None:
    """Serve until SIGTERM or Ctrl-C; raise EntrepotError when that cannot begin."""
    stack = StackFolder(Path(folder))
    loaded = settings.load(stack)
    loaded = msgspec.structs.replace(loaded, server=msgspec.structs.replace(loaded.server, **json.loads(ports)))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server.run(stack, loaded, on_ready=lambda addresses: print(addresses.ready_line(), flush=True))


def _few_arenas() -> None:
    """Limit malloc's arenas where the C library has them; elsewhere nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


if __name__ == "__main__":
    _few_arenas()
    try:
        main(*sys.argv[1:])
    except EntrepotError as error:
        print(f"entrepot: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, SettingsError) else 1)
