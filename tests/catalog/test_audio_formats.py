"""What a version may say of the formats in which it speaks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from haat.catalog.drafts import VersionPolicyDraft
from haat.gateway.market.policy import VersionPolicy
from haat.kernel.errors import ValidationFailed
from market import Market, draft

SPEAKS: dict[str, Any] = {
    "endpoint": "https://api.example.in/services/inference/tts",
    "sample": {"body": {"input": [{"text": "a"}], "config": {}}},
    "policy": {"audio_formats": ["wav", "mp3"]},
}


def test_what_is_kept_is_what_the_gateway_reads() -> None:
    kept = VersionPolicyDraft.parse({"audio_formats": ["mp3", "opus"]}).model_dump(mode="json", exclude_defaults=True)
    assert msgspec.convert(kept, VersionPolicy).audio_formats == ("mp3", "opus")


@pytest.mark.parametrize("formats", [["amr"], "mp3", ["mp3"] * 7, [None]])
def test_formats_that_no_door_knows_are_refused(formats: Any) -> None:
    with pytest.raises(ValidationFailed):
        VersionPolicyDraft.parse({"audio_formats": formats})


async def test_only_versions_that_can_be_told_a_format_can_say_so(market: Market) -> None:
    for dialect in ("task", "ulca"):
        assert draft(unit="characters", version={**SPEAKS, "dialect": dialect}).version.policy.audio_formats
    with pytest.raises(ValidationError, match="audio_formats"):
        draft(version={**SPEAKS, "dialect": "http"})
    provider = await market.provider()
    listing = await market.listing(provider)
    [version] = await market.discovery.versions(provider, listing.id)
    with pytest.raises(ValidationFailed) as raised:
        await market.catalog.versions.set_policy(
            provider, listing.id, version.id, VersionPolicyDraft.parse(SPEAKS["policy"])
        )
    assert raised.value.extensions["errors"][0]["field"] == "audio_formats"
