"""Fixtures for every lane."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import Stack


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A freshly scaffolded stack, running."""
    running = Stack(tmp_path / "stack")
    try:
        yield running.start()
    finally:
        running.stop()
