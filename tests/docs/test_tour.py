"""The tour: its page names the pictures that there are, and the command takes just these."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_the_pictures_and_the_command_agree() -> None:
    named = re.findall(r"\]\(tour/([a-z-]+)\.png\)", (ROOT / "docs" / "tour.md").read_text())
    tree = ast.parse((ROOT / "tools" / "tour.py").read_text())
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Picture"
    ]
    taken = [ast.literal_eval(call.args[0]) for call in calls]
    assert len(named) == len(set(named)) == 15
    assert set(named) == set(taken) == {file.stem for file in (ROOT / "docs" / "tour").glob("*.png")}
