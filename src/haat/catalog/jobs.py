"""What the catalog does when something happens to a provider, and in its own time to keep listings findable."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from haat.infra.jobs import RunningJob, Schedule, Task
from haat.kernel.clock import Period
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


# --- the index --------------------------------------------------------------------------------------

_WEEK = timedelta(days=7)


async def keep_index(platform: Platform, job: RunningJob) -> None:
    """Index open listings that are not yet, in batches, and take over announced prices that have begun."""
    indexed = 0
    while some := await platform.catalog.index_some(PLATFORM):
        indexed += some
        await job.report(0.5, f"{indexed:,} listings indexed")
    await platform.catalog.renew_prices(PLATFORM)


async def rank(platform: Platform, job: RunningJob) -> None:
    """Order listings and words by the use of the last week, and take over how quick listings were."""
    now = platform.clock.now()
    usage = await platform.usage.summary(PLATFORM, Period(now - _WEEK, now, "a week"))
    used = [(one.service_id, one.counts.calls - one.counts.refused, one.p95_ms) for one in usage if one.service_id]
    listings, words = await platform.catalog.rank(PLATFORM, used)
    await job.report(1, f"{listings:,} listings and {words:,} words moved")


TASKS = [
    Task("catalog.keep_index", keep_index, timeout_seconds=3600),
    Task("catalog.rank", rank, timeout_seconds=3600),
]
SCHEDULES = [Schedule("catalog.keep_index", "* * * * *"), Schedule("catalog.rank", "17 * * * *")]
HANDLERS = [
    EventHandler("catalog.close_stall", frozenset({"partner.suspended"}), close_stall),
    EventHandler("catalog.open_stall", frozenset({"partner.approved"}), open_stall),
]
