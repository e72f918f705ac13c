"""AWS's service models, read from botocore's files without their documentation, each once for the whole process.

The documentation is most of what a model takes in memory; nobody here reads it.
"""

import gzip
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from botocore.loaders import JSONFileLoader, Loader
from botocore.model import ServiceModel

FOLDER = str(Path(__file__).parent / "aws" / "models")
"""Where the models that botocore does not have live (Entrepot's own API), laid out as botocore's `data` folder."""

MODELS_LIMIT = 64
"""Models that are kept."""


class _Terse(JSONFileLoader):  # type: ignore[misc]
    """botocore's reader of files, without what only people read."""

    def load_file(self, file_path: str) -> Any:
        """Return the content of a file (its path without its ending), None where there is none."""
        for ending in (".json", ".json.gz"):
            path = Path(file_path + ending)
            if path.is_file():
                content = path.read_bytes()
                return _without_documentation(
                    msgspec.json.decode(gzip.decompress(content) if ending.endswith("gz") else content)
                )
        return None


class _TerseLoader(Loader):  # type: ignore[misc]
    FILE_LOADER_CLASS = _Terse


def _without_documentation(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_documentation(member)
            for key, member in value.items()
            if key != "documentation" or not isinstance(member, str)
        }
    if isinstance(value, list):
        return [_without_documentation(member) for member in value]
    return value


@lru_cache(maxsize=1)
def loader() -> Loader:
    """Return the loader of botocore's and our models."""
    return _TerseLoader(extra_search_paths=[FOLDER])


@lru_cache(maxsize=MODELS_LIMIT)
def service_model(service: str) -> ServiceModel:
    """Return the model of a service by botocore's name; raises botocore's UnknownServiceError for one that has none."""
    return ServiceModel(_uncached(service), service)


def _uncached(service: str) -> Any:
    """Return a model's content; botocore's loader would keep it a second time."""
    return _TerseLoader(extra_search_paths=[FOLDER]).load_service_model(service, "service-2")
