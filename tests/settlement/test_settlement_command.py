"""`haat settlement …` as an operator and as a program use it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from haat.cli.main import haat
from haat.infra.postgres import Database
from haat.kernel.clock import SetClock
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM

from .counting_house import ACCOUNT, MONTH, House, partner

T = TypeVar("T")


class Stores(NamedTuple):
    app: Database
    service: Database


class Shell(NamedTuple):
    """A shell on a platform whose database is the test's own."""

    cluster: Any
    database: str
    clock: SetClock

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(haat, ["settlement", *words])

    def json(self, *words: str) -> Any:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.output)

    def given(self, do: Callable[[House], Awaitable[T]]) -> T:
        async def inside() -> T:
            app, service = (self.cluster.dsn(role, self.database) for role in ("app", "service"))
            async with Database(app) as one, Database(service) as other:
                return await do(House(Stores(one, other), self.clock, keyring=self.cluster.keyring))

        return asyncio.run(inside())


@pytest.fixture
def shell(cluster: Any, database_name: str, clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("HAAT_DATA_DIR", str(cluster.settings.data_dir))
    monkeypatch.setenv("HAAT_DATABASE_URL", cluster.dsn("owner", database_name))
    monkeypatch.setenv("HAAT_PAYOUT_MINIMUM", "0")
    monkeypatch.setenv("HAAT_PAYOUT_DELAY_DAYS", "0")
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr("haat.app.SystemClock", lambda: clock)
    return Shell(cluster, database_name, clock)


def _settled(shell: Shell) -> str:
    """Settle a month of ₹100.00 and return its provider."""

    async def settle(house: House) -> UUID:
        return (await house.settled("60.00", "40.00")).service.org

    return str(shell.given(settle))


def test_a_month_is_settled_shown_and_paid_from_the_terminal(shell: Shell, tmp_path: Path) -> None:
    async def sell(house: House) -> UUID:
        sale = await house.sold("100.00")
        await house.payouts.set_account(partner(sale.service.org), **ACCOUNT)
        house.close_month()
        await house.invoices.issue_all(PLATFORM, MONTH)
        return sale.service.org

    provider = str(shell.given(sell))
    assert "70.00" in shell.run("run", MONTH).output
    (settlement,) = shell.json("list", "--month", MONTH)
    assert "Speak" in shell.run("show", settlement["id"]).output
    assert shell.json("show", settlement["id"])["settlement"]["payable"] == "70.00"
    file = tmp_path / "calls.csv"
    assert shell.run("evidence", settlement["id"], str(file)).exit_code == 0
    assert len(file.read_text().splitlines()) == 2
    missing = shell.run("evidence", str(new_id()), str(tmp_path / "none.csv"))
    assert missing.exit_code == 1 and not (tmp_path / "none.csv").exists()
    (payout,) = shell.json("payout-run")["drafted"]
    assert "drafted nothing" not in shell.run("payout-run").output
    assert shell.run("hold", "--payout", payout["id"], "--reason", "Papers").output == "It is held.\n"
    assert shell.run("release", "--payout", payout["id"]).output == "It is released.\n"
    assert shell.run("send", str(tmp_path / "bank.csv")).exit_code == 1
    assert shell.json("approve", payout["id"])["status"] == "approved"
    sent = shell.run("send", str(tmp_path / "bank.csv"))
    assert sent.exit_code == 0 and ACCOUNT["number"] in (tmp_path / "bank.csv").read_text()
    assert (tmp_path / "bank.csv").stat().st_mode & 0o077 == 0
    again = sent.output.split()[-1].rstrip(".")
    assert shell.run("send", str(tmp_path / "again.csv"), "--again", again).exit_code == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "bank.csv").read_bytes()
    assert shell.run("failed", payout["id"], "--reason", "Closed").output == "It has failed.\n"
    shell.run("approve", payout["id"])
    shell.run("send", str(tmp_path / "bank.csv"))
    answers = tmp_path / "answers.csv"
    answers.write_text(f"payout_id,status,amount,bank_reference,reason\n{payout['id']},paid,70.01,UTR1,\n")
    refused = shell.run("answers", str(answers))
    assert refused.exit_code == 1 and "row 2: It says ₹70.01, and the payout is of ₹70.00." in refused.output
    answers.write_text(f"payout_id,status,amount,bank_reference,reason\n{payout['id']},paid,70.00,UTR1,\n")
    assert shell.run("answers", str(answers)).output.startswith("1 paid, 0 returned, 0 known already")
    assert shell.json("answers", str(answers))["known"] == 1
    assert shell.run("paid", payout["id"], "UTR1").exit_code == 1, "it is paid already"
    assert "70.00" in shell.run("balance", provider).output
    assert "payout.paid" in shell.run("payout", payout["id"]).output
    assert shell.json("payouts", "--status", "paid")[0]["bank_reference"] == "UTR1"
    assert shell.run("reverse", payout["id"], "--reason", "It came back").output == "It is reversed.\n"
    assert shell.json("payouts", "--provider", provider)[0]["status"] == "reversed"


def test_amounts_are_held_terms_set_and_a_split_changed(shell: Shell) -> None:
    provider = _settled(shell)
    held = shell.json("hold", "--provider", provider, "--amount", "20.00", "--reason", "Papers")
    assert "Papers" in shell.run("holds").output
    assert shell.json("holds", "--provider", provider)[0]["amount"] == "20.00"
    assert shell.json("release", "--hold", held["id"])["released_at"]
    assert shell.run("holds").output == "Nothing is held.\n"
    terms = shell.json("terms", provider, "--minimum", "5", "--withhold", "TDS=0.05", "--stop", "Asked for")
    assert terms["withholdings"] == {"TDS": "0.05"} and terms["stopped"] == "Asked for"
    (refused,) = shell.json("payout-run")["refused"]
    assert refused[0] == provider
    for words in (
        ("hold", "--reason", "x"),
        ("release",),
        ("terms", provider, "--withhold", "TDS"),
        ("hold", "--provider", provider, "--amount", "much", "--reason", "x"),
    ):
        assert shell.run(*words).exit_code == 2

    async def service(house: House) -> str:
        return str((await house.bazaar.rows("SELECT id FROM services"))[0]["id"])

    listing = shell.given(service)
    assert shell.json("share", listing, "0.8")[0]["share"] == "0.80000"
    assert "every other" in shell.run("share", listing).output


def test_a_log_is_held_against_an_invoice_and_the_dispute_decided(shell: Shell, tmp_path: Path) -> None:
    _settled(shell)

    async def given(house: House) -> tuple[str, str, str]:
        (invoice,) = await house.bazaar.rows("SELECT id FROM invoices")
        (call,) = await house.bazaar.rows("SELECT id FROM usage WHERE characters = 60")
        (line,) = await house.lines()
        return str(invoice["id"]), str(call["id"]), str(line["id"])

    invoice, call, line = shell.given(given)
    log = tmp_path / "log.csv"
    log.write_text(f"request_id,quantity\n{call},60\n")
    said = shell.run("dispute", f"invoice/{invoice}", str(log), "--reason", "Not ours").output
    assert said.startswith("open: 2 calls of ours, 1 of theirs; 1 only ours")
    (dispute,) = shell.json("disputes", "--status", "open")
    assert dispute["subject"] == f"invoice/{invoice}"
    assert shell.run("decide", dispute["id"], "--credit", "40.00", "--note", "x").exit_code == 2
    assert shell.run("decide", dispute["id"], "--credit", f"{line}=100.01", "--note", "x").exit_code == 1
    decided = shell.run("decide", dispute["id"], "--credit", f"{line}=40.00", "--note", "They never came")
    assert decided.output == "It is decided.\n"
    assert "decided" in shell.run("disputes").output
    assert [one["credited"] for one in shell.json("list", "--month", MONTH)] == ["40.00", "0.00"]
