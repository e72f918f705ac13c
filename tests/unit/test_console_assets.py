"""What the browser is given: not much script, none of it inline, and what comes from npm is pinned."""

import json
import re
from pathlib import Path

import pytest

from entrepot.console import pages, render
from entrepot.console.app import VENDOR

STATIC = render.FOLDER / "static"
TEMPLATES = sorted((render.FOLDER / "templates").glob("*.html"))
ASSETS = Path(__file__).parents[2] / "assets"

SCRIPT_LIMIT_BYTES = 200_000


def test_all_scripts_together_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in STATIC.rglob("*.js")}
    assert sum(sizes.values()) <= SCRIPT_LIMIT_BYTES, sizes


def test_the_build_gives_every_file_that_pages_ask_for() -> None:
    if not VENDOR.is_dir():
        pytest.skip("`make assets` has not run: pages show the server's own charts")
    assert {path.name for path in VENDOR.iterdir()} >= {*pages.SCRIPTS, "uPlot.LICENSE"}


def test_npm_packages_are_pinned_with_their_checksums() -> None:
    wanted = json.loads((ASSETS / "package.json").read_text())["dependencies"]
    locked = json.loads((ASSETS / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), f"{name} is not pinned: {version}"
        found = locked[f"node_modules/{name}"]
        assert found["version"] == version
        assert found["integrity"].startswith("sha512-")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_nothing_is_inline_and_no_form_lacks_its_token(template: Path) -> None:
    text = template.read_text()
    assert not re.search(r"\sstyle=|\son[a-z]+=|javascript:|<style", text), "the policy would refuse it"
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    for form in re.findall(r"<form[^>]*method=\"post\".*?</form>", text, re.DOTALL):
        assert "csrf_token" in form, form[:120]
    for head in re.findall(r"<thead>.*?</thead>", text, re.DOTALL):
        assert "<td" not in head
