"""What a provider may say of how well its version translates: its own word, of its own pairs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from haat.catalog.api import VersionView
from haat.catalog.drafts import VersionPolicyDraft
from haat.gateway.market.policy import Quality, VersionPolicy
from haat.kernel.errors import ValidationFailed
from market import Market, draft

SAID = {"pair": "hi-Deva>ur-Arab", "score": "41.3", "test_set": "FLORES-200 devtest", "date": "2026-05-01"}
TASK: dict[str, Any] = {
    "endpoint": "https://api.example.in",
    "dialect": "task",
    "language_pairs": ["hi-Deva>ur-Arab"],
    "sample": {"body": {"input": [{"text": "a"}], "config": {}}},
}


def test_what_is_kept_is_what_the_gateway_reads() -> None:
    kept = VersionPolicyDraft.parse({"quality": [SAID]}).model_dump(mode="json", exclude_defaults=True)
    assert kept == {"quality": [SAID]}
    assert msgspec.convert(kept, VersionPolicy).quality == (Quality(**SAID),)


@pytest.mark.parametrize(
    "changed",
    [
        {"score": "100.1"}, {"score": "-1"}, {"score": "many"}, {"metric": "BLEU"}, {"pair": "hindi>urdu"},
        {"test_set": ""}, {"date": "yesterday"}, {"date": "2999-01-01"}, {"measured_by": "us"},
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_no_sense_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(ValidationFailed):
        VersionPolicyDraft.parse({"quality": [{**SAID, **changed}]})


@pytest.mark.parametrize(
    "quality", [[SAID, SAID], [{**SAID, "pair": "hi-Deva>ta-Taml"}]], ids=["twice", "another pair"]
)
async def test_it_is_of_the_versions_own_pairs_one_each(market: Market, quality: list[dict[str, str]]) -> None:
    with pytest.raises(ValidationError):
        draft(version={**TASK, "policy": {"quality": quality}})
    provider = await market.provider()
    made = await market.catalog.register(provider, draft(version=TASK))
    with pytest.raises(ValidationFailed) as refused:
        await market.catalog.versions.set_policy(
            provider, made.service_id, made.version_id, VersionPolicyDraft.parse({"quality": quality})
        )
    assert [error["field"] for error in refused.value.extensions["errors"]] == ["quality"]


async def test_buyers_see_it(market: Market) -> None:
    provider = await market.provider()
    made = await market.catalog.register(provider, draft(version={**TASK, "policy": {"quality": [SAID]}}))
    [version] = await market.discovery.versions(provider, made.service_id)
    assert VersionView.of(version).quality == [SAID]
