"""Invoices: lines, GST by place of supply, serials, and a document that never changes once issued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.kernel.errors import ValidationFailed
from haat.kernel.money import exact, multiply, to_paisa, total
from haat.language.messages import N_, _
from haat.rating.model import Charge, Step

STATES: Mapping[str, str] = {
    "01": N_("Jammu and Kashmir"),
    "02": N_("Himachal Pradesh"),
    "03": N_("Punjab"),
    "04": N_("Chandigarh"),
    "05": N_("Uttarakhand"),
    "06": N_("Haryana"),
    "07": N_("Delhi"),
    "08": N_("Rajasthan"),
    "09": N_("Uttar Pradesh"),
    "10": N_("Bihar"),
    "11": N_("Sikkim"),
    "12": N_("Arunachal Pradesh"),
    "13": N_("Nagaland"),
    "14": N_("Manipur"),
    "15": N_("Mizoram"),
    "16": N_("Tripura"),
    "17": N_("Meghalaya"),
    "18": N_("Assam"),
    "19": N_("West Bengal"),
    "20": N_("Jharkhand"),
    "21": N_("Odisha"),
    "22": N_("Chhattisgarh"),
    "23": N_("Madhya Pradesh"),
    "24": N_("Gujarat"),
    "26": N_("Dadra and Nagar Haveli and Daman and Diu"),
    "27": N_("Maharashtra"),
    "29": N_("Karnataka"),
    "30": N_("Goa"),
    "31": N_("Lakshadweep"),
    "32": N_("Kerala"),
    "33": N_("Tamil Nadu"),
    "34": N_("Puducherry"),
    "35": N_("Andaman and Nicobar Islands"),
    "36": N_("Telangana"),
    "37": N_("Andhra Pradesh"),
    "38": N_("Ladakh"),
    "97": N_("Other Territory"),
}
"""GST codes of States and Union territories; invoices print their names as they stand here."""

WITHOUT_LEGISLATURE = frozenset({"04", "26", "31", "35", "38", "97"})
"""Union territories that levy UTGST; Delhi, Puducherry, and Jammu and Kashmir have legislatures and levy SGST."""

MAX_SERIAL = 16  # CGST Rules, rule 46 (b)


@dataclass(frozen=True, slots=True)
class Tax:
    """One tax on an invoice; ``rate`` as a fraction, ``amount`` in rupees and whole paise."""

    name: str
    rate: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Billed:
    """What issued lines of a month charge for one thing already."""

    quantity: Decimal = Decimal(0)
    free_units: Decimal = Decimal(0)
    calls: int = 0
    taxable: Decimal = Decimal(0)


NOTHING = Billed()


@dataclass(frozen=True, slots=True)
class FormerCard:
    """The price that an issued line was made with."""

    id: UUID
    version: int
    unit: str
    unit_price: Decimal
    provider_share: Decimal


@dataclass(frozen=True, slots=True)
class Former:
    """What an issued line charges for and nothing is charged for any more: every call of it was voided."""

    key: str
    subscription: UUID
    service: UUID
    plan: str | None
    provider_org: UUID
    card: FormerCard
    start: datetime
    end: datetime
    cached_share: Decimal | None
    kind: str
    meter: str
    counted: Mapping[str, Any]
    quantity: Decimal = Decimal(0)
    free_units: Decimal = Decimal(0)
    calls: int = 0
    amount: Decimal = Decimal(0)

    def members(self) -> Mapping[str, Any]:
        """What its calls have in common, as the line says it."""
        return self.counted


@dataclass(frozen=True, slots=True)
class Line:
    """What a charge adds to the lines that a month has already; its calls are found by a predicate, frozen with it.

    ``charge`` is the whole month's: lines of one charge add up to what it comes to, rounded once. ``adjusts``: the
    month was closed before, and usage came late, was voided or corrected. Such a line may be below zero.
    """

    charge: Charge | Former
    identity: str
    period: str
    batch_from: int
    batch_to: int
    description: str
    billed: Billed = NOTHING
    adjusts: bool = False

    @property
    def kind(self) -> str:
        return "adjustment" if self.adjusts else self.charge.kind

    @property
    def quantity(self) -> Decimal:
        return total((self.charge.quantity, -self.billed.quantity))

    @property
    def free_units(self) -> Decimal:
        return total((self.charge.free_units, -self.billed.free_units))

    @property
    def calls(self) -> int:
        return self.charge.calls - self.billed.calls

    @property
    def taxable(self) -> Decimal:
        """The taxable value: the one place where an amount is rounded."""
        return total((to_paisa(self.charge.amount), -self.billed.taxable))

    @property
    def says_something(self) -> bool:
        return bool(self.quantity or self.free_units or self.calls or self.taxable) or self.billed is NOTHING


@dataclass(frozen=True, slots=True)
class Draft:
    """What an invoice says before it has a serial."""

    lines: Sequence[Line]
    taxes: Sequence[Tax]
    place_of_supply: str

    @property
    def net(self) -> Decimal:
        return total(line.taxable for line in self.lines)

    @property
    def tax(self) -> Decimal:
        return total(tax.amount for tax in self.taxes)

    @property
    def total(self) -> Decimal:
        return total((self.net, self.tax))


@dataclass(frozen=True, slots=True)
class Supplier:
    """Who sells: the operator, as its settings name it."""

    name: str
    address: str
    gstin: str
    state_code: str
    gst_rate: Decimal
    sac_code: str
    serial_prefix: str


def charge_key(charge: Charge | Former) -> str:
    """Return what a charge is for: those of one key and month are the same charge, rated at two times."""
    if isinstance(charge, Former):
        return charge.key
    card = charge.card
    kind, meter = charge.kind, charge.meter
    cached = "" if charge.cached_share is None else f"/cached-{plain(charge.cached_share)}"
    special = "" if (kind, meter) == ("usage", "") else f"/{kind}-{meter}"
    return (
        f"{charge.subscription}/{charge.plan or '-'}/{card.id}/v{card.version}/{charge.provider_org}{cached}{special}"
    )


def line_identity(charge: Charge | Former, period: str, batches: tuple[int, int], attempt: int = 0) -> str:
    """Return what makes a line the same line in a second run; the store keeps it unique.

    A line is known by the batch from which its usage counts. One that falls due without new usage, such as a minimum
    when the month is over, leaves that batch to the line of usage that comes later. ``attempt``: how many of the
    organisation's invoices were voided, after which their usage is billed again.
    """
    first, last = batches
    place = f"{first}" if last > first else f"{first}-{last}"
    again = f"#{attempt}" if attempt else ""
    return f"{charge_key(charge)}/{period}[{place}]{again}"


def place_of_supply(state_code: str | None, gstin: str | None, supplier_state: str) -> str:
    """Return the State code of supply to a buyer (IGST Act, section 12 (2)).

    A registered buyer's place is the one of its registration, another buyer's the one of its address;
    without an address on record it is the supplier's.
    """
    code = (gstin or "")[:2] or state_code or supplier_state
    if code not in STATES:
        raise ValidationFailed(
            _("The buyer's State is not one GST knows: correct it in the organisation's details."),
            errors=[{"field": "state_code", "message": _("%(code)s is not a GST State code", code=code)}],
        )
    return code


def taxes(net: Decimal, rate: Decimal, supplier_state: str, place: str) -> list[Tax]:
    """Return the taxes on an invoice's taxable value, each rounded half-up to the paisa once.

    Within a State CGST and SGST (UTGST where the territory has no legislature) take half the rate
    each and are equal to the paisa, as the law has them; the invoice's tax is their sum.
    """
    if place != supplier_state:
        return [Tax("IGST", rate, to_paisa(multiply(net, rate)))]
    half = exact(rate) / 2
    amount = to_paisa(multiply(net, half))
    return [Tax("CGST", half, amount), Tax("UTGST" if place in WITHOUT_LEGISLATURE else "SGST", half, amount)]


def serial_text(prefix: str, financial_year: str, number: int) -> str:
    """Return a serial such as ``HT/2627/000001``: letters, digits and slashes, 16 characters at most."""
    serial = f"{prefix}/{financial_year}/{number:06d}"
    if len(serial) > MAX_SERIAL:
        raise ValueError(f"{serial} is longer than {MAX_SERIAL} characters: choose a shorter invoice_prefix")
    return serial


def plain(value: Decimal) -> str:
    """Return a number without exponent and superfluous zeros: ``0.05``, ``1200``."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def document(
    draft: Draft,
    *,
    id: UUID,
    kind: str,
    serial: str,
    period: str,
    part: int,
    issued_at: datetime,
    local_date: str,
    due_on: date | None,
    supply: str,
    supplier: Supplier,
    buyer: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the invoice as the data of rule 46; amounts are decimal texts, so no reader rounds them."""
    return {
        **head(kind, id=id, serial=serial, issued_at=issued_at, local_date=local_date, supply=supply),
        "period": period,
        "part": part,
        "due_on": due_on.isoformat() if due_on else None,
        "supplier": {
            "name": supplier.name,
            "address": supplier.address,
            "gstin": supplier.gstin,
            "state_code": supplier.state_code,
            "state": STATES.get(supplier.state_code, ""),
        },
        "recipient": {
            "id": str(buyer["id"]),
            "name": buyer["name"],
            "address": buyer["address"],
            "gstin": buyer["gstin"],
        },
        "reverse_charge": False,
        "lines": [line_data(line, supplier.sac_code) for line in draft.lines],
        **sums(draft.place_of_supply, draft.net, draft.taxes),
        "irn": None,
        "irn_qr": None,
    }


def head(kind: str, *, id: UUID, serial: str, issued_at: datetime, local_date: str, supply: str) -> dict[str, Any]:
    """Return what every document begins with: an invoice, a debit note, a credit note, a statement of usage."""
    return {
        "id": str(id),
        "kind": kind,
        "serial": serial,
        "date": local_date,
        "issued_at": issued_at.isoformat(),
        "currency": "INR",
        "supply": supply,
    }


def sums(place: str, net: Decimal, found: Sequence[Tax]) -> dict[str, Any]:
    """Return how a document ends: where the supply is, its value, and its taxes."""
    tax = total(one.amount for one in found)
    return {
        "place_of_supply": {"state_code": place, "state": STATES[place]},
        "taxable_value": str(net),
        "taxes": [{"name": one.name, "rate": plain(one.rate), "amount": str(one.amount)} for one in found],
        "tax": str(tax),
        "total": str(total((net, tax))),
    }


def line_data(line: Line, sac_code: str) -> dict[str, Any]:
    """Return a line as the document has it; ``cached_share`` is there on lines of answers out of the cache.

    ``meter`` and ``steps``, which sum to the whole month's amount, are there where billable × price isn't all there
    is to say.
    """
    charge = line.charge
    more: dict[str, Any] = {} if charge.cached_share is None else {"cached_share": plain(charge.cached_share)}
    if isinstance(charge, Charge) and not charge.plain:
        more |= {"meter": charge.meter, "steps": [step_data(step) for step in charge.steps or ()]}
    return more | {
        "identity": line.identity,
        "kind": line.kind,
        "description": line.description,
        "sac": sac_code,
        "period": line.period,
        "from": charge.start.isoformat(),
        "to": charge.end.isoformat(),
        "plan": charge.plan,
        "calls": line.calls,
        "unit": charge.card.unit,
        "quantity": plain(line.quantity),
        "free_units": plain(line.free_units),
        "billable": plain(total((line.quantity, -line.free_units))),
        "unit_price": plain(charge.card.unit_price),
        "rate_card_version": charge.card.version,
        "taxable_value": str(line.taxable),
    }


def step_data(step: Step) -> dict[str, str]:
    """Return one term of an amount as the document has it."""
    numbers = {"quantity": step.quantity, "price": step.price, "amount": step.amount}
    return {"label": step.label} | {field: plain(value) for field, value in numbers.items()}


def describe(name: str, charge: Charge | Former, adjusts: str = "") -> str:
    """Return what a line says it is for; ``adjusts`` is the closed month that it corrects."""
    said = name
    if charge.kind != "usage":
        said = f"{name}, {'minimum of the month' if charge.kind == 'minimum' else charge.meter}"
    elif charge.meter not in ("", charge.card.unit):
        said = f"{name}, {charge.meter}"
    said = said if charge.cached_share is None else f"{said}, answered from the cache"
    return f"{said}, adjustment of {adjusts}" if adjusts else said


def canonical(body: Mapping[str, Any]) -> str:
    """Return the one text of a document: this, byte for byte, is what was issued."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
