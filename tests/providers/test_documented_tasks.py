import base64
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from haat.catalog.drafts import ServiceDraft
from haat.models.task import parse_call
from haat.plugins.manager import hosted_services

ROOT = Path(__file__).parents[2]
TASKS = (ROOT / "docs" / "tasks.md").read_text()
SAMPLES = ROOT / "src" / "haat" / "providers" / "vani" / "samples"
EXAMPLES = re.findall(r"```json example (\S+)\n(.*?)```\n```json answer\n(.*?)```", TASKS, re.DOTALL)


def with_files(body: str) -> bytes:
    """Put the files in where the documentation names them."""
    return re.sub(
        r"@([\w.-]+)", lambda name: base64.b64encode((SAMPLES / name[1]).read_bytes()).decode(), body
    ).encode()


def alike(documented: Any, given: Any) -> bool:
    """Tell whether two answers agree: sounds may differ a little between versions of an engine."""
    if documented == "…":
        return len(given) > (1000 if isinstance(given, str) else 200)
    if isinstance(documented, dict):
        return documented.keys() == given.keys() and all(alike(documented[name], given[name]) for name in documented)
    if isinstance(documented, list):
        return len(documented) == len(given) and all(map(alike, documented, given))
    if isinstance(documented, float):
        return bool(given == pytest.approx(documented, abs=0.5 if abs(documented) > 1 else 1e-4))
    return bool(documented == given)


def test_every_built_in_service_has_an_example() -> None:
    assert {path for path, _, _ in EXAMPLES} == {path for path in hosted_services() if path[:4] in ("aksh", "vani")}


@pytest.mark.parametrize(("path", "body", "answer"), EXAMPLES)
def test_an_example_gets_the_documented_answer(path: str, body: str, answer: str) -> None:
    service = hosted_services()[path]
    assert service.missing() is None
    items, config = parse_call(service, with_files(body))
    outputs, units = service.invoke(items, config)
    given = msgspec.json.decode(
        msgspec.json.Encoder(decimal_format="number").encode({"output": outputs, "usage": units})
    )
    assert alike(json.loads(answer), given), given


def test_the_documented_listing_is_one() -> None:
    text = (ROOT / "docs" / "providers.md").read_text()
    listing = text.split("```json listing\n", 1)[1].split("```", 1)[0]
    assert ServiceDraft.model_validate_json(listing).slug == "text-statistics"
