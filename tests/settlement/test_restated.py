"""Settlements that were closed before their events said everything: they are said again, posted, and payable."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from haat.infra.events import verify_chain
from haat.infra.migrate import migrate
from haat.infra.postgres import Connection
from haat.infra.projections import rebuild
from haat.kernel.ids import new_id
from haat.ledger.projection import BALANCES
from haat.settlement.projection import SETTLEMENTS


@pytest.fixture
def old(cluster: Any) -> Iterator[str]:
    """A database as it was before, with a settlement of two lines, ₹70 in all."""
    cluster.create("test_restated", "template0")
    dsn = cluster.dsn("owner", "test_restated")
    migrate(dsn, "0016")
    org, service, card, invoice, settlement = (new_id() for _ in range(5))
    with psycopg.connect(dsn) as connection:
        run = connection.execute
        run("INSERT INTO organisations (id, name, kind, created_at) VALUES (%s, 'Vani', 'provider', now())", (org,))
        run(
            """INSERT INTO partners (org_id, slug, company_name, email, contact_person, business_type, status,
                   created_at) VALUES (%s, 'vani', 'Vani', 'a@b.example', 'A B', 'company', 'approved', now())""",
            (org,),
        )
        run(
            """INSERT INTO services (id, org_id, provider_slug, slug, name, category, status, status_at, unit,
                   created_at)
               VALUES (%s, %s, 'vani', 'speak', 'Speak', 'nlp', 'published', now(), 'characters', now())""",
            (service, org),
        )
        run(
            """INSERT INTO rate_cards (id, service_id, version, unit, unit_price, provider_share, effective_from,
                   created_at) VALUES (%s, %s, 1, 'characters', 1, 0.7, now(), now())""",
            (card, service),
        )
        lines = [new_id(), new_id()]
        for position, line in enumerate(lines, 1):
            run(
                """INSERT INTO invoice_lines (id, invoice_id, position, org_id, identity, period, subscription_id,
                       service_id, provider_org, rate_card_id, id_from, id_to, batch_from, batch_to, calls, unit,
                       quantity, free_units, unit_price, taxable, provider_share, description)
                   VALUES (%(line)s, %(invoice)s, %(position)s, %(org)s, %(line)s || '/2026-10[0]', '2026-10', %(org)s,
                       %(service)s, %(org)s, %(card)s, %(org)s, %(line)s, 0, 1, 1, 'characters', 50, 0, 1, 50, 0.7,
                       'Speak')""",
                {"line": line, "invoice": invoice, "position": position, "org": org, "service": service, "card": card},
            )
        run(
            """INSERT INTO invoices (id, org_id, period, part, closes, serial, issued_at, batch_to, place_of_supply,
                   net, tax, total, document, content_hash)
               VALUES (%s, %s, '2026-10', 1, true, 'HT/2627/000001', now(), 1, '07', 100, 18, 118, '{}',
                   sha256('{}'::bytea))""",
            (invoice, org),
        )
        for line in lines:
            run(
                """INSERT INTO settlement_lines (id, settlement_id, org_id, invoice_line_id, gross, share,
                       provider_amount, platform_amount) VALUES (%s, %s, %s, %s, 50, 0.7, 35, 15)""",
                (new_id(), settlement, org, line),
            )
        run(
            """INSERT INTO settlements (id, org_id, period, part, closed_at, gross, provider_amount, platform_amount)
               VALUES (%s, %s, '2026-10', 1, now(), 100, 70, 30)""",
            (settlement, org),
        )
    yield dsn
    cluster.drop("test_restated")


async def test_an_old_settlement_is_payable_posted_and_made_anew_to_the_byte(old: str) -> None:
    migrate(old)
    connection: Connection
    async with await AsyncConnection.connect(old, row_factory=dict_row) as connection:
        settlement = await (await connection.execute("SELECT * FROM settlements")).fetchone()
        assert settlement is not None and settlement["payable"] == Decimal("70.00")
        earning = await (await connection.execute("SELECT kind, amount FROM earnings")).fetchone()
        assert earning == {"kind": "settlement", "amount": Decimal("70.00")}
        books = await connection.execute("SELECT account, amount FROM ledger_balances WHERE account = 'shares'")
        assert await books.fetchall() == [{"account": "shares", "amount": Decimal("70.00")}]
        assert await verify_chain(connection, f"settlement/{settlement['id']}") is None
        for one in await rebuild(connection, [BALANCES, SETTLEMENTS], repair=False):
            assert (one.missing, one.surplus) == (0, 0), one


def test_the_way_back_leaves_what_was_there(old: str) -> None:
    migrate(old, "0020")
    migrate(old, "0016")
    with psycopg.connect(old) as connection:
        rows = connection.execute("SELECT gross, provider_amount, platform_amount FROM settlements").fetchall()
        assert rows == [(100, 70, 30)]
        assert connection.execute("SELECT to_regclass('credit_note_lines')").fetchone() == (None,)
