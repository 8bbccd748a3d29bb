"""Commands of money on a customer with an invoice: what they print, that twice is once, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result

from bazaar import Bazaar
from desk import Desk
from haat.app import PROJECTIONS
from haat.cli.main import haat
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.ids import new_id
from haat.settings import Settings

NOBODY = "01a19339-c840-7000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Customer:
    """An organisation whose invoice over 100 rupees before GST has one line, of one call."""

    org: UUID
    invoice: UUID
    line: UUID
    call: UUID


@pytest.fixture
def desk(database: Any, clock: SetClock) -> Desk:
    return Desk(database, Bazaar(database.service, clock), Invoices(database.app, clock, Settings()), clock)


@pytest.fixture
async def customer(desk: Desk) -> Customer:
    subscription, invoice = await desk.billed("100")
    (line,) = await desk.lines(invoice)
    (call,) = await desk.bazaar.rows("SELECT id FROM usage WHERE org_id = %s", subscription.org)
    return Customer(subscription.org, invoice.id, line, call["id"])


@pytest.fixture
async def wrong(desk: Desk) -> UUID:
    """An organisation that used something, and whose GSTIN's check letter doesn't fit."""
    org = await desk.bazaar.organisation("Wrong", gstin="29AAACH0000H1ZX")
    subscription = await desk.bazaar.subscribe(org, await desk.bazaar.service("listen", price="1"))
    await desk.bazaar.take([desk.bazaar.event(subscription, "100")])
    return org


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def standing(run: Any) -> dict[str, Any]:
    """Return the newest invoice as the terminal has it."""
    found: dict[str, Any] = told(run("billing", "invoices", "--json"))[0]
    return found


def test_a_transfer_is_recorded_once_and_says_what_it_pays(run: Any, customer: Customer) -> None:
    first = run("billing", "pay", customer.org, "200", "UTR 1", "--invoice", customer.invoice)
    assert first.exit_code == 0, first.output
    assert "200.00 INR received: transfer/UTR 1" in first.output
    assert "118.00 of it pay HT/2627/000001, which is paid." in first.output
    assert "82.00 of it stay as credit" in first.output
    assert run("billing", "pay", customer.org, "200", "UTR 1").output == first.output
    (payment,) = told(run("billing", "payments", "--json"))
    assert (payment["amount"], payment["unspent"], payment["returned"]) == ("200.00", "82.00", "0")
    other = run("billing", "pay", customer.org, "201", "UTR 1")
    assert other.exit_code == 1 and "recorded before with another amount" in other.output


def test_what_was_paid_too_much_is_sent_back_once(run: Any, customer: Customer) -> None:
    payment = told(run("billing", "pay", customer.org, "200", "UTR 1", "--json"))["id"]
    sent = [run("billing", "refund", payment, "82", "UTR 2") for _ in range(2)]
    assert sent[0].output == sent[1].output and "82.00 INR of transfer/UTR 1 sent back" in sent[0].output
    assert "82.00" in run("billing", "payments", "--organisation", customer.org).output
    refused = run("billing", "refund", payment, "118.01", "UTR 3")
    assert refused.exit_code == 1 and "118.00 is left of the payment transfer/UTR 1" in refused.output
    assert standing(run)["state"] == "paid"
    assert told(run("billing", "refund", payment, "118", "UTR 3", "--json"))["state"] == "gone"
    assert (standing(run)["paid"], standing(run)["total"]) == ("0.00", "118.00")
    story = run("ledger", "about", f"payment/{payment}")
    assert story.output.count("refund") == 4 and "bank" in story.output


def test_an_invoice_is_voided_once_and_not_when_something_is_paid(run: Any, customer: Customer) -> None:
    run("billing", "pay", customer.org, "18", "UTR 1")
    refused = run("billing", "void", customer.invoice, "--reason", "the wrong buyer")
    assert refused.exit_code == 1 and "credit what remains instead" in refused.output
    payment = told(run("billing", "payments", "--json"))[0]["id"]
    run("billing", "refund", payment, "18", "UTR 2")
    done = run("billing", "void", customer.invoice, "--reason", "the wrong buyer")
    assert done.output == "HT/2627/000001 is void: the next invoice of 2026-11 bills its usage again.\n"
    again = run("billing", "void", customer.invoice, "--reason", "the wrong buyer")
    assert again.exit_code == 1 and "HT/2627/000001 is void" in again.output
    assert standing(run)["state"] == "void"


def test_a_line_is_credited_once_a_key_and_never_below_nothing(run: Any, customer: Customer) -> None:
    (line,) = told(run("billing", "lines", customer.invoice, "--json"))
    assert line["id"] == str(customer.line)
    notes = [run("billing", "credit", customer.line, "10.00", "--key", "ticket-7") for _ in range(2)]
    assert notes[0].output == notes[1].output
    assert "HTC/2627/000001: 10.00 + GST 1.80 = 11.80 INR" in notes[0].output
    too_much = run("billing", "credit", customer.line, "90.01", "--key", "ticket-8")
    assert too_much.exit_code == 1 and "90.00 of its value is left" in too_much.output
    assert told(run("billing", "credit", customer.line, "90", "--key", "ticket-8", "--json"))["net"] == "90.00"
    assert (standing(run)["state"], standing(run)["credited"]) == ("paid", "118.00")


def test_a_line_is_debited_once_a_key(run: Any, customer: Customer) -> None:
    notes = [run("billing", "debit", customer.line, "20.00", "--key", "ticket-8") for _ in range(2)]
    assert notes[0].output == notes[1].output
    assert "HTD/2627/000001: 20.00 + GST 3.60 = 23.60 INR" in notes[0].output
    assert told(run("billing", "debit", customer.line, "20", "--key", "ticket-8", "--json"))["kind"] == "debit_note"
    listed = run("billing", "invoices")
    assert "HTD/2627/000001" in listed.output and "HT/2627/000001" in listed.output


def test_a_call_is_corrected_once(run: Any, customer: Customer) -> None:
    first = run("billing", "correct", customer.call, "--unit", "characters=25", "--reason", "counted in words")
    assert first.exit_code == 0 and f"{customer.call} is void; " in first.output
    assert run("billing", "correct", customer.call, "--unit", "characters=25", "--reason", "x").output == first.output
    other = run("billing", "correct", customer.call, "--void", "--reason", "a test of ours")
    assert other.exit_code == 1 and "corrected" in other.output
    place = told(run("billing", "correct", customer.call, "--unit", "characters=25", "--reason", "x", "--json"))
    assert place["replaced_by"] in first.output


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("pay", NOBODY, "1", "UTR"), 1, "There is no such organisation"),
        (("pay", "ORG", "1", "UTR", "--invoice", NOBODY), 1, "The organisation has no such invoice"),
        (("pay", "ORG", "0", "UTR"), 1, "amount: Give rupees above 0"),
        (("pay", "ORG", "0.001", "UTR"), 1, "amount: Give rupees above 0"),
        (("pay", "ORG", "NaN", "UTR"), 2, "NaN is no amount"),
        (("pay", "ORG", "1", " "), 1, "reference: Give the transfer's reference"),
        (("pay", "acme", "1", "UTR"), 2, "is not a valid UUID"),
        (("refund", NOBODY, "1", "UTR"), 1, "There is no such payment"),
        (("void", NOBODY, "--reason", "x"), 1, "There is no such invoice"),
        (("void", "INVOICE", "--reason", " "), 1, "Say why the invoice is withdrawn"),
        (("void", "INVOICE"), 2, "Missing option '--reason'"),
        (("lines", NOBODY), 1, "There is no such invoice"),
        (("invoices", "--month", "soon"), 1, "A period is a month"),
        (("credit", NOBODY, "1", "--key", "k"), 1, "There is no such line on an invoice"),
        (("credit", "LINE", "1.001", "--key", "k"), 1, "taxable: Give rupees with whole paise"),
        (("credit", "LINE", "1", "--key", "k", "--reason", "Ten words"), 1, "reason: A reason is one word"),
        (("credit", "LINE", "1", "--key", "k", "--reason", "void"), 1, "A whole invoice is voided, not credited"),
        (("credit", "LINE", "1", "--key", "two words"), 1, "key: A key has 1 to 200"),
        (("credit", "LINE", "1"), 2, "Missing option '--key'"),
        (("debit", NOBODY, "1", "--key", "k"), 1, "There is no such line on an invoice"),
        (("debit", "LINE", "-1", "--key", "k"), 2, "No such option"),
        (("debit", "LINE", "0", "--key", "k"), 1, "taxable: A debit note adds"),
        (("correct", NOBODY, "--void", "--reason", "x"), 1, "There is no such call"),
        (("correct", "CALL", "--unit", "metres=2", "--reason", "x"), 1, "There is no unit metres"),
        (("correct", "CALL", "--unit", "characters=NaN", "--reason", "x"), 2, "is no quantity"),
        (("correct", "CALL", "--unit", "characters=-1", "--reason", "x"), 1, "characters"),
        (("dealt-with", "card", "msg_1", "--note", "x"), 1, "No message msg_1 of card"),
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence_and_nothing_is_half_done(
    run: Any, database: Any, customer: Customer, arguments: tuple[str, ...], status: int, sentence: str
) -> None:
    known = {"ORG": customer.org, "INVOICE": customer.invoice, "LINE": customer.line, "CALL": customer.call}
    before = _rows(database)
    result = run("billing", *(known.get(one, one) for one in arguments))
    assert (result.exit_code, sentence in result.output) == (status, True), result.output
    assert _rows(database) == before


def test_messages_that_wait_for_the_operator_are_a_status_of_their_own(
    run: Any, database: Any, customer: Customer
) -> None:
    assert run("billing", "refused").output == "Every message was booked.\n"
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute(
            """INSERT INTO payment_refusals (provider, message_id, reason, body, first_at, last_at)
               VALUES ('card', 'msg_1', 'Only rupees are booked, not EUR.', '{"amount": 1}', now(), now())"""
        )
    waits = run("billing", "refused")
    assert waits.exit_code == 1 and "not EUR" in waits.output and '{"amount": 1}' in waits.output
    done = run("billing", "dealt-with", "card", "msg_1", "--note", "sent back by hand")
    assert done.output == "msg_1 of card is dealt with.\n"
    assert run("billing", "refused", "--json").output == "[]\n"


@pytest.mark.parametrize("command", ["pay", "refund", "payments", "void", "credit", "debit", "correct", "lines"])
def test_each_says_what_it_wants(command: str) -> None:
    shown = CliRunner().invoke(haat, ["billing", command, "--help"])
    assert shown.exit_code == 0 and "--json" in shown.output
    listed = CliRunner().invoke(haat, ["billing", "--help"]).output
    assert "..." not in listed.partition("Commands:")[2], "each command's line fits"


def test_a_month_is_closed_once_and_who_cant_be_billed_is_named_with_the_reason(
    run: Any, database: Any, wrong: UUID, customer: Customer
) -> None:
    first = run("billing", "run", "2026-11", "--wait")
    assert first.exit_code == 1 and "1 unchanged, 1 failed" in first.output
    assert f"{wrong}: gstin: Enter the 15 characters" in first.output and "check letter" in first.output
    before = _rows(database)
    again = run("billing", "run", "2026-11", "--wait")
    assert again.exit_code == 1 and again.output.splitlines()[-2:] == first.output.splitlines()[-2:]
    assert _rows(database) == before
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("UPDATE organisations SET gstin = NULL WHERE id = %s", (wrong,))
    mended = run("billing", "run", "2026-11", "--wait", "--again")
    assert mended.exit_code == 0 and "1 issued, 1 unchanged, 0 failed" in mended.output
    assert [one["serial"] for one in told(run("billing", "invoices", "--json"))] == [
        "HT/2627/000002",
        "HT/2627/000001",
    ]


# --- the books ------------------------------------------------------------------------------------


def test_the_trial_balance_is_printed_now_and_as_it_stood(run: Any, customer: Customer) -> None:
    now = run("ledger", "trial-balance")
    assert now.exit_code == 0 and f"receivable/{customer.org}" in now.output and "118.00" in now.output
    assert now.output.splitlines()[-1].split() == ["Sum", "118.00", "118.00", "INR", "3"]
    before = told(run("ledger", "trial-balance", "--json"))
    run("billing", "pay", customer.org, "18", "UTR 1")
    after = told(run("ledger", "trial-balance", "--json"))
    assert {one["account"] for one in after["balances"]} - {one["account"] for one in before["balances"]} == {"bank"}
    assert "Nothing was posted yet" in run("ledger", "trial-balance", "--at", "2020-01-01").output
    entries = run("ledger", "account", f"receivable/{customer.org}")
    assert "118.00" in entries.output and "-18.00" in entries.output
    assert "Nothing was posted about it" in run("ledger", "about", f"invoice/{new_id()}").output


def test_a_trial_balance_that_is_not_zero_ends_with_a_status_and_says_so(
    run: Any, database: Any, customer: Customer
) -> None:
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("UPDATE ledger_balances SET amount = amount + 1 WHERE account = 'revenue'")
    damaged = run("ledger", "trial-balance")
    assert damaged.exit_code == 1 and "sum to 1.00, not to zero" in damaged.output


@pytest.mark.parametrize("at", ["yesterday", "2026-13-01", "0001-01-01"])
def test_a_time_that_is_none_is_refused_in_a_sentence(run: Any, at: str) -> None:
    refused = run("ledger", "trial-balance", "--at", at)
    assert refused.exit_code == 2 and "give a time such as" in refused.output


# --- projections ----------------------------------------------------------------------------------


def test_tables_that_were_emptied_are_made_anew_to_the_byte(run: Any, database: Any, customer: Customer) -> None:
    payment = told(run("billing", "pay", customer.org, "200", "UTR 1", "--json"))["id"]
    run("billing", "refund", payment, "100", "UTR 2")
    run("billing", "credit", customer.line, "10.00", "--key", "ticket-7")
    tables = [table for projection in PROJECTIONS for table in projection.tables]
    before = {table: _rows_of(database, table) for table in tables}
    assert before["payments"] and before["payment_returns"] and before["allocations"] and before["ledger_balances"]
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        for table in tables:
            connection.execute(f"DELETE FROM {table}")  # type: ignore[arg-type]
    assert run("projections", "rebuild", "--check").exit_code == 1
    done = run("projections", "rebuild")
    assert done.exit_code == 0, done.output
    assert {table: _rows_of(database, table) for table in tables} == before
    assert run("projections", "rebuild", "--check").exit_code == 0


def test_invoices_are_shown_as_they_stood(run: Any, customer: Customer) -> None:
    run("billing", "pay", customer.org, "123456789012.10", "UTR 1")
    rows = [
        json.loads(line) for line in run("projections", "show", "invoices", "--at", "2100-01-01").output.splitlines()
    ]
    assert [one["row"]["amount"] for one in rows if one["table"] == "payments"] == ["123456789012.10"]
    assert run("projections", "show", "invoices", "--at", "2020-01-01").output == ""
    unknown = run("projections", "show", "nothing", "--at", "2020-01-01")
    assert unknown.exit_code == 2 and "there is no projection nothing" in unknown.output


def _rows_of(database: Any, table: str) -> list[str]:
    with psycopg.connect(database.owner_dsn) as connection:
        found = connection.execute(f"SELECT one::text FROM {table} AS one ORDER BY 1")  # type: ignore[arg-type]
        return [row[0] for row in found]


def _rows(database: Any) -> dict[str, list[str]]:
    kept = ("events", "ledger_entries", "ledger_balances", "invoice_states", "invoice_serials", "usage_corrections")
    return {table: _rows_of(database, table) for table in kept}
