"""What happens to rollouts and experiments by itself: once a minute, and when a gateway has left a version."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.infra.jobs import Retry, RunningJob, Schedule, Task
from haat.infra.letters import MailTemplate, post
from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM
from haat.language.messages import N_, speaking, told

if TYPE_CHECKING:
    from haat.app import Platform


_LETTERS = {
    "rollout.rolled_back": MailTemplate(
        "rollout.rolled_back",
        N_("Your rollout was rolled back"),
        N_(
            "Your rollout was rolled back: all calls go to the control again.\n\n{reason}\n\n{figures}\n"
            "Look at it here: {link}\n"
        ),
    ),
    "experiment.stopped": MailTemplate(
        "experiment.stopped",
        N_("Your experiment was stopped"),
        N_(
            "Your experiment was stopped: all calls go to the control again.\n\n{reason}\n\n{figures}\n"
            "Look at it here: {link}\n"
        ),
    ),
}
MAILS = tuple(_LETTERS.values())


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
    tag = await platform.papers.language(PLATFORM, event.org)
    with speaking(tag):
        reason = told(event.data.get("reason") or N_("Somebody decided so."))
    figures = "".join(f"{name}: {value}\n" for name, value in event.data.get("figures", {}).items())
    await post(
        platform,
        _LETTERS[event.type],
        tag,
        [partner.email],
        event.id,
        reason=reason,
        figures=figures,
        link=f"{platform.settings.portal_address}/partner/services/{service_id}/rollout",
    )


REVIEW = Task("rollouts.review", review, Retry(max_attempts=1))
TASKS = (REVIEW,)
SCHEDULES = (Schedule(REVIEW.name, "* * * * *"),)
HANDLERS = [
    EventHandler("rollouts.take_back", frozenset({"rollout.tripped"}), take_back),
    EventHandler("rollouts.mail_provider", frozenset(_LETTERS), mail_provider),
]
