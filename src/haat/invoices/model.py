"""Invoices: lines, GST by place of supply, serials, and a document that never changes once issued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.kernel.errors import ValidationFailed
from haat.kernel.money import exact, multiply, to_paisa, total
from haat.rating.model import Charge, Step

STATES: Mapping[str, str] = {
    "01": "Jammu and Kashmir",
    "02": "Himachal Pradesh",
    "03": "Punjab",
    "04": "Chandigarh",
    "05": "Uttarakhand",
    "06": "Haryana",
    "07": "Delhi",
    "08": "Rajasthan",
    "09": "Uttar Pradesh",
    "10": "Bihar",
    "11": "Sikkim",
    "12": "Arunachal Pradesh",
    "13": "Nagaland",
    "14": "Manipur",
    "15": "Mizoram",
    "16": "Tripura",
    "17": "Meghalaya",
    "18": "Assam",
    "19": "West Bengal",
    "20": "Jharkhand",
    "21": "Odisha",
    "22": "Chhattisgarh",
    "23": "Madhya Pradesh",
    "24": "Gujarat",
    "26": "Dadra and Nagar Haveli and Daman and Diu",
    "27": "Maharashtra",
    "29": "Karnataka",
    "30": "Goa",
    "31": "Lakshadweep",
    "32": "Kerala",
    "33": "Tamil Nadu",
    "34": "Puducherry",
    "35": "Andaman and Nicobar Islands",
    "36": "Telangana",
    "37": "Andhra Pradesh",
    "38": "Ladakh",
    "97": "Other Territory",
}
"""GST codes of States and Union territories."""

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
class Line:
    """A charge on an invoice. Its members are found by the predicate in `LineMembers`, frozen with it."""

    charge: Charge
    identity: str
    period: str
    batch_from: int
    batch_to: int
    description: str

    @property
    def taxable(self) -> Decimal:
        """The taxable value: the one place where an amount is rounded."""
        return to_paisa(self.charge.amount)


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


def line_identity(charge: Charge, period: str, batch_from: int, batch_to: int) -> str:
    """Return what makes a line the same line in a second run; the store keeps it unique."""
    plan = charge.plan or "-"
    card = charge.card
    cached = "" if charge.cached_share is None else f"/cached-{plain(charge.cached_share)}"
    what = f"{charge.subscription}/{plan}/{card.id}/v{card.version}/{charge.provider_org}{cached}"
    if charge.plain:
        return f"{what}/{period}[{batch_from}]"
    if charge.kind == "usage":
        return f"{what}/{charge.meter}/{period}[{batch_from}]"
    return f"{what}/{charge.kind}/{charge.meter}/{period}[{batch_from}-{batch_to}]"


def place_of_supply(state_code: str | None, gstin: str | None, supplier_state: str) -> str:
    """Return the State code of supply to a buyer (IGST Act, section 12 (2)).

    A registered buyer's place is the one of its registration, another buyer's the one of its address;
    without an address on record it is the supplier's.
    """
    code = (gstin or "")[:2] or state_code or supplier_state
    if code not in STATES:
        raise ValidationFailed(
            "The buyer's State is not one GST knows: correct it in the organisation's details.",
            errors=[{"field": "state_code", "message": f"{code} is not a GST State code"}],
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
    serial: str,
    period: str,
    part: int,
    issued_at: datetime,
    local_date: str,
    supplier: Supplier,
    buyer: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the invoice as the data of rule 46; amounts are decimal texts, so no reader rounds them."""
    return {
        "id": str(id),
        "serial": serial,
        "period": period,
        "part": part,
        "date": local_date,
        "issued_at": issued_at.isoformat(),
        "currency": "INR",
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
        "place_of_supply": {"state_code": draft.place_of_supply, "state": STATES[draft.place_of_supply]},
        "reverse_charge": False,
        "lines": [line_data(line, supplier.sac_code) for line in draft.lines],
        "taxable_value": str(draft.net),
        "taxes": [{"name": tax.name, "rate": plain(tax.rate), "amount": str(tax.amount)} for tax in draft.taxes],
        "tax": str(draft.tax),
        "total": str(draft.total),
        "irn": None,
        "irn_qr": None,
    }


def line_data(line: Line, sac_code: str) -> dict[str, Any]:
    """Return a line as the document has it; ``cached_share`` is there on lines of answers out of the cache.

    ``kind``, ``meter`` and ``steps``, which sum to the amount, are there where billable × price isn't all there is
    to say.
    """
    charge = line.charge
    more: dict[str, Any] = {} if charge.cached_share is None else {"cached_share": plain(charge.cached_share)}
    if not charge.plain:
        more |= {"kind": charge.kind, "meter": charge.meter, "steps": [step_data(step) for step in charge.steps or ()]}
    return more | {
        "identity": line.identity,
        "description": line.description,
        "sac": sac_code,
        "period": line.period,
        "from": charge.start.isoformat(),
        "to": charge.end.isoformat(),
        "plan": charge.plan,
        "calls": charge.calls,
        "unit": charge.card.unit,
        "quantity": plain(charge.quantity),
        "free_units": plain(charge.free_units),
        "billable": plain(charge.billable),
        "unit_price": plain(charge.card.unit_price),
        "rate_card_version": charge.card.version,
        "taxable_value": str(line.taxable),
    }


def step_data(step: Step) -> dict[str, str]:
    """Return one term of an amount as the document has it."""
    numbers = {"quantity": step.quantity, "price": step.price, "amount": step.amount}
    return {"label": step.label} | {field: plain(value) for field, value in numbers.items()}


def describe(name: str, charge: Charge) -> str:
    """Return what a line says it is for."""
    if charge.kind != "usage":
        return f"{name}, {'minimum of the month' if charge.kind == 'minimum' else charge.meter}"
    if charge.meter not in ("", charge.card.unit):
        name = f"{name}, {charge.meter}"
    return name if charge.cached_share is None else f"{name}, answered from the cache"


def canonical(body: Mapping[str, Any]) -> str:
    """Return the one text of a document: this, byte for byte, is what was issued."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
