"""What happens to wallets and budgets by itself: grants expire, thresholds are reached, leases are swept."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from haat.infra.jobs import Retry, RunningJob, Schedule, Task
from haat.infra.letters import MailTemplate, in_line, post, rupees
from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM
from haat.language.messages import N_, _, speaking

if TYPE_CHECKING:
    from haat.app import Platform


REACHED = MailTemplate(
    "budget.reached",
    N_("{share} of a budget is spent"),
    N_(
        "The budget for {budget} in {period} is {amount}; {spent} of it is spent, before tax.\n\n"
        "{outcome}\n\nLook at it here: {link}\n"
    ),
)
MAILS = (REACHED,)


async def expire(platform: Platform, _job: RunningJob) -> None:
    """Take back what is left of grants whose time is over, and forget leases that are done with."""
    await platform.wallets.expire()
    await platform.wallets.sweep()


async def review(platform: Platform, _job: RunningJob) -> None:
    """Look which budgets have reached which thresholds."""
    await platform.budgets.review()


async def mail_organisation(platform: Platform, event: DomainEvent) -> None:
    """Tell an organisation's members that a budget has reached a threshold."""
    if event.org is None:
        return
    data, tag = event.data, await platform.papers.language(PLATFORM, event.org)
    with speaking(tag):
        if data["threshold"] < 100:
            outcome = _("Calls go on.")
        elif data["hard_stop"]:
            outcome = _("It is a hard stop: calls are refused until the month is over or the budget is raised.")
        else:
            outcome = _("It is no hard stop: calls go on and are billed.")
    await post(
        platform,
        REACHED,
        tag,
        await platform.identity.member_emails(event.org),
        event.id,
        budget=data["name"],
        share=in_line(f"{data['threshold']} %", tag),
        period=data["period"],
        amount=rupees(Decimal(data["amount"]), tag),
        spent=rupees(Decimal(data["spent"]), tag),
        outcome=outcome,
        link=f"{platform.settings.portal_address}/account/wallet",
    )


EXPIRE = Task("wallet.expire", expire, Retry(max_attempts=1))
REVIEW = Task("wallet.review", review, Retry(max_attempts=1))
TASKS = (EXPIRE, REVIEW)
SCHEDULES = (Schedule(EXPIRE.name, "*/10 * * * *"), Schedule(REVIEW.name, "* * * * *"))
HANDLERS = [EventHandler("wallet.mail_organisation", frozenset({"budget.reached"}), mail_organisation)]
