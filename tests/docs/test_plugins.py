"""docs/plugins.md is right about hooks and kinds, and its example runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from haat.kernel.errors import ContentRefused
from haat.plugins import spec
from haat.plugins.api import Request, Service
from haat.plugins.builtin.masking import MaskingConfiguration
from haat.plugins.builtin.personal import KINDS
from haat.plugins.builtin.profanity import ProfanityConfiguration
from haat.plugins.registry import load
from haat.plugins.switches import Switch, Switches

DOCUMENT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
SERVICE = Service(id="1", provider="acme", slug="x", version="1", category="nlp", dialect="task", region="IN")


def test_every_hook_is_described_and_no_other() -> None:
    described = re.findall(r"^\| `(haat_\w+)\(", DOCUMENT, re.MULTILINE)
    specified = [name for name, value in vars(spec).items() if hasattr(value, "haat_spec")]
    assert sorted(described) == sorted(specified)


def test_every_kind_of_personal_data_is_described_and_no_other() -> None:
    rows = re.findall(r"^\| ((?:`[a-z]+`(?:, )?)+) \|", DOCUMENT, re.MULTILINE)
    assert sorted(kind for row in rows for kind in re.findall(r"`([a-z]+)`", row)) == sorted(KINDS)


def test_the_sections_fit_their_plugins(tmp_path: Path) -> None:
    blocks = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)]
    sections = {name: section for block in blocks for name, section in block["plugins"].items()}
    MaskingConfiguration.model_validate(sections["masking"])
    ProfanityConfiguration.model_validate(sections["profanity"])


def test_the_example_runs(tmp_path: Path) -> None:
    code = re.search(r"```python plugin\n(.*?)```", DOCUMENT, re.DOTALL)
    assert code is not None
    (tmp_path / "longest.py").write_text(code[1])
    loaded = load(tmp_path, Switches({"longest": Switch(True)}), {"longest": {"longest": 3}}, {}, group="haat-nobody")
    hooks = loaded.hooks["longest"]
    assert hooks["haat_wants"](SERVICE) is True

    def request(body: bytes) -> Request:
        return Request(
            [], body, id="1", method="POST", path="", service=SERVICE, org="", application="", plan="", user=""
        )

    call = request(b'{"input": [{"text": "abc"}]}')
    hooks["haat_on_request"](call)
    assert call.headers.get("x-length-checked") == "yes"
    with pytest.raises(ContentRefused):
        hooks["haat_on_request"](request(b'{"input": [{"text": "abcd"}]}'))
