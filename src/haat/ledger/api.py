"""Control API of the ledger."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel

from haat.control.context import ActorOf, PlatformOf
from haat.ledger.model import Balance
from haat.ledger.service import Booked, Posted

router = APIRouter(tags=["ledger"], prefix="/ledger")

Account = Annotated[str, Query(min_length=1, max_length=120)]


class TrialBalanceView(BaseModel):
    """All accounts; the books are right when each currency's sum is zero."""

    at: datetime | None
    balances: list[Balance]
    sums: dict[str, Decimal]


class EntryPage(BaseModel):
    items: list[Posted]
    next: str | None


@router.get("/trial-balance")
async def trial_balance(actor: ActorOf, platform: PlatformOf, at: AwareDatetime | None = None) -> TrialBalanceView:
    """Return what stands on every account, now or as it stood at a time (operator)."""
    found = await platform.ledger.trial_balance(actor, at)
    return TrialBalanceView(at=found.at, balances=list(found.balances), sums=found.sums)


@router.get("/entries")
async def entries(
    account: Account,
    actor: ActorOf,
    platform: PlatformOf,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> EntryPage:
    """List an account's entries, newest first: of one's own accounts, or for the operator of any."""
    found = await platform.ledger.entries(actor, account, cursor=cursor, limit=limit)
    return EntryPage(items=list(found.items), next=found.next)


@router.get("/operations")
async def operations(
    reference: Annotated[str, Query(min_length=1, max_length=200)], actor: ActorOf, platform: PlatformOf
) -> list[Booked]:
    """List what was posted about something, such as `invoice/{id}` (operator)."""
    return await platform.ledger.about(actor, reference)
