"""Registering: an invoice has its serial and waits for the number that must be on it before it is issued.

Its lines are fixed with the first event; what it says is not, until a registrar has taken it: the buyer's details are
read again each time, so that a refused one can be corrected. Then it is issued, posted and paid like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra import events
from haat.infra.events import NewEvent
from haat.infra.postgres import Connection
from haat.invoices import store
from haat.invoices.issuing import Issuer, posted_for
from haat.invoices.model import Tax, canonical, content_hash, place_of_supply, sums, taxes
from haat.invoices.ports import Registration
from haat.invoices.projection import record_all
from haat.invoices.states import Standing, State, begun
from haat.invoices.terms import Terms
from haat.kernel.errors import Conflict, NotFound
from haat.kernel.gstin import check_gstin
from haat.kernel.money import total
from haat.kernel.permissions import PLATFORM
from haat.ledger import service as ledger


@dataclass(frozen=True, slots=True)
class Waiting:
    """An invoice as a registrar is asked to take it."""

    standing: Standing
    data: Mapping[str, Any]
    body: dict[str, Any]
    taxes: tuple[Tax, ...]

    @property
    def serial(self) -> str:
        return self.standing.serial


async def waiting(connection: Connection, terms: Terms, identifier: UUID) -> Waiting | None:
    """Return an invoice that waits, with its buyer as known now; None for one that is issued already."""
    row = await store.standing(connection, identifier)
    if row is None:
        raise NotFound("There is no such invoice.")
    if row["state"] != State.REGISTERING:
        return None
    data = (await events.read_stream(connection, f"invoice/{identifier}"))[0].data
    text = await store.document(connection, bytes.fromhex(data["content_hash"][2:]))
    buyer = (await store.buyers(connection, [row["org_id"]]))[row["org_id"]]
    assert text is not None
    body = json.loads(text)
    gstin = check_gstin(buyer["gstin"]) if buyer["gstin"] else None
    place = place_of_supply(buyer["state_code"], gstin, terms.supplier.state_code)
    net = Decimal(data["net"])
    found = taxes(net, terms.supplier.gst_rate, terms.supplier.state_code, place)
    body["recipient"] |= {"name": buyer["name"], "address": buyer["address"], "gstin": buyer["gstin"]}
    body |= sums(place, net, found)
    return Waiting(Standing(**row), data, body, tuple(found))


async def finish(connection: Connection, issuer: Issuer, one: Waiting, given: Registration, now: datetime) -> None:
    """Issue a registered invoice; one that somebody else has issued meanwhile stays as it is."""
    standing = one.standing
    await store.lock(connection, standing.org_id)
    row = await store.standing(connection, standing.invoice_id)
    if row is None or row["state"] != State.REGISTERING:
        return
    if not given.irn or not given.qr:
        raise Conflict(f"The registrar gave {one.serial} no number.")
    net, tax = Decimal(one.data["net"]), total(each.amount for each in one.taxes)
    registered = {"irn": given.irn, "irn_qr": given.qr, "registered_at": given.at.isoformat()}
    text = canonical(one.body | registered)
    digest = content_hash(text)
    begins = begun(
        standing.invoice_id,
        standing.org_id,
        standing.kind,
        standing.period,
        standing.serial,
        total((net, tax)),
        standing.due_on,
        now,
        State.ISSUED,
    )
    data = dict(one.data) | {
        "place_of_supply": one.body["place_of_supply"]["state_code"],
        "tax": str(tax),
        "total": str(total((net, tax))),
        "content_hash": f"\\x{digest.hex()}",
        "state": begins.data(),
    }
    await store.keep_documents(connection, [(digest, standing.org_id, text)])
    event = NewEvent(f"invoice/{standing.invoice_id}", "invoice.issued", data, standing.org_id)
    await record_all(connection, [event], actor=PLATFORM.label, at=now)
    await issuer.collect(connection, PLATFORM, [replace(begins, version=row["version"] + 1)], now)
    posted = posted_for(begins, net, [(each.name, each.amount) for each in one.taxes], issuer.terms.supply, now)
    await ledger.post(connection, posted)
