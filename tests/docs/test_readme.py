"""The front door tells the truth: commands exist, links lead somewhere, nothing names where packages come from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from haat.cli.main import haat

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    targets = [match[1] for match in _LINK.finditer(page.read_text()) if "://" not in match[1]]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_haat_command_that_is_written_down_exists(page: Path) -> None:
    commands = set(haat.list_commands(haat.make_context("haat", [], resilient_parsing=True)))
    written = set(re.findall(r"(?:^|[`/ (])haat ([a-z][a-z-]+)\b(?=[^:]*)", _code(page.read_text()), re.MULTILINE))
    assert written <= commands | {"stock"}, f"{page.name} names {written - commands}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_that_is_written_down_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    written = set(re.findall(r"\bmake ([a-z][a-z-]+)", _code(page.read_text())))
    assert written <= targets, f"{page.name} names {written - targets}"


def test_every_event_type_and_setting_of_the_architecture_is_spelled_as_in_the_code() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    houses = re.findall(r"^```\n(src/\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert [house for house, _ in houses] == ["src/haat/", "src/haat/gateway/"]
    for house, rooms in houses:
        for folder in re.findall(r"(?:^ | ·) ([a-z]+)/ ", rooms, re.MULTILINE):
            assert (ROOT / house / folder).is_dir(), f"{house} has no room called {folder}"


def test_no_tracked_file_names_a_package_index() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = ("pypi" + ".org", "python" + "hosted", "registry.npm" + "js", "deb.deb" + "ian", "--index" + "-url")
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.suffix in {".png", ".wav", ".jpg"} or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        found = [word for word in words if word in text]
        assert not found, f"{name} names {found}"


def _code(text: str) -> str:
    """Return only what a page writes as code: blocks and inline."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
