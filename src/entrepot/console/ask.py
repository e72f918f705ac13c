"""How pages ask: operations by AWS's names, as whoever is logged in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrepot.operations import Call, Operations


@dataclass(frozen=True, slots=True)
class Ask:
    """Operations for one request. `await ask("entrepot", "ListFiles", limit=50)` raises AwsError as AWS would."""

    operations: Operations
    call: Call

    async def __call__(self, service: str, operation: str, /, **request: Any) -> dict[str, Any]:
        """Perform an operation; parameters that are None are left out."""
        given: Mapping[str, Any] = {name: value for name, value in request.items() if value is not None}
        return await self.operations.perform(service, operation, given, self.call)

    def serves(self, service: str, operation: str) -> bool:
        """Whether this installation has the operation."""
        return self.operations.find(service, operation) is not None
