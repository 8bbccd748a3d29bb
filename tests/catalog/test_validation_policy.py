"""What a version may say of the batches it takes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from haat.catalog.drafts import VersionPolicyDraft
from haat.gateway.market.policy import Bounds, ValidationPolicy, VersionPolicy
from haat.kernel.errors import ValidationFailed
from market import Market, draft

TASK: dict[str, Any] = {
    "endpoint": "https://api.example.in",
    "dialect": "task",
    "sample": {"body": {"input": [{"text": "a"}], "config": {}}},
}


def test_what_is_kept_is_what_the_gateway_reads() -> None:
    said = {"validation": {"items": 5, "duplicates": "refuse", "plans": {"free": {"items": 2}}}}
    kept = VersionPolicyDraft.parse(said).model_dump(mode="json", exclude_defaults=True)
    expected = ValidationPolicy(items=5, duplicates="refuse", plans={"free": Bounds(items=2)})
    assert msgspec.convert(kept, VersionPolicy).validation == expected


def test_to_ask_for_nothing_in_particular_is_to_ask_for_texts_that_are_not_empty() -> None:
    kept = VersionPolicyDraft.parse({"validation": {}}).model_dump(mode="json", exclude_defaults=True)
    assert msgspec.convert(kept, VersionPolicy).validation == ValidationPolicy()


@pytest.mark.parametrize(
    "validation",
    [
        {"items": -1},
        {"items": 10**9},
        {"duplicates": "warn"},
        {"profanity": "mask"},
        {"unknown": 1},
        {"least": 5, "most": 4},
        {"least": 5, "plans": {"free": {"most": 4}}},
        {"plans": {"Free plan": {}}},
        {"plans": {"free": {"least": 1}}},
    ],
)
def test_what_makes_no_sense_is_refused(validation: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        VersionPolicyDraft.parse({"validation": validation})


async def test_only_versions_of_the_task_schema_can_ask_for_it(market: Market) -> None:
    policy = {"validation": {"most": 10}}
    assert draft(version={**TASK, "policy": policy}).version.policy.validation
    http = {**TASK, "dialect": "http"}
    with pytest.raises(ValidationError):
        draft(version={**http, "policy": policy})
    provider = await market.provider()
    made = await market.catalog.register(provider, draft(version=http))
    with pytest.raises(ValidationFailed):
        await market.catalog.versions.set_policy(
            provider, made.service_id, made.version_id, VersionPolicyDraft.parse(policy)
        )
