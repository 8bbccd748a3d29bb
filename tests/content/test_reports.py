"""Reports of bad phrases: anybody makes them, not too many, and the operator closes them with a note."""

from __future__ import annotations

from typing import Any

import pytest

from haat.content.reports import Reports
from haat.infra.postgres import PUBLIC
from haat.kernel.errors import Conflict, NotFound, PermissionDenied, RateLimited, ValidationFailed
from haat.kernel.ids import new_id
from market import Market

from .conftest import HINDI


@pytest.fixture
def reports(market: Market) -> Reports:
    return Reports(market.db, market.clock)


async def make(reports: Reports, **changes: Any) -> Any:
    given = {"page": "/catalog", "phrase": "दाम", "better": "मूल्य", "client": "8.8.8.8", **changes}
    return await reports.make(given.pop("actor", None), HINDI, **given)


async def test_a_report_is_seen_by_the_operator_and_closed_with_a_note(reports: Reports, market: Market) -> None:
    operator, reader = await market.operator(), await market.consumer()
    first, second = await make(reports), await make(reports, actor=reader, better="")
    assert (first.reporter, second.reporter) == (None, reader.label)
    assert [one.id for one in (await reports.page(operator)).items] == [second.id, first.id]
    closed = await reports.close(operator, first.id, "Changed in the catalog")
    assert (closed.closed_by, closed.note) == (operator.label, "Changed in the catalog")
    assert [one.id for one in (await reports.page(operator)).items] == [second.id]
    assert [one.id for one in (await reports.page(operator, closed=True)).items] == [first.id]
    [event] = await market.events(f"content-report/{first.id}")
    assert (event.type, event.actor) == ("content.report_closed", operator.label)
    with pytest.raises(Conflict):
        await reports.close(operator, first.id, "Again")
    with pytest.raises(NotFound):
        await reports.close(operator, new_id(), "Nothing")
    with pytest.raises(ValidationFailed):
        await reports.close(operator, second.id, " ")


async def test_reports_come_in_pages(reports: Reports, market: Market) -> None:
    operator = await market.operator()
    made = [(await make(reports, client=None)).id for _ in range(3)]
    first = await reports.page(operator, limit=2)
    rest = await reports.page(operator, limit=2, cursor=first.next)
    assert [one.id for one in (*first.items, *rest.items)] == made[::-1] and rest.next is None


async def test_nobody_but_the_operator_sees_or_closes_one(reports: Reports, market: Market) -> None:
    report, other = await make(reports), await market.provider()
    with pytest.raises(PermissionDenied):
        await reports.page(other)
    with pytest.raises(PermissionDenied):
        await reports.close(other, report.id, "Mine")
    async with market.db.transaction(PUBLIC) as connection:
        assert await (await connection.execute("SELECT * FROM content_reports")).fetchall() == []


async def test_one_address_reports_ten_at_once_and_then_one_in_five_minutes(reports: Reports, market: Market) -> None:
    for _ in range(10):
        await make(reports)
    with pytest.raises(RateLimited):
        await make(reports)
    await make(reports, client="1.1.1.1")
    await make(reports, client="127.0.0.1")  # a proxy, behind which many stand
    market.clock.advance(seconds=300)
    await make(reports)
    with pytest.raises(RateLimited):
        await make(reports)


async def test_all_together_report_a_hundred_at_once(reports: Reports, market: Market) -> None:
    for _ in range(100):
        await make(reports, client="127.0.0.1")
    with pytest.raises(RateLimited):
        await make(reports, client="127.0.0.1")
    market.clock.advance(seconds=36)
    await make(reports, client="127.0.0.1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"phrase": " "},
        {"phrase": "x" * 501},
        {"better": "x" * 501},
        {"page": ""},
        {"page": "catalog"},
        {"page": "//evil.in"},
        {"page": "/\\evil.in"},
        {"page": "javascript:alert(1)"},
        {"page": "/" + "x" * 300},
    ],
)
async def test_a_report_that_says_nothing_or_leads_elsewhere_is_refused(
    reports: Reports, wrong: dict[str, str]
) -> None:
    with pytest.raises(ValidationFailed):
        await make(reports, **wrong)
