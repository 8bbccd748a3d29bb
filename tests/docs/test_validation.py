"""The example of docs/validation.md is one, and its table has every member."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from haat.catalog.drafts import VersionPolicyDraft
from haat.catalog.validation import ValidationDraft
from haat.gateway.market.policy import ValidationPolicy
from haat.gateway.validation import Rules
from haat.gateway.validation import rules_of as rules_of_policy
from haat.language.validation import validate

DOCS = (Path(__file__).parents[2] / "docs" / "validation.md").read_text()


def block(kind: str) -> Any:
    return json.loads(DOCS.split(f"```json {kind}\n", 1)[1].split("```", 1)[0])


def rules(plan: str = "") -> Rules:
    draft = VersionPolicyDraft.parse(block("policy"))
    kept = draft.model_dump(mode="json", exclude_defaults=True)["validation"]
    return rules_of_policy(msgspec.convert(kept, ValidationPolicy), plan)


def test_the_documented_errors_are_found() -> None:
    found = validate(block("request"), rules(), lambda text: False)
    assert [{"field": one.field, "message": one.message} for one in found.errors] == block("errors")


def test_the_documented_plan_has_its_own_limit() -> None:
    assert [one.field for one in validate(block("request"), rules("free")).errors] == ["input"]


def test_every_member_is_in_the_table_and_known_to_the_gateway() -> None:
    rows = [row.split("|")[1] for row in DOCS.splitlines() if row.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == set(ValidationDraft.model_fields) == set(ValidationPolicy.__struct_fields__)
