"""Control API of rating: what a month would have cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from haat.catalog.drafts import PriceDraft
from haat.control.context import ActorOf, Body, PlatformOf
from haat.rating.simulation import Compared, charge_data

router = APIRouter(tags=["rating"], prefix="/rating")


class SimulationRequest(Body):
    """A card, a plan, or both: the card takes the place of the one it would replace, the plan of everybody's."""

    service_id: UUID
    period: str | None = Field(None, pattern=r"^[0-9]{4}-[0-9]{2}$", description="A month; the last one by default.")
    card: PriceDraft | None = None
    plan: Annotated[str, Field(pattern=r"^[a-z0-9](-?[a-z0-9]){0,39}$")] | None = None
    org_id: UUID | None = Field(None, description="One customer: oneself, or for the operator anybody.")
    limit: int = Field(100, ge=0, le=1000, description="How many customers are listed; the sums are of all.")


class ComparedView(BaseModel):
    customer: str
    calls: int
    present: Decimal
    simulated: Decimal
    difference: Decimal
    charges: list[dict[str, Any]]


class SimulationView(BaseModel):
    """Rupees before tax; each line is rounded as an invoice's is."""

    service_id: UUID
    service: str
    period: str
    plan: str | None
    present: Decimal
    simulated: Decimal
    difference: Decimal
    unpriced: int
    customers_in_all: int
    customers: list[ComparedView]


@router.post("/simulations")
async def simulate(body: SimulationRequest, actor: ActorOf, platform: PlatformOf) -> SimulationView:
    """Tell what a month would have cost on a card: oneself, or for a provider all customers of its listing."""
    found = await platform.simulator.simulate(
        actor, body.service_id, period=body.period, draft=body.card, plan=body.plan, org=body.org_id
    )
    return SimulationView(
        service_id=found.service,
        service=found.name,
        period=found.period,
        plan=found.plan,
        present=found.present,
        simulated=found.simulated,
        difference=found.difference,
        unpriced=found.unpriced,
        customers_in_all=len(found.customers),
        customers=[_compared(one) for one in found.customers[: body.limit]],
    )


def _compared(one: Compared) -> ComparedView:
    return ComparedView(
        customer=one.customer,
        calls=one.calls,
        present=one.present,
        simulated=one.simulated,
        difference=one.difference,
        charges=[charge_data(charge) for charge in one.charges],
    )
