"""What the catalog does when something happens to a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM

if TYPE_CHECKING:
    from haat.app import Platform


async def close_stall(platform: Platform, event: DomainEvent) -> None:
    """Suspend a suspended provider's listings, so that nobody finds or subscribes to them."""
    org_id = UUID(event.stream.removeprefix("partner/"))
    if (await platform.partners.get(PLATFORM, org_id)).status == "suspended":
        await platform.catalog.suspend_provider(PLATFORM, org_id, str(event.data.get("reason", "")))


async def open_stall(platform: Platform, event: DomainEvent) -> None:
    """Open the listings of a provider that is back."""
    org_id = UUID(event.stream.removeprefix("partner/"))
    if (await platform.partners.get(PLATFORM, org_id)).status == "approved":
        await platform.catalog.restore_provider(PLATFORM, org_id)


HANDLERS = [
    EventHandler("catalog.close_stall", frozenset({"partner.suspended"}), close_stall),
    EventHandler("catalog.open_stall", frozenset({"partner.approved"}), open_stall),
]
