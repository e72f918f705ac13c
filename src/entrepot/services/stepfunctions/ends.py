"""Who waits here for the end of an execution: the callers of StartSyncExecution."""

import asyncio
from collections.abc import Awaitable, Callable

from entrepot.errors import ServiceUnavailableError

from .executions import Execution


class Ends:
    """For the event loop's thread. `read` returns an execution as the ledger has it."""

    def __init__(self, read: Callable[[int], Awaitable[Execution]]) -> None:
        self._read = read
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._stopping = False

    async def wait(self, execution_id: int, limit_s: float) -> Execution | None:
        """Wait until an execution has ended and return it; None when it has not after `limit_s`.

        Raises ServiceUnavailableError when the server stops meanwhile.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(execution_id, []).append(future)
        try:
            found = await self._read(execution_id)
            if found.status != "RUNNING":
                return found
            if not self._stopping:
                async with asyncio.timeout(limit_s):
                    await future
                found = await self._read(execution_id)
        except TimeoutError:
            return None
        finally:
            self._forget(execution_id, future)
        if found.status == "RUNNING":
            raise ServiceUnavailableError(f"The server stops; {found.arn} goes on after its next start.")
        return found

    def _forget(self, execution_id: int, future: "asyncio.Future[None]") -> None:
        waiting = self._waiting.get(execution_id, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._waiting.pop(execution_id, None)

    def tell(self, execution_id: int) -> None:
        """The end of an execution is durable."""
        for future in self._waiting.pop(execution_id, ()):
            if not future.done():
                future.set_result(None)

    def start(self) -> None:
        """Let callers wait."""
        self._stopping = False

    def stop(self) -> None:
        """Let nobody wait any longer."""
        self._stopping = True
        for execution_id in list(self._waiting):
            self.tell(execution_id)
