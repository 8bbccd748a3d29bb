"""What happens to wallets and budgets by itself: grants expire, thresholds are reached, leases are swept."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from haat.infra.jobs import Retry, RunningJob, Schedule, Task
from haat.kernel.events import DomainEvent, EventHandler

if TYPE_CHECKING:
    from haat.app import Platform


async def expire(platform: Platform, _: RunningJob) -> None:
    """Take back what is left of grants whose time is over, and forget leases that are done with."""
    await platform.wallets.expire()
    await platform.wallets.sweep()


async def review(platform: Platform, _: RunningJob) -> None:
    """Look which budgets have reached which thresholds."""
    await platform.budgets.review()


async def mail_organisation(platform: Platform, event: DomainEvent) -> None:
    """Tell an organisation's members that a budget has reached a threshold."""
    if event.org is None:
        return
    data = event.data
    name, threshold, period = data["name"], data["threshold"], data["period"]
    spent, amount = Decimal(data["spent"]), Decimal(data["amount"])
    if threshold < 100:
        outcome = "Calls go on."
    elif data["hard_stop"]:
        outcome = "It is a hard stop: calls are refused until the month is over or the budget is raised."
    else:
        outcome = "It is no hard stop: calls go on and are billed."
    for address in await platform.identity.member_emails(event.org):
        await platform.mail.send(
            to=address,
            subject=f"{threshold} % of a budget is spent",
            text=(
                f"The budget for {name} in {period} is ₹{amount:,.2f}; ₹{spent:,.2f} of it is spent, before tax.\n\n"
                f"{outcome}\n\nLook at it here: {platform.settings.portal_address}/account/wallet\n"
            ),
            message_id=f"{event.id}.{address.replace('@', '.at.')}",
        )


EXPIRE = Task("wallet.expire", expire, Retry(max_attempts=1))
REVIEW = Task("wallet.review", review, Retry(max_attempts=1))
TASKS = (EXPIRE, REVIEW)
SCHEDULES = (Schedule(EXPIRE.name, "*/10 * * * *"), Schedule(REVIEW.name, "* * * * *"))
HANDLERS = [EventHandler("wallet.mail_organisation", frozenset({"budget.reached"}), mail_organisation)]
