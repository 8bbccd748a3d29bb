"""The audit: every figure in the database held against the reckoning, to the last paisa.

It reads what is there through one connection, so that it can be shown to see what is wrong: a test alters something in
a transaction, audits, and rolls back.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from haat.app import PROJECTIONS
from haat.infra.postgres import Connection
from haat.infra.projections import rebuild
from haat.invoices import call_store
from haat.invoices.portions import Weight
from haat.usage import store as usage_store

from .market import Market
from .reckoning import (
    Counted,
    Key,
    Reckoning,
    cached_of,
    is_acceptable,
    is_billed,
    paise,
    provider_part,
    quantity_of,
    reading,
    taxes_on,
    time_of,
)

Row = Mapping[str, Any]
NOTHING = Fraction(0)
INDIA = ZoneInfo("Asia/Kolkata")
UNITS = (
    "requests", "characters", "graphemes", "tokens", "audio_seconds", "pages", "images", "bytes", "compute_seconds",
)  # fmt: skip
MONEY = (
    "usage", "usage_corrections", "invoices", "invoice_lines", "invoice_documents", "invoice_serials",
    "credit_notes", "credit_note_lines", "payments", "allocations", "settlements", "settlement_lines",
    "settlement_credits", "settlement_withheld", "settlement_adjustments", "earnings", "payouts", "payout_rows",
    "payout_sendings", "holds", "ledger_operations", "ledger_entries", "ledger_balances", "wallets", "wallet_grants",
    "wallet_burns", "sla_months", "sla_credits",
)  # fmt: skip
"""Tables that say what anybody owes or earned."""

PARTS = ("calls", "lines", "documents", "portions", "notes", "shares", "books", "serials", "projections")


@dataclass
class Facts:
    """What is known from outside the database."""

    market: Market
    rate: Fraction
    seller: str
    closed: list[str] = field(default_factory=list)
    """Months that were closed: whoever had something to pay for them has it on invoices of whichever month."""
    metered: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Records that a journal held when they could be counted, by id: the first that came counts."""
    corrected: dict[UUID, dict[str, Decimal] | None] = field(default_factory=dict)
    """What was asked for calls: other quantities, or None for nothing."""
    credited: dict[str, tuple[UUID, Fraction]] = field(default_factory=dict)
    """Credit notes by key: the line and its value."""
    debited: dict[str, tuple[UUID, Fraction]] = field(default_factory=dict)
    paid: dict[str, tuple[UUID, Fraction]] = field(default_factory=dict)
    granted: dict[str, tuple[UUID, Fraction]] = field(default_factory=dict)
    documents: dict[UUID, str] = field(default_factory=dict)
    """Invoices and notes as they were when they were first seen."""
    members: dict[UUID, list[tuple[UUID, bool, Decimal]]] = field(default_factory=dict)
    """Lines' calls as they were found when the line was first seen."""

    def take(self, records: Iterable[Mapping[str, Any]], now: datetime) -> None:
        """Take note of records that the shipper finds at a time."""
        for call in records:
            if is_acceptable(call, now):
                self.metered.setdefault(call["id"], dict(call))


@dataclass
class Finding:
    """One equation: how often it was looked at, its sides, and where it does not hold."""

    name: str
    checked: int = 0
    left: Fraction = NOTHING
    right: Fraction = NOTHING
    wrong: list[str] = field(default_factory=list)

    @property
    def difference(self) -> Fraction:
        return self.left - self.right

    @property
    def holds(self) -> bool:
        return not self.wrong and not self.difference

    def compare(self, left: Fraction | Decimal | int, right: Fraction | Decimal | int, where: str) -> None:
        """Add to both sides, and take note of where they differ."""
        self.checked += 1
        self.left += Fraction(left)
        self.right += Fraction(right)
        if left != right:
            self.wrong.append(f"{where}: {text(left)} is not {text(right)}")

    def require(self, true: bool, where: str) -> None:
        self.checked += 1
        if not true:
            self.wrong.append(where)


def text(amount: Fraction | Decimal | int) -> str:
    """Write an exact number."""
    whole = Fraction(amount)
    power = next((one for one in range(25) if 10**one % whole.denominator == 0), None)
    return str(whole) if power is None else f"{Decimal(int(whole * 10**power)).scaleb(-power):f}"


class Failed(AssertionError):
    """Something does not add up."""


@dataclass
class Audit:
    """One audit. ``final``: nothing is under way any more, so all that was charged must be on lines."""

    connection: Connection
    facts: Facts
    final: bool
    findings: dict[str, Finding] = field(default_factory=dict)

    async def run(self, *parts: str) -> list[Finding]:
        """Look at everything, or at some of `PARTS`; without ``calls`` there is nothing to hold the others against."""
        await self._read()
        self._calls()
        for part in (one for one in parts or PARTS if one != "calls"):
            looked_at = getattr(self, f"_{part}")()
            if looked_at is not None:
                await looked_at
        return list(self.findings.values())

    def finding(self, name: str) -> Finding:
        return self.findings.setdefault(name, Finding(name))

    async def _rows(self, query: str, *values: Any) -> list[Row]:
        return await (await self.connection.execute(query, values)).fetchall()

    async def _read(self) -> None:
        self.usage = {row["id"]: row for row in await self._rows("SELECT * FROM usage")}
        self.corrections = {row["call_id"]: row for row in await self._rows("SELECT * FROM usage_corrections")}
        self.invoices = {
            row["id"]: row
            for row in await self._rows(
                """
                SELECT invoices.*, state, paid, credited, document, invoice_states.total AS owed_at_first,
                       (SELECT min(events.xid::text::bigint) FROM events WHERE stream = 'invoice/' || invoices.id
                            AND type IN ('invoice.issued', 'invoice.registering')) AS issued_in,
                       (SELECT min(events.xid::text::bigint) FROM events WHERE stream = 'invoice/' || invoices.id
                            AND type = 'invoice.voided') AS voided_in
                FROM invoices LEFT JOIN invoice_states ON invoice_id = invoices.id
                    LEFT JOIN invoice_documents USING (content_hash)
                """
            )
        }
        self.lines = await self._rows("SELECT * FROM invoice_lines ORDER BY invoice_id, position")
        self.notes = {
            row["id"]: row
            for row in await self._rows("SELECT * FROM credit_notes LEFT JOIN invoice_documents USING (content_hash)")
        }
        self.note_lines = await self._rows(
            "SELECT line.*, note.issued_at FROM credit_note_lines AS line"
            " JOIN credit_notes AS note ON note.id = credit_note_id ORDER BY line.id"
        )
        self.settled = {row["invoice_line_id"]: row for row in await self._rows("SELECT * FROM settlement_lines")}
        self.returned = {
            row["credit_note_line_id"]: row for row in await self._rows("SELECT * FROM settlement_credits")
        }
        self.settlements = await self._rows("SELECT * FROM settlements")
        self.payouts = await self._rows("SELECT * FROM payouts WHERE status = 'paid'")
        self.allocations = await self._rows("SELECT * FROM allocations")
        self.payments = await self._rows("SELECT * FROM payments")
        self.entries = await self._rows(
            "SELECT entry.*, operation.key, operation.kind FROM ledger_entries AS entry"
            " JOIN ledger_operations AS operation ON operation.id = operation_id"
        )
        self.balances = await self._rows("SELECT * FROM ledger_balances")
        self.rolled_up = await self._rows("SELECT sum(calls) AS calls FROM usage_hourly")

    # --- every event once --------------------------------------------------------------------------

    def _calls(self) -> None:
        """Each record that could be counted is one row, as it was metered; nothing else is."""
        once = self.finding("every metered event is one row, as it was metered")
        replaced = {row["replaced_by"]: row["call_id"] for row in self.corrections.values() if row["replaced_by"]}
        metered = {UUID(one): call for one, call in self.facts.metered.items()}
        found: dict[UUID, list[Counted]] = defaultdict(list)
        self.read: dict[UUID, Counted] = {}
        for identifier in metered.keys() - self.usage.keys():
            once.require(False, f"call {identifier} was metered and is not in the store")
        for identifier, row in self.usage.items():
            call = metered.get(identifier)
            if call is None and (original := replaced.get(identifier)) is not None:
                units = {unit: str(value) for unit, value in (self.facts.corrected.get(original) or {}).items()}
                base = self.read.get(original)
                source = base.call if base else metered.get(original, {})
                call = source | {"id": str(identifier), "units": source.get("units", {}) | units}
                once.require(time_of(call) == time_of(source), f"correction {identifier} is of another time")
            if call is None:
                once.require(False, f"call {identifier} is in the store and was not metered")
                continue
            void = self.corrections.get(identifier)
            counted = Counted(call, time_of(call), row["batch"], void["batch"] if void else None)
            self.read[identifier] = counted
            same = (
                all(Fraction(row[unit] or 0) == quantity_of(call, unit) for unit in UNITS)
                and (row["outcome"], row["mode"]) == (call["outcome"], call.get("mode", "live"))
                and str(row["subscription_id"]) == call.get("subscription")
                and row["plan"] == call.get("plan")
                and row["cached"] == (cached_of(call) or 0)
            )
            once.require(same, f"call {identifier} is not stored as it was metered")
            if is_billed(call):
                found[UUID(call["org"])].append(counted)
        once.left, once.right = Fraction(len(self.usage) - len(replaced)), Fraction(len(metered))
        for call_id, units in self.facts.corrected.items():
            present = self.corrections.get(call_id)
            once.require(
                present is not None and (present["replaced_by"] is None) == (units is None),
                f"call {call_id} is not corrected as it was asked",
            )
        rollups = self.finding("rollups count each live event once")
        live = sum(call.get("mode", "live") == "live" for call in metered.values())
        rollups.compare(self.rolled_up[0]["calls"] or 0, live, "calls in all hours")
        self.reckoning = Reckoning(self.facts.market, found)

    # --- charges and lines -------------------------------------------------------------------------

    def _key(self, line: Row) -> Key:
        kind = str(line["charge_key"]).rpartition("/")[2].partition("-")[0]
        kind = kind if kind in ("fee", "minimum") else "usage"
        cached = None if line["cached_share"] is None else Fraction(line["cached_share"])
        component = line["meter"] or line["unit"]
        return Key(
            kind, line["subscription_id"], line["rate_card_id"], line["plan"], line["provider_org"], cached, component
        )

    def _lines(self) -> None:
        """Each line is the month's charge up to its batch, rounded once, less the lines before it."""
        each = self.finding("each line is the rounded charge up to its watermark, less earlier lines")
        calls = self.finding("each line counts its calls")
        lines: dict[tuple[UUID, str, Key], list[Row]] = defaultdict(list)
        for line in self.lines:
            if self.invoices[line["invoice_id"]]["kind"] == "invoice":
                lines[line["org_id"], line["period"], self._key(line)].append(line)
        for (org, period, key), group in lines.items():
            for line in group:
                invoice = self.invoices[line["invoice_id"]]
                final = period != invoice["period"] or invoice["closes"]
                charge = self.reckoning.charges(org, period, line["batch_to"], final=final).get(key)
                before = [one for one in group if self._stood_before(one, invoice)]
                amount = paise(charge.amount) if charge else NOTHING
                where = f"line {line['identity']} of {invoice['serial']}"
                each.compare(line["taxable"], amount - sum(Fraction(one["taxable"]) for one in before), where)
                earlier = sum(one["calls"] for one in before)
                calls.compare(line["calls"], (charge.calls if charge else 0) - earlier, where)
                kind = "adjustment" if period != invoice["period"] else key.kind
                each.require(line["kind"] == kind, f"{where} is a line of kind {line['kind']}, not {kind}")
        if self.final:
            self._all_charges(lines)

    def _stood_before(self, line: Row, invoice: Row) -> bool:
        """Tell whether a line was issued before an invoice, and not void by then."""
        own = self.invoices[line["invoice_id"]]
        void = own["voided_in"] is not None and own["voided_in"] < invoice["issued_in"]
        return bool(own["issued_in"] < invoice["issued_in"]) and not void

    def _all_charges(self, lines: Mapping[tuple[UUID, str, Key], list[Row]]) -> None:
        """Nothing is left over: what all months cost is what their lines come to."""
        whole = self.finding("Σ charges = Σ net of invoice lines and adjustments")
        minimums = self.finding("Σ minimums = Σ lines of minimums")
        fees = self.finding("Σ fees = Σ lines of fees")
        newest = max((row["batch"] for row in self.usage.values()), default=0)
        newest = max([newest, *(row["batch"] for row in self.corrections.values())])
        self.exact = NOTHING
        charged: dict[tuple[UUID, str, Key], Fraction] = {}
        for org in (one.org for one in self.facts.market.customers):
            for period in self.facts.closed:
                for key, charge in self.reckoning.charges(org, period, newest).items():
                    charged[org, period, key] = paise(charge.amount)
                    self.exact += charge.amount
        for place in sorted(charged.keys() | lines.keys(), key=str):
            standing = [
                Fraction(line["taxable"])
                for line in lines.get(place, ())
                if self.invoices[line["invoice_id"]]["state"] != "void"
            ]
            org, period, key = place
            where = f"{key.kind} {key.component} of {key.subscription} in {period}"
            whole.compare(charged.get(place, NOTHING), sum(standing, NOTHING), where)
            if key.kind in ("minimum", "fee"):
                other = minimums if key.kind == "minimum" else fees
                other.compare(charged.get(place, NOTHING), sum(standing, NOTHING), where)
        for org, calls in self.reckoning.calls.items():
            for one in calls:
                closed = any(one.at in self.reckoning.period(org, label) for label in self.facts.closed)
                whole.require(closed, f"call {one.call['id']} lies in a month that was not closed")

    # --- documents ---------------------------------------------------------------------------------

    def _documents(self) -> None:
        net = self.finding("net of each invoice = Σ its lines")
        gross = self.finding("gross = net + tax, by the place of supply")
        same = self.finding("documents are byte for byte what was issued")
        places = {one.org: one.place for one in self.facts.market.customers}
        for row in self.invoices.values():
            document = json.loads(row["document"])
            own = [line for line in self.lines if line["invoice_id"] == row["id"]]
            net.compare(row["net"], sum((Fraction(line["taxable"]) for line in own), NOTHING), row["serial"])
            written = [Fraction(line["taxable_value"]) for line in document["lines"]]
            net.require(written == [Fraction(line["taxable"]) for line in own], f"{row['serial']} prints other lines")
            taxes = taxes_on(Fraction(row["net"]), self.facts.rate, self.facts.seller, places[row["org_id"]])
            gross.compare(row["total"], Fraction(row["net"]) + sum(taxes.values()), row["serial"])
            printed = {tax["name"]: Fraction(tax["amount"]) for tax in document["taxes"]}
            gross.require(printed == taxes, f"{row['serial']} prints {printed} and not {taxes}")
            gross.require(
                [Fraction(document[name]) for name in ("taxable_value", "tax", "total")]
                == [Fraction(row[name]) for name in ("net", "tax", "total")],
                f"{row['serial']} prints other sums than its row has",
            )
        for identifier, issued in self.facts.documents.items():
            present = self.invoices.get(identifier) or self.notes.get(identifier)
            same.require(present is not None and present["document"] == issued, f"{identifier} was changed")
        for row in (*self.invoices.values(), *self.notes.values()):
            digest = hashlib.sha256(str(row["document"]).encode()).digest()
            same.require(digest == bytes(row["content_hash"]), f"{row['serial']} does not have its hash")

    # --- from a call to its lines and back ---------------------------------------------------------

    async def _portions(self) -> None:
        """The calls behind a line are those its charge counts, and a call's lines are those it is behind."""
        frozen = self.finding("a line's calls stay what they were when it was issued")
        sums = self.finding("Σ portions of a line = its quantity")
        rupees = self.finding("Σ rupees that a line's calls bear = its amount")
        portions: dict[tuple[UUID, str], Fraction] = defaultdict(Fraction)
        behind: dict[UUID, set[UUID]] = defaultdict(set)
        for line in self.lines:
            calls = await calls_of(self.connection, line)
            where = f"line {line['identity']}"
            if (then := self.facts.members.get(line["id"])) is not None:
                frozen.require(calls == then, f"{where} had {len(then)} calls and has {len(calls)}, or others")
            if self.invoices[line["invoice_id"]]["kind"] != "invoice":
                continue
            void = self.invoices[line["invoice_id"]]["state"] == "void"
            key = self._key(line)
            aggregation = (line["members"] or {}).get("aggregation", "sum")
            for identifier, voided, quantity in calls:
                if not voided:
                    behind[identifier].update(() if void else (line["id"],))
                if not void:
                    portions[identifier, key.component] += Fraction(quantity)
            if calls:
                spread = await call_store.spread(self.connection, line)
                amounts = spread.portions(Weight(), [quantity for _, _, quantity in calls])
                rupees.compare(sum(map(Fraction, amounts), NOTHING), line["taxable"], where)
            if aggregation in ("sum", "count") and key.kind == "usage":
                sums.compare(sum((Fraction(one[2]) for one in calls), NOTHING), line["quantity"], where)
            if key.kind == "usage" and aggregation in ("sum", "count"):
                counted = sum(-1 if voided else 1 for _, voided, _ in calls)
                sums.require(counted == line["calls"], f"{where} counts {line['calls']} calls, {counted} are behind it")
        if self.final:
            await self._each_call(portions, behind)

    async def _each_call(self, portions: Mapping[tuple[UUID, str], Fraction], behind: Mapping[UUID, set[UUID]]) -> None:
        """Σ portions of each (call, meter) = what the meter reads of it; its request id names its lines."""
        whole = self.finding("Σ portions of each (call, meter) = what the meter reads of it")
        traced = self.finding("a request id leads to the lines that its call is behind")
        cards = self.facts.market.cards
        for calls in self.reckoning.calls.values():
            for one in calls:
                identifier = UUID(one.call["id"])
                if one.void is None:
                    rows = await usage_store.lines_of(self.connection, self.usage[identifier])
                    lines = {row["line_id"] for row in rows}
                    traced.require(lines == behind.get(identifier, set()), f"call {identifier} leads to {lines}")
                for name, value in _readings(one, cards):
                    due = value if one.void is None else NOTHING
                    whole.compare(portions.get((identifier, name), NOTHING), due, f"{name} of call {identifier}")

    # --- credit notes and debit notes --------------------------------------------------------------

    def _notes(self) -> None:
        notes = self.finding("credit and debit notes are what was asked for, with the invoice's tax")
        by_line = {line["id"]: line for line in self.lines}
        for key, (line, amount) in self.facts.credited.items():
            found = [row for row in self.notes.values() if row["key"] == key]
            own = [row for row in self.note_lines if found and row["credit_note_id"] == found[0]["id"]]
            lines = [(row["invoice_line_id"], Fraction(row["taxable"])) for row in own]
            notes.require(lines == [(line, amount)], f"credit note {key} is {lines}")
        for key, (line, amount) in self.facts.debited.items():
            found = [row for row in self.invoices.values() if row["key"] == key]
            notes.require(
                len(found) == 1
                and Fraction(found[0]["net"]) == amount
                and found[0]["against"] == by_line[line]["invoice_id"],
                f"debit note {key} is {[row['serial'] for row in found]}",
            )
        gone: dict[UUID, Fraction] = defaultdict(Fraction)
        for note in sorted(self.notes.values(), key=lambda row: (row["issued_at"], row["serial"])):
            own = [row for row in self.note_lines if row["credit_note_id"] == note["id"]]
            notes.compare(note["net"], sum((Fraction(row["taxable"]) for row in own), NOTHING), note["serial"])
            taxes = NOTHING
            for invoice in {by_line[row["invoice_line_id"]]["invoice_id"] for row in own}:
                place = self.invoices[invoice]["place_of_supply"]
                part = sum(
                    Fraction(row["taxable"]) for row in own if by_line[row["invoice_line_id"]]["invoice_id"] == invoice
                )
                before = taxes_on(gone[invoice], self.facts.rate, self.facts.seller, place)
                gone[invoice] += part
                now = taxes_on(gone[invoice], self.facts.rate, self.facts.seller, place)
                taxes += sum(now.values()) - sum(before.values())
            notes.compare(note["total"], Fraction(note["net"]) + taxes, f"total of {note['serial']}")
        back: dict[UUID, Fraction] = defaultdict(Fraction)
        for row in self.note_lines:
            back[row["invoice_line_id"]] += Fraction(row["taxable"])
        for line, amount in back.items():
            most = Fraction(by_line[line]["taxable"])
            notes.require(amount <= most or amount == most < 0, f"line {by_line[line]['identity']} is credited twice")

    # --- shares ------------------------------------------------------------------------------------

    def _shares(self) -> None:
        """Each line is settled once by its card's share; credits take back what was earned of them."""
        split = self.finding("each line is shared by its card")
        provider = platform = NOTHING
        back: dict[UUID, dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
        for row in self.note_lines:
            if self.final:
                split.require(row["id"] in self.returned, f"credit {row['id']} is not settled")
            if row["id"] in self.returned:
                back[row["invoice_line_id"]][row["fault"]] += Fraction(row["taxable"])
        earned: dict[UUID, list[Fraction]] = defaultdict(lambda: [NOTHING, NOTHING])
        for row in self.settled.values():
            earned[row["invoice_line_id"]][0] += Fraction(row["provider_amount"])
            earned[row["invoice_line_id"]][1] += Fraction(row["platform_amount"])
        for row in self.returned.values():
            earned[row["invoice_line_id"]][0] -= Fraction(row["provider_amount"])
            earned[row["invoice_line_id"]][1] -= Fraction(row["platform_amount"])
        for line in self.lines:
            if self.final:
                split.require(line["id"] in self.settled, f"line {line['identity']} is not settled")
            if line["id"] not in self.settled:
                continue
            gross, credits = Fraction(line["taxable"]), back[line["id"]]
            share = Fraction(self.reckoning.card(line["rate_card_id"]).provider_share)
            theirs = provider_part(gross - credits["provider"], share)
            ours = gross - sum(credits.values(), NOTHING) - theirs
            split.compare(earned[line["id"]][0], theirs, f"provider's part of {line['identity']}")
            split.compare(earned[line["id"]][1], ours, f"platform's part of {line['identity']}")
            provider, platform = provider + theirs, platform + ours
        stated = self.finding("statements add up their lines")
        stated.compare(
            sum(row["provider_amount"] - row["credited_provider"] for row in self.settlements), provider, "Σ"
        )
        stated.compare(
            sum(row["platform_amount"] - row["credited_platform"] for row in self.settlements), platform, "Σ"
        )
        if self.final:
            whole = self.finding("Σ net of invoices and notes = providers' shares + platform's share")
            net = sum((Fraction(row["net"]) for row in self.invoices.values()), NOTHING)
            net -= sum((Fraction(row["net"]) for row in self.notes.values()), NOTHING)
            whole.compare(net, provider + platform, "all invoices, debit notes and credit notes")

    # --- books -------------------------------------------------------------------------------------

    def _books(self) -> None:
        zero = self.finding("the ledger is zero in sum: each operation, each currency")
        by_operation: dict[UUID, Fraction] = defaultdict(Fraction)
        by_currency: dict[str, Fraction] = defaultdict(Fraction)
        accounts: dict[str, Fraction] = defaultdict(Fraction)
        for entry in self.entries:
            by_operation[entry["operation_id"]] += Fraction(entry["amount"])
            by_currency[entry["currency"]] += Fraction(entry["amount"])
            accounts[entry["account"]] += Fraction(entry["amount"])
        names = {entry["operation_id"]: entry["key"] for entry in self.entries}
        for operation, amount in by_operation.items():
            zero.compare(amount, 0, f"operation {names[operation]}")
        for currency, amount in by_currency.items():
            zero.compare(amount, 0, f"the entries in {currency}")
        balance = self.finding("the trial balance says what the entries say")
        shown = {row["account"]: Fraction(row["amount"]) for row in self.balances}
        for name in sorted(accounts.keys() | shown.keys()):
            balance.compare(shown.get(name, NOTHING), accounts.get(name, NOTHING), name)
        balance.compare(sum(shown.values(), NOTHING), 0, "the trial balance")
        booked = self.finding("the books say what invoices, notes, payments and statements say")
        net: dict[str, Fraction] = defaultdict(Fraction)
        for row in self.invoices.values():
            net[f"receivable/{row['org_id']}"] += Fraction(row["total"])
            net["sold"] -= Fraction(row["net"])
            net["taxes"] -= Fraction(row["tax"])
        for row in self.notes.values():
            net[f"receivable/{row['org_id']}"] -= Fraction(row["total"])
            net["sold"] += Fraction(row["net"])
            net["taxes"] += Fraction(row["tax"])
        for row in self.payments:
            net[f"receivable/{row['org_id']}"] -= Fraction(row["amount"])
        for row in self.allocations:
            if row["source"].startswith("wallet/"):
                net[f"receivable/{row['org_id']}"] -= Fraction(row["amount"])
                net[f"wallet/{row['org_id']}"] += Fraction(row["amount"])
        for org, amount in self.facts.granted.values():
            net[f"wallet/{org}"] -= amount
        for name, amount in sorted(net.items()):
            if "/" in name:
                booked.compare(accounts.get(name, NOTHING), amount, name)
            if name.startswith("wallet/"):
                booked.require(amount <= 0, f"{name} is below zero")
        guaranteed = sum(
            (Fraction(row["provider_amount"]) for row in self.returned.values() if self._is_guarantee(row)), NOTHING
        )
        booked.compare(
            accounts["revenue"] + accounts["credits"] + guaranteed, net["sold"], "revenue, and what an SLA costs"
        )
        taxes = sum((amount for name, amount in accounts.items() if name.startswith("tax/")), NOTHING)
        booked.compare(taxes, net["taxes"], "taxes")
        for org in {row["org_id"] for row in self.settlements}:
            owed = sum(Fraction(row["payable"]) for row in self.settlements if row["org_id"] == org)
            paid = sum(Fraction(row["amount"]) for row in self.payouts if row["org_id"] == org)
            stands = accounts[f"payable/{org}"] + accounts[f"held/{org}"]
            booked.compare(-stands, owed - paid, f"what provider {org} is owed")
        received = {row["reference"]: Fraction(row["amount"]) for row in self.payments}
        for key, (_, amount) in self.facts.paid.items():
            booked.compare(received.get(key, NOTHING), amount, f"payment {key}")
        self._standings(booked)

    def _is_guarantee(self, row: Row) -> bool:
        note = next(one for one in self.note_lines if one["id"] == row["credit_note_line_id"])
        return bool(self.notes[note["credit_note_id"]]["reason"] == "sla")

    def _standings(self, booked: Finding) -> None:
        paid: dict[tuple[UUID, bool], Fraction] = defaultdict(Fraction)
        for row in self.allocations:
            paid[row["invoice_id"], row["source"].startswith("credit-note/")] += Fraction(row["amount"])
        for row in self.invoices.values():
            booked.compare(row["paid"], paid[row["id"], False], f"what paid {row['serial']}")
            booked.compare(row["credited"], paid[row["id"], True], f"what was credited on {row['serial']}")
            owed = Fraction(row["total"]) - Fraction(row["paid"]) - Fraction(row["credited"])
            booked.require(owed >= 0, f"{row['serial']} is paid twice")
            booked.require((owed == 0) == (row["state"] in ("paid", "void")), f"{row['serial']} is {row['state']}")

    def _serials(self) -> None:
        gapless = self.finding("serials have no gap in a financial year")
        numbers: dict[str, list[int]] = defaultdict(list)
        for row in (*self.invoices.values(), *self.notes.values()):
            prefix, _, number = row["serial"].rpartition("/")
            numbers[prefix].append(int(number))
            local = row["issued_at"].astimezone(INDIA)
            first = local.year - (local.month < 4)
            year = f"{first % 100:02d}{(first + 1) % 100:02d}"
            gapless.require(prefix.endswith(year), f"{row['serial']} was issued on {local.date()}")
        for prefix, found in numbers.items():
            gapless.require(sorted(found) == list(range(1, len(found) + 1)), f"{prefix} has {sorted(found)}")

    async def _projections(self) -> None:
        anew = self.finding("projections made anew are the same to the byte")
        for one in await rebuild(self.connection, PROJECTIONS, repair=False):
            anew.checked += one.rows
            if one.missing or one.surplus:
                anew.wrong.append(f"{one.table}: {one.missing} rows are missing, {one.surplus} too many")


def _readings(one: Counted, cards: Iterable[Any]) -> Iterator[tuple[str, Fraction]]:
    """Yield what each meter that adds up reads of a call, by the card it was priced by."""
    service, plan = UUID(one.call["service"]), one.call["plan"]
    begun = [card for card in cards if card.service == service and card.effective_from <= one.at]
    own = [card for card in begun if card.plan == plan] or [card for card in begun if card.plan is None]
    card = max(own, key=lambda card: card.effective_from)
    for part in card.parts:
        if part.meter is None or part.meter.aggregation not in ("sum", "count"):
            continue
        chosen = part.meter.filter
        if chosen.language_pairs and one.call.get("language_pair", "") not in chosen.language_pairs:
            continue
        counts = part.meter.aggregation == "count"
        yield part.name, Fraction(1) if counts else reading(one.call, part.meter.key)


async def calls_of(connection: Connection, line: Row) -> list[tuple[UUID, bool, Decimal]]:
    """Return a line's calls as its evidence lists them."""
    found: list[tuple[UUID, bool, Decimal]] = []
    after: UUID | None = None
    while rows := await call_store.calls_of_line(connection, line, after, 1000):
        found += [(row["id"], row["voided"], row["quantity"]) for row in rows]
        after = rows[-1]["id"]
    return found


async def fingerprint(connection: Connection) -> dict[str, str]:
    """Return a hash of each table that says what anybody owes or earned."""
    found = {}
    for table in MONEY:
        rows = await (
            await connection.execute(
                f"SELECT md5(string_agg(one::text, E'\\n' ORDER BY one::text)) AS sum FROM {table} AS one"
            )
        ).fetchone()
        found[table] = rows["sum"] if rows else ""
    return found
