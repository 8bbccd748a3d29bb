"""What happens to rollouts and experiments by itself: once a minute, and when a gateway has left a version."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.infra.jobs import Retry, RunningJob, Schedule, Task
from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM

if TYPE_CHECKING:
    from haat.app import Platform


async def review(platform: Platform, _: RunningJob) -> None:
    """Send back what is worse, go on where a step is over, begin and end experiments."""
    await platform.rollouts.review()
    await platform.experiments.review()


async def take_back(platform: Platform, event: DomainEvent) -> None:
    """Make it last that a gateway has left a version."""
    identifier = UUID(event.stream.removeprefix("rollout/"))
    reason, figures = str(event.data.get("reason", "")), event.data.get("figures", {})
    if not await platform.rollouts.tripped(identifier, reason, figures):
        await platform.experiments.tripped(identifier, reason, figures)


async def mail_provider(platform: Platform, event: DomainEvent) -> None:
    """Tell the provider that its candidate went back, or its experiment was stopped."""
    if event.org is None:
        return
    service_id = UUID(event.stream.removeprefix("service/"))
    partner = await platform.partners.get(PLATFORM, event.org)
    what = "Your rollout was rolled back" if event.type == "rollout.rolled_back" else "Your experiment was stopped"
    reason = event.data.get("reason") or "Somebody decided so."
    figures = "".join(f"{name}: {value}\n" for name, value in event.data.get("figures", {}).items())
    await platform.mail.send(
        to=partner.email,
        subject=what,
        text=(
            f"{what}: all calls go to the control again.\n\n{reason}\n\n{figures}\n"
            f"Look at it here: {platform.settings.portal_address}/partner/services/{service_id}/rollout\n"
        ),
        message_id=str(event.id),
    )


REVIEW = Task("rollouts.review", review, Retry(max_attempts=1))
TASKS = (REVIEW,)
SCHEDULES = (Schedule(REVIEW.name, "* * * * *"),)
HANDLERS = [
    EventHandler("rollouts.take_back", frozenset({"rollout.tripped"}), take_back),
    EventHandler("rollouts.mail_provider", frozenset({"rollout.rolled_back", "experiment.stopped"}), mail_provider),
]
