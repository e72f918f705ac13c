"""The reference pages say what the code says; what prose names exists."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_pages_are_what_the_code_says() -> None:
    changed = list(_generator().changed())
    assert not changed, f"run `python docs/generate.py`: {changed}"


def test_every_relative_link_leads_somewhere() -> None:
    broken = []
    for page in [
        ROOT / "README.md",
        ROOT / "ARCHITECTURE.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} → {target}")
    assert not broken


def test_every_fault_point_is_documented() -> None:
    """docs/durability.md names exactly the points of the code."""
    in_code = set()
    for path in (ROOT / "src").rglob("*.py"):
        in_code |= set(re.findall(r"faults\.reach\(\s*\"([^\"]+)\"", path.read_text()))
    documented = set(re.findall(r"^\| `([a-z_]+\.[a-z-]+)` \|", (ROOT / "docs" / "durability.md").read_text(), re.M))
    assert documented == in_code


def test_the_crash_rounds_use_every_fault_point() -> None:
    from tests.acceptance import test_lambda_api, test_replays
    from tests.crash import rounds
    from tests.crash.workflows import points

    documented = set(re.findall(r"^\| `([a-z_]+\.[a-z-]+)` \|", (ROOT / "docs" / "durability.md").read_text(), re.M))
    assert {*rounds.POINTS, *points.POINTS, *test_replays.POINTS, *test_lambda_api.POINTS} == documented
