"""What visitors read about answers that are kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from haat.app import Platform
from haat.catalog.drafts import CachePolicyDraft, ServicePolicyDraft
from haat.portal.formats import duration

from .conftest import Browser
from .street import Street


async def test_a_listing_says_that_answers_are_kept_and_shared(
    street: Street, platform: Platform, browser_for: Callable[[str | None], Awaitable[Browser]]
) -> None:
    listing = next(one for one in street.listings if one.org_id == street.provider.org_id)
    browser = await browser_for(None)
    assert "given to every subscriber" not in (await browser.get(f"/services/{listing.path}")).text
    policy = ServicePolicyDraft(cache=CachePolicyDraft(ttl_seconds=7200))
    await platform.catalog.set_policy(street.provider, listing.id, policy)
    page = await browser.get(f"/services/{listing.path}")
    assert page.status_code == 200
    assert "kept up to 2\u00a0hours and given to every subscriber who asks the same" in page.text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1\u00a0second"), (90, "90\u00a0seconds"), (3600, "1\u00a0hour"), (172_800, "2\u00a0days")],
)
def test_a_duration_is_written_in_its_largest_whole_unit(seconds: int, text: str) -> None:
    assert duration(seconds) == text
