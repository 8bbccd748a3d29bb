"""Every line of a statement opens the list of its calls, whose parts sum to it, and each call leads back to it."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pyarrow.parquet

from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM

from .counting_house import MONTH, House, consumer, partner, signed_in

NEXT = "2026-12"


async def two_months(house: House) -> UUID:
    """Settle two months of one provider: calls of two customers and services, cached, late, voided and corrected ones.

    Return the provider.
    """
    first = await house.sold("10.00", "0.125", "3.00", price="0.9137")
    second = await house.sold(*["1.5"] * 7, slug="read", price="0.0033", share="0.55")
    cached = house.bazaar.event(first, "20", cache="partial")
    cached.cached_units, cached.cached_share = {"characters": "8"}, "0.5"
    await house.bazaar.take([cached])
    late = house.bazaar.event(second, "1000")
    house.close_month()
    await house.invoices.issue_all(PLATFORM, MONTH)
    await house.settlements.close_all(PLATFORM, MONTH)
    voided, corrected = await house.bazaar.rows("SELECT id FROM usage WHERE characters IN (3, 10) ORDER BY characters")
    await house.invoices.correct_call(PLATFORM, voided["id"], units=None, reason="our own test")
    await house.invoices.correct_call(
        PLATFORM, corrected["id"], units={"characters": Decimal("12.5")}, reason="counted in words"
    )
    await house.bazaar.take([late, *(house.bazaar.event(one, "40") for one in (first, second))])
    house.clock.advance(days=31)
    await house.invoices.issue_all(PLATFORM, NEXT)
    await house.settlements.close_all(PLATFORM, NEXT)
    return first.service.org


async def all_calls(client: httpx.AsyncClient, line: str) -> list[dict[str, Any]]:
    """Return the calls behind a line, page after page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await client.get(f"/settlement-lines/{line}/calls?limit=2{cursor}")).json()
        found += page["items"]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


async def test_line_to_calls_to_request_ids_to_the_line_and_every_part_adds_up(app: Any, house: House) -> None:
    provider = await two_months(house)
    kinds = set()
    async with signed_in(app, partner(provider)) as client:
        statements = (await client.get("/settlements")).json()["items"]
        assert [one["period"] for one in statements] == [NEXT, MONTH]
        for head in statements:
            statement = (await client.get(f"/settlements/{head['id']}")).json()
            evidence = f"/settlements/{head['id']}/evidence?form="
            rows = list(csv.DictReader(io.StringIO((await client.get(f"{evidence}csv")).text)))
            table = pyarrow.parquet.read_table(io.BytesIO((await client.get(f"{evidence}parquet")).content)).to_pylist()
            assert [(row["line_id"], row["request_id"], Decimal(row["quantity"])) for row in rows] == [
                (row["line_id"], row["request_id"], row["quantity"]) for row in table
            ]
            in_file: dict[str, list[Decimal]] = defaultdict(list)
            for row in table:
                in_file[row["line_id"]].append(row["quantity"])
            assert set(in_file) == {line["id"] for line in statement["lines"]}
            for line in statement["lines"]:
                calls = await all_calls(client, line["id"])
                quantities = [Decimal(call["quantity"]) for call in calls]
                assert sum(quantities) == Decimal(line["quantity"]) == sum(in_file[line["id"]])
                assert sum(Decimal(row["amount"]) for row in rows if row["line_id"] == line["id"]) == Decimal(
                    line["gross"]
                )
                assert sum(-1 if call["voided"] else 1 for call in calls) == line["calls"]
                kinds |= {call["voided"] for call in calls} | {line["period"]}
                for call in calls:
                    story = (await client.get(f"/usage/calls/{call['id']}")).json()
                    if not call["voided"]:
                        assert line["id"] in {one["settlement_line_id"] for one in story["lines"]}
            for column, sum_ in (("gross", "gross"), ("provider", "provider"), ("platform", "platform")):
                assert sum(Decimal(line[column]) for line in statement["lines"]) == Decimal(head[sum_])
    assert kinds == {False, True, MONTH, NEXT}, "voided calls and adjustments of an earlier month were among them"
    (books,) = await house.bazaar.rows("SELECT sum(taxable) AS net FROM invoice_lines")
    assert sum(Decimal(head["gross"]) for head in statements) == books["net"]


async def test_anothers_statement_lines_and_evidence_are_not_there_and_a_customer_has_none(
    app: Any, house: House
) -> None:
    provider = await two_months(house)
    stranger = await house.bazaar.organisation("Stranger", kind="provider")
    (head, _) = (await house.settlements.page(partner(provider))).items
    (line, *_) = (await house.settlements.statement(PLATFORM, head.id)).lines
    ways = [
        f"/settlements/{head.id}",
        f"/settlements/{head.id}/evidence",
        f"/settlements/{head.id}/evidence?form=parquet",
        f"/settlement-lines/{line.id}/calls",
        f"/settlements?provider_org={provider}",
        f"/balance?provider_org={provider}",
        f"/payouts?provider_org={provider}",
    ]
    async with signed_in(app, partner(stranger)) as client:
        assert [(await client.get(way)).status_code for way in ways] == [404] * len(ways)
        assert (await client.get(f"/settlements/{head.id}/payouts")).json() == []
        assert (await client.get(f"/settlements/{new_id()}/evidence")).status_code == 404
    async with signed_in(app, consumer(stranger)) as client:
        assert [(await client.get(way)).status_code for way in ways] == [403] * len(ways)


async def test_a_statements_own_evidence_is_no_dispute_also_where_a_call_was_taken_off(app: Any, house: House) -> None:
    provider = await two_months(house)
    async with signed_in(app, partner(provider)) as client:
        for head in (await client.get("/settlements")).json()["items"]:
            evidence = (await client.get(f"/settlements/{head['id']}/evidence")).content
            made = await client.post(f"/disputes?subject=settlement/{head['id']}", content=evidence)
            assert (made.status_code, made.json().get("status")) == (201, "agreed"), made.json()
