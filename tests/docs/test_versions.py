"""docs/versions.md: its example is an adapter that can be declared, its table names every change there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

from haat.catalog.drafts import VersionDraft
from haat.gateway.http.cors import MOST_PREFLIGHTS
from haat.kernel.reshaping import Do, Reshaping

DOCUMENT = (Path(__file__).parents[2] / "docs" / "versions.md").read_text()


def test_the_example_can_be_declared_and_does_what_it_says() -> None:
    block = re.search(r"```json adapter\n(.*?)```", DOCUMENT, re.DOTALL)
    assert block is not None
    draft: VersionDraft = VersionDraft.parse(json.loads(block[1]))
    request = Reshaping([change.model_dump() for change in draft.policy.request])
    answer = Reshaping([change.model_dump() for change in draft.policy.answer])
    assert request.document(draft.sample.body) == {"input": [{"text": "नमस्ते"}], "config": {"target": "ur"}}
    assert answer.document({"output": [{"text": "x"}]}) == {"translation": "x"}


def test_every_change_is_described_and_no_other() -> None:
    assert re.findall(r"^\| `([a-z_]+)` \| a (?:header|place)", DOCUMENT, re.MULTILINE) == list(get_args(Do))


def test_the_figure_for_preflights_is_the_codes() -> None:
    assert f"beyond {MOST_PREFLIGHTS:,} a second" in DOCUMENT
