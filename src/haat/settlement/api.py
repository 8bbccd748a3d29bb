"""Control API of settlements: statements with their evidence, shares, payouts, holds and disputes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field

from haat.control.context import ActorOf, Body, PlatformOf
from haat.invoices.service import BilledCall
from haat.settlement.balances import Balance
from haat.settlement.bank_answers import Answered
from haat.settlement.dispute_model import Dispute, LogForm
from haat.settlement.disputes import DisputedCall, DisputeStory, Verdict
from haat.settlement.evidence import MEDIA_TYPES, Form
from haat.settlement.payout_model import Account, Hold, Payout, Status, Terms
from haat.settlement.payouts import PayoutFile, PayoutStory
from haat.settlement.shares import ShareVersion
from haat.settlement.statements import Settlement, Statement

router = APIRouter(tags=["settlements"])

PERIOD = r"^[0-9]{4}-[0-9]{2}$"
Cursor = Annotated[str | None, Query(max_length=500)]
Limit = Annotated[int, Query(ge=1, le=100)]
Rupees = Annotated[Decimal, Field(ge=0, max_digits=20, decimal_places=2)]
Reason = Annotated[str, Field(min_length=1, max_length=300)]


class SettlementPage(BaseModel):
    items: list[Settlement]
    next: str | None


class SettledCallPage(BaseModel):
    items: list[BilledCall]
    next: str | None


class CloseRequest(Body):
    period: str = Field(pattern=PERIOD)


class ShareChange(Body):
    share: Annotated[Decimal, Field(ge=0, le=1, decimal_places=5, description="The provider's part, such as 0.7.")]
    effective_from: AwareDatetime | None = Field(None, description="From when; now without it, and never before that.")


# --- statements -----------------------------------------------------------------------------------


@router.get("/settlements")
async def page(
    actor: ActorOf,
    platform: PlatformOf,
    period: Annotated[str | None, Query(pattern=PERIOD)] = None,
    provider_org: UUID | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> SettlementPage:
    """List settlements, newest first; the operator sees every provider's."""
    found = await platform.settlements.page(actor, provider_org=provider_org, period=period, cursor=cursor, limit=limit)
    return SettlementPage(items=list(found.items), next=found.next)


@router.post("/settlements/runs")
async def run(body: CloseRequest, actor: ActorOf, platform: PlatformOf) -> list[Settlement]:
    """Settle a period's invoices for every provider (operator); doing it again changes nothing."""
    return await platform.settlements.close_all(actor, body.period)


@router.get("/settlements/{settlement_id}")
async def statement(settlement_id: UUID, actor: ActorOf, platform: PlatformOf) -> Statement:
    """Return a settlement with its lines, credits and withheld tax; customers are pseudonyms."""
    return await platform.settlements.statement(actor, settlement_id)


@router.get("/settlements/{settlement_id}/evidence", response_class=StreamingResponse)
async def evidence(settlement_id: UUID, actor: ActorOf, platform: PlatformOf, form: Form = "csv") -> StreamingResponse:
    """Stream every call behind a statement's lines, as CSV or Parquet."""
    pieces = platform.evidence.stream(actor, settlement_id, form)
    first = await anext(pieces)  # a refusal comes before the response begins

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    name = f"statement-{settlement_id}.{form}"
    return StreamingResponse(
        body(), media_type=MEDIA_TYPES[form], headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@router.get("/settlements/{settlement_id}/payouts")
async def payouts_of(settlement_id: UUID, actor: ActorOf, platform: PlatformOf) -> list[Payout]:
    """List the payouts that settle a statement, reversed ones among them."""
    return await platform.payouts.of_settlement(actor, settlement_id)


@router.get("/settlement-lines/{line_id}/calls")
async def calls(
    line_id: UUID, actor: ActorOf, platform: PlatformOf, cursor: Cursor = None, limit: Limit = 100
) -> SettledCallPage:
    """List the calls behind a line, by request id."""
    found = await platform.settlements.calls(actor, line_id, cursor=cursor, limit=limit)
    return SettledCallPage(items=list(found.items), next=found.next)


@router.get("/services/{service_id}/shares")
async def shares(service_id: UUID, actor: ActorOf, platform: PlatformOf) -> list[ShareVersion]:
    """List every version of a listing's split, newest first."""
    return await platform.shares.of(actor, service_id)


@router.post("/services/{service_id}/shares", status_code=201)
async def change_share(service_id: UUID, body: ShareChange, actor: ActorOf, platform: PlatformOf) -> list[ShareVersion]:
    """Give the provider another share from a time on (operator); earlier calls keep theirs."""
    return await platform.shares.change(actor, service_id, body.share, body.effective_from)


# --- balances, accounts, terms, holds -------------------------------------------------------------


class BankAccount(Body):
    holder: Annotated[str, Field(max_length=200)]
    number: Annotated[str, Field(max_length=40)]
    ifsc: Annotated[str, Field(max_length=20)]


class TermsChange(Body):
    """What holds for one provider; what is left out is as the settings say."""

    minimum: Rupees | None = None
    delay_days: Annotated[int | None, Field(ge=0, le=365)] = None
    withholdings: dict[str, str] = Field({}, max_length=20, description="Its own rates by the tax's name.")
    stopped: Annotated[str, Field(max_length=300)] = Field("", description="Why nothing is paid to it; empty: it is.")


class HoldRequest(Body):
    provider_org: UUID
    amount: Rupees | None = Field(None, description="Without it all of the settlement.")
    settlement_id: UUID | None = None
    reason: Reason


class ReasonGiven(Body):
    reason: Reason


@router.get("/balance")
async def balance(actor: ActorOf, platform: PlatformOf, provider_org: UUID | None = None) -> Balance:
    """Tell where a provider's money is, its payout terms and its account."""
    return await platform.payouts.balance(actor, provider_org)


@router.put("/bank-account")
async def set_account(body: BankAccount, actor: ActorOf, platform: PlatformOf) -> Account:
    """Set the account that one's payouts go to; its number is kept encrypted and never shown again."""
    return await platform.payouts.set_account(actor, body.holder, body.number, body.ifsc)


@router.put("/payout-terms/{org_id}")
async def set_terms(org_id: UUID, body: TermsChange, actor: ActorOf, platform: PlatformOf) -> Terms:
    """Set a provider's minimum, delay and tax rates, or stop its payouts (operator)."""
    return await platform.payouts.set_terms(
        actor,
        org_id,
        minimum=body.minimum,
        delay_days=body.delay_days,
        withholdings=body.withholdings,
        stopped=body.stopped,
    )


@router.get("/holds")
async def holds(actor: ActorOf, platform: PlatformOf, provider_org: UUID | None = None) -> list[Hold]:
    """List what is held now."""
    return await platform.payouts.holds(actor, provider_org)


@router.post("/holds", status_code=201)
async def hold(body: HoldRequest, actor: ActorOf, platform: PlatformOf) -> Hold:
    """Keep an amount out of a provider's payouts (operator)."""
    return await platform.payouts.hold(
        actor, body.provider_org, body.amount, body.reason, settlement=body.settlement_id
    )


@router.post("/holds/{hold_id}/release")
async def release_hold(hold_id: UUID, actor: ActorOf, platform: PlatformOf) -> Hold:
    """Release what the operator held (operator)."""
    return await platform.payouts.release_hold(actor, hold_id)


# --- payouts --------------------------------------------------------------------------------------


class PayoutPage(BaseModel):
    items: list[Payout]
    next: str | None


class CarriedView(BaseModel):
    org_id: UUID
    amount: Decimal


class RefusedView(BaseModel):
    org_id: UUID
    reason: str


class PayoutRunView(BaseModel):
    """``carried`` is owed and waits for more, ``refused`` can't be paid."""

    drafted: list[Payout]
    carried: list[CarriedView]
    refused: list[RefusedView]


class Arrival(Body):
    bank_reference: Annotated[str, Field(min_length=1, max_length=60, description="The bank's, such as the UTR.")]


@router.get("/payouts")
async def payouts(
    actor: ActorOf,
    platform: PlatformOf,
    status: Status | None = None,
    provider_org: UUID | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> PayoutPage:
    """List payouts, newest first; the operator sees every provider's."""
    found = await platform.payouts.page(actor, provider_org=provider_org, status=status, cursor=cursor, limit=limit)
    return PayoutPage(items=list(found.items), next=found.next)


@router.post("/payouts/runs")
async def draft_payouts(actor: ActorOf, platform: PlatformOf) -> PayoutRunView:
    """Draft payouts for all that providers are owed by now (operator); doing it again drafts nothing more."""
    done = await platform.payouts.draft_all(actor)
    return PayoutRunView(
        drafted=list(done.drafted),
        carried=[CarriedView(org_id=org, amount=amount) for org, amount in done.carried],
        refused=[RefusedView(org_id=org, reason=reason) for org, reason in done.refused],
    )


@router.get("/payouts/files")
async def payout_files(actor: ActorOf, platform: PlatformOf) -> list[PayoutFile]:
    """List the newest files for the bank (operator)."""
    return await platform.payouts.files(actor)


@router.post("/payouts/files")
async def send_payouts(actor: ActorOf, platform: PlatformOf) -> PayoutFile | None:
    """Put all approved payouts into a file for the bank (operator); null when there is none."""
    return await platform.payouts.send(actor)


@router.get("/payouts/files/{file_id}", response_class=PlainTextResponse)
async def payout_file(file_id: UUID, actor: ActorOf, platform: PlatformOf) -> PlainTextResponse:
    """Return a file for the bank's bulk upload, as CSV (operator)."""
    return PlainTextResponse(
        await platform.payouts.file(actor, file_id),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="payouts-{file_id}.csv"',
            "Cache-Control": "no-store",
        },
    )


@router.post("/payouts/answers")
async def take_answers(request: Request, actor: ActorOf, platform: PlatformOf, skip_refused: bool = False) -> Answered:
    """Take the bank's answer file, which is the body (CSV), whole or with ``skip_refused`` but its refused rows.

    Payouts are paid or returned (operator); taking it again changes nothing.
    """
    return await platform.bank_answers.take(actor, await request.body(), skip_refused=skip_refused)


@router.get("/payouts/{payout_id}")
async def payout(payout_id: UUID, actor: ActorOf, platform: PlatformOf) -> PayoutStory:
    """Return a payout with every row it settles and what was done with it."""
    return await platform.payouts.story(actor, payout_id)


@router.post("/payouts/{payout_id}/approve")
async def approve_payout(payout_id: UUID, actor: ActorOf, platform: PlatformOf) -> Payout:
    """Let a payout go into the next file (operator)."""
    return await platform.payouts.approve(actor, payout_id)


@router.post("/payouts/{payout_id}/hold")
async def hold_payout(payout_id: UUID, body: ReasonGiven, actor: ActorOf, platform: PlatformOf) -> Payout:
    """Stop a payout that isn't sent yet (operator)."""
    return await platform.payouts.hold_payout(actor, payout_id, body.reason)


@router.post("/payouts/{payout_id}/release")
async def release_payout(payout_id: UUID, actor: ActorOf, platform: PlatformOf) -> Payout:
    """Make a held payout a draft again (operator)."""
    return await platform.payouts.release_payout(actor, payout_id)


@router.post("/payouts/{payout_id}/paid")
async def payout_paid(payout_id: UUID, body: Arrival, actor: ActorOf, platform: PlatformOf) -> Payout:
    """Record that the money has arrived (operator)."""
    return await platform.payouts.pay(actor, payout_id, body.bank_reference)


@router.post("/payouts/{payout_id}/failed")
async def payout_failed(payout_id: UUID, body: ReasonGiven, actor: ActorOf, platform: PlatformOf) -> Payout:
    """Record that the bank refused it (operator)."""
    return await platform.payouts.fail(actor, payout_id, body.reason)


@router.post("/payouts/{payout_id}/reverse")
async def reverse_payout(payout_id: UUID, body: ReasonGiven, actor: ActorOf, platform: PlatformOf) -> Payout:
    """Let its rows go: the next draft takes them up (operator)."""
    return await platform.payouts.reverse(actor, payout_id, body.reason)


# --- disputes -------------------------------------------------------------------------------------


class DisputePage(BaseModel):
    items: list[Dispute]
    next: str | None


class DisputedCallPage(BaseModel):
    items: list[DisputedCall]
    next: str | None


class VerdictGiven(Body):
    invoice_line_id: UUID
    credit: Annotated[Decimal, Field(gt=0, max_digits=20, decimal_places=2, description="Rupees before tax.")]
    fault: Literal["provider", "platform"] = "provider"


class Decision(Body):
    """Lines that are not named go for the provider."""

    verdicts: list[VerdictGiven] = Field([], max_length=10_000)
    note: Reason


@router.get("/disputes")
async def disputes(
    actor: ActorOf,
    platform: PlatformOf,
    status: Literal["agreed", "open", "decided", "withdrawn"] | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> DisputePage:
    """List the disputes one opened, newest first; the operator sees all."""
    found = await platform.disputes.page(actor, status=status, cursor=cursor, limit=limit)
    return DisputePage(items=list(found.items), next=found.next)


@router.post("/disputes", status_code=201)
async def open_dispute(
    request: Request,
    actor: ActorOf,
    platform: PlatformOf,
    subject: Annotated[str, Query(max_length=60, description="settlement/{id} or invoice/{id}")],
    form: LogForm = "csv",
    reason: Annotated[str, Query(max_length=300)] = "",
) -> Dispute:
    """Hold one's own log, which is the body (CSV or JSON lines of any length), against a statement or an invoice."""
    return await platform.disputes.open(actor, subject, request.stream(), form, reason)


@router.get("/disputes/{dispute_id}")
async def dispute(dispute_id: UUID, actor: ActorOf, platform: PlatformOf) -> DisputeStory:
    """Return a dispute with the lines it contests."""
    return await platform.disputes.story(actor, dispute_id)


@router.get("/disputes/{dispute_id}/differences")
async def differences(
    dispute_id: UUID, actor: ActorOf, platform: PlatformOf, cursor: Cursor = None, limit: Limit = 100
) -> DisputedCallPage:
    """List the calls on which the logs differ, by request id."""
    found = await platform.disputes.differences(actor, dispute_id, cursor=cursor, limit=limit)
    return DisputedCallPage(items=list(found.items), next=found.next)


@router.post("/disputes/{dispute_id}/decide")
async def decide(dispute_id: UUID, body: Decision, actor: ActorOf, platform: PlatformOf) -> Dispute:
    """Decide a dispute (operator): what is given back becomes a credit note, the rest is released."""
    verdicts = {one.invoice_line_id: Verdict(one.credit, one.fault) for one in body.verdicts}
    return await platform.disputes.decide(actor, dispute_id, verdicts, body.note)


@router.post("/disputes/{dispute_id}/withdraw")
async def withdraw(dispute_id: UUID, actor: ActorOf, platform: PlatformOf) -> Dispute:
    """Give up a dispute that one opened."""
    return await platform.disputes.withdraw(actor, dispute_id)
