"""Writes docs/conformance.md: which operation of which protocol is held against which client, by which tests.

    python tools/conformance.py [--check]

The tests say it themselves: `@pytest.mark.speaks("openai embeddings", client="openai 2 (PyPI)")`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "conformance.md"
SHAPES = "raw requests, held against the protocol's shapes"
HEAD = """# Conformance

Made by `tools/conformance.py` from the tests; `make check` fails when it is out of date. *Held against* is the client
that makes the requests, a program nobody here wrote, over a real socket; raw requests are written by the test.

| operation | held against | by |
|---|---|---|
"""


class Claim(NamedTuple):
    """A test that says what it speaks."""

    operation: str
    client: str
    place: str


def claims(root: Path = ROOT) -> list[Claim]:
    """Return what all tests claim, in order of operation and client."""
    found = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        place = path.relative_to(root).as_posix()
        found += [Claim(*marker, place) for node in tree.body for marker in _markers(node)]
    return sorted(set(found))


def _markers(node: ast.stmt) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "pytestmark" for to in node.targets):
        values = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        values = node.decorator_list
    else:
        return
    for value in values:
        if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "speaks"):
            continue
        client = next((ast.literal_eval(word.value) for word in value.keywords if word.arg == "client"), SHAPES)
        for operation in value.args:
            yield ast.literal_eval(operation), client


def page(found: list[Claim]) -> str:
    """Return the page."""
    rows: dict[tuple[str, str], list[str]] = {}
    for claim in found:
        rows.setdefault((claim.operation, claim.client), []).append(f"[{claim.place}](../{claim.place})")
    return HEAD + "".join(f"| {name} | {client} | {', '.join(by)} |\n" for (name, client), by in rows.items())


def main() -> None:
    wanted = page(claims())
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == wanted else "docs/conformance.md is out of date")
    PAGE.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
