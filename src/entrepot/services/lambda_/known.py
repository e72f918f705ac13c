"""What the event loop knows of a function without asking the ledger: the hot path of Invoke.

Each commit that changes a function replaces it. $LATEST, the aliases and versions with provisioned concurrency are there
from the start, other versions from their first use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from entrepot.database import Reader
from entrepot.services.lambda_ import concurrency, functions, policies
from entrepot.services.lambda_.configuration import LATEST, FunctionConfiguration
from entrepot.services.lambda_.functions import Alias


@dataclass(slots=True)
class Known:
    """`versions` by number (and $LATEST), `aliases` by name; `published` are all versions that exist.

    `policies` are the texts of resource policies by qualifier ("": the function's own).
    """

    versions: dict[str, FunctionConfiguration]
    aliases: Mapping[str, Alias]
    published: frozenset[str]
    policies: Mapping[str, str]

    @classmethod
    def read(cls, reader: Reader, name: str) -> "Known | None":
        """Read what there is; None when there is no such function."""
        latest = functions.find(reader, name)
        if latest is None:
            return None
        numbers = reader.all("SELECT version FROM lambda_version WHERE name = ?", (name,))
        known = cls(
            {LATEST: latest},
            {alias.name: alias for alias in functions.aliases(reader, name)},
            frozenset(str(number) for (number,) in numbers),
            {policy.qualifier: policy.text for policy in policies.of_function(reader, name)},
        )
        for version, minimum_warm in concurrency.by_version(reader, name).items():
            configuration = functions.find(reader, name, version)
            if configuration is not None:
                known.add(replace(configuration, minimum_warm=minimum_warm))
        return known

    def add(self, configuration: FunctionConfiguration) -> FunctionConfiguration:
        """Remember a version, with the function's own concurrency; return it so."""
        if configuration.version not in self.published:
            return configuration  # $LATEST, or deleted meanwhile
        configuration = replace(configuration, reserved_concurrency=self.versions[LATEST].reserved_concurrency)
        return self.versions.setdefault(configuration.version, configuration)

    def choose(self, qualifier: str) -> str:
        """Return the number of the version that runs one invocation; an unknown qualifier is returned as it is."""
        alias = self.aliases.get(qualifier)
        return (qualifier or LATEST) if alias is None else alias.choose()
