"""The audit sees what is wrong: each of these mistakes is made in the database of a sound season, found, and undone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from bazaar import Bazaar
from haat.app import build_platform
from haat.infra.keyring import Keyring
from haat.kernel.clock import SetClock
from haat.settings import Settings

from .audit import Audit
from .hands import NoMail, Raising
from .market import OPENS
from .season import Season

SOLD = "SELECT id FROM usage WHERE outcome = 'completed' AND mode = 'live' AND subscription_id IS NOT NULL"
MISTAKES = {
    "an event is counted twice": (
        "calls",
        f"INSERT INTO usage SELECT made.* FROM usage AS one, jsonb_populate_record(one, jsonb_build_object('id',"
        f" left(one.id::text, 24) || 'ffffffffffff')) AS made WHERE one.id = ({SOLD} ORDER BY id LIMIT 1)",
        "every metered event is one row, as it was metered",
    ),
    "an event is lost": (
        "calls",
        f"DELETE FROM usage WHERE id = ({SOLD} ORDER BY id DESC LIMIT 1)",
        "every metered event is one row, as it was metered",
    ),
    "a quantity is another": (
        "calls",
        f"UPDATE usage SET requests = requests + 0.000001 WHERE id = ({SOLD} ORDER BY id LIMIT 1)",
        "every metered event is one row, as it was metered",
    ),
    "an hour is rolled up twice": (
        "calls",
        "UPDATE usage_hourly SET calls = calls + 1 WHERE ctid = (SELECT ctid FROM usage_hourly LIMIT 1)",
        "rollups count each live event once",
    ),
    "a line is rounded the other way": (
        "lines",
        "UPDATE invoice_lines SET taxable = taxable + 0.01 WHERE id ="
        " (SELECT id FROM invoice_lines ORDER BY id LIMIT 1)",
        "each line is the rounded charge up to its watermark, less earlier lines",
    ),
    "a line counts a call too many": (
        "lines",
        "UPDATE invoice_lines SET calls = calls + 1 WHERE id = (SELECT id FROM invoice_lines WHERE calls > 0 LIMIT 1)",
        "each line counts its calls",
    ),
    "an adjustment is dropped": (
        "lines",
        "DELETE FROM invoice_lines WHERE id = (SELECT id FROM invoice_lines WHERE kind = 'adjustment'"
        " AND taxable <> 0 AND NOT identity LIKE 'debit-note%' ORDER BY id LIMIT 1)",
        "Σ charges = Σ net of invoice lines and adjustments",
    ),
    "a month is not billed at all": (
        "lines",
        "WITH whose AS (SELECT org_id, period FROM invoice_lines WHERE kind = 'fee' ORDER BY id LIMIT 1),"
        " gone AS (DELETE FROM invoice_lines AS line USING whose WHERE line.org_id = whose.org_id"
        " AND line.period = whose.period)"
        " UPDATE invoices SET closes = false FROM whose WHERE invoices.org_id = whose.org_id"
        " AND invoices.period = whose.period",
        "Σ fees = Σ lines of fees",
    ),
    "a tax is a paisa less": (
        "documents",
        "UPDATE invoices SET tax = tax - 0.01, total = total - 0.01 WHERE id = (SELECT id FROM invoices LIMIT 1)",
        "gross = net + tax, by the place of supply",
    ),
    "a letter of an issued document is another": (
        "documents",
        "WITH forged AS (SELECT content_hash AS was, replace(document, 'INR', 'INE') AS text FROM invoice_documents),"
        " kept AS (UPDATE invoice_documents SET document = text, content_hash = sha256(convert_to(text, 'UTF8'))"
        " FROM forged WHERE content_hash = was)"
        " UPDATE invoices SET content_hash = sha256(convert_to(text, 'UTF8')) FROM forged WHERE content_hash = was",
        "documents are byte for byte what was issued",
    ),
    "a call that came late slips onto a line": (
        "portions",
        "UPDATE usage SET batch = (SELECT min(batch_to) FROM invoice_lines) WHERE batch > (SELECT min(batch_to) FROM"
        " invoice_lines)"
        " AND id < (SELECT id_to FROM invoice_lines WHERE period = '2027-02' ORDER BY id_to DESC LIMIT 1)",
        "a line's calls stay what they were when it was issued",
    ),
    "a provider has a paisa of the platform's": (
        "shares",
        "UPDATE settlement_lines SET provider_amount = provider_amount + 0.01, platform_amount = platform_amount - 0.01"
        " WHERE id = (SELECT id FROM settlement_lines ORDER BY id LIMIT 1)",
        "each line is shared by its card",
    ),
    "a credit note gives back more": (
        "notes",
        "UPDATE credit_note_lines SET taxable = taxable + 0.01 WHERE id = (SELECT id FROM credit_note_lines LIMIT 1)",
        "credit and debit notes are what was asked for, with the invoice's tax",
    ),
    "an entry of the ledger is dropped": (
        "books",
        "DELETE FROM ledger_entries WHERE ctid = (SELECT ctid FROM ledger_entries LIMIT 1)",
        "the ledger is zero in sum: each operation, each currency",
    ),
    "a balance is another": (
        "books",
        "UPDATE ledger_balances SET amount = amount + 0.01 WHERE account = 'revenue'",
        "the trial balance says what the entries say",
    ),
    "an invoice is posted for a rupee more": (
        "books",
        "UPDATE ledger_entries SET amount = amount + sign(amount) WHERE operation_id ="
        " (SELECT id FROM ledger_operations WHERE kind = 'invoice' LIMIT 1)"
        " AND (starts_with(account, 'receivable/') OR account = 'revenue')",
        "the books say what invoices, notes, payments and statements say",
    ),
    "a serial is left out": (
        "serials",
        "UPDATE invoices SET serial = replace(serial, '000002', '999999')",
        "serials have no gap in a financial year",
    ),
    "a payment is forgotten": (
        "projections",
        "DELETE FROM allocations WHERE id = (SELECT id FROM allocations LIMIT 1)",
        "projections made anew are the same to the byte",
    ),
}
"""A mistake: which part of the audit is to find it, how it is made, and the equation that must not hold any more."""


async def test_each_mistake_in_the_database_is_found(database: Any, tmp_path: Path, keyring: Keyring) -> None:
    chance, clock = random.Random(7), SetClock(OPENS)
    platform = build_platform(Settings(data_dir=tmp_path), database.app, database.service, keyring, clock, NoMail())
    hands = Raising(platform, clock, careful=True)
    bazaar = Bazaar(database.service, clock, chance)
    season = Season(bazaar, database.owner_dsn, hands, tmp_path, chance, calls=25, customers=3)
    await season.run()
    unseen = []
    for mistake, (part, statement, equation) in MISTAKES.items():
        async with season.owner() as connection:
            await connection.execute("SET LOCAL session_replication_role = replica")  # whoever does it stops at nothing
            made = await connection.execute(statement)
            assert made.rowcount > 0, f"{mistake}: there is nothing to do it to"
            found = await Audit(connection, season.facts, final=True).run(part)
            await connection.rollback()
        if all(one.holds for one in found if one.name == equation):
            unseen.append(f"{mistake}: {[one.name for one in found if not one.holds]}")
    assert not unseen
    await season.check("the end, with everything undone", final=True)
