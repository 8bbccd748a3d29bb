"""A month that pays: judged once by frozen evidence, credited once an invoice, whoever runs it and however often."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from bazaar import Service, Subscription, consumer, partner
from haat.infra.postgres import tenant
from haat.kernel.errors import Conflict, InvalidRequest, NotFound, PermissionDenied
from haat.kernel.permissions import PLATFORM, Actor
from haat.sla.views import BrokenCall

from .rig import Level

MONTH = "2026-11"
START, END = datetime(2026, 10, 31, 18, 30, tzinfo=UTC), datetime(2026, 11, 30, 18, 30, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TIERS = [{"below": "99.5", "credit": "10"}, {"below": "99", "credit": "25"}, {"below": "95", "credit": "50"}]

pytestmark = pytest.mark.usefixtures("credit_notes")


@pytest.fixture
def level(level: Level) -> Level:
    level.to(START - DAY) if level.clock.now() < START else level.clock.advance(
        seconds=(START - DAY - level.clock.now()).total_seconds()
    )
    return level


async def open_month(level: Level, **promised: Any) -> tuple[Service, Subscription, Subscription]:
    """Return a promising service and two customers; the clock stands at the end of the month."""
    service = await level.bazaar.service(price="0.1", share="0.70", unit="requests")
    await level.promise(service, **{"availability": "99.5", "tiers": TIERS, **promised})
    two = [await level.bazaar.subscribe(await level.bazaar.organisation(), service) for _ in range(2)]
    level.to(END)
    return service, two[0], two[1]


async def close(level: Level) -> Any:
    level.to(max(level.clock.now(), END + 2 * HOUR))
    await level.invoices.issue_all(PLATFORM, MONTH)
    return await level.closing.close(PLATFORM, MONTH)


async def note_lines(level: Level) -> list[dict[str, Any]]:
    return await level.bazaar.rows("SELECT * FROM port.credit_note_lines ORDER BY id")


async def all_calls(level: Level, actor: Actor, month: UUID) -> list[BrokenCall]:
    found, cursor = [], None
    while True:
        page = await level.sla.calls(actor, month, cursor=cursor, limit=7)
        found += page.items
        cursor = page.next
        if cursor is None:
            return found


# --- a breach that pays -------------------------------------------------------------------------------


async def test_a_broken_month_credits_the_affected_and_debits_the_provider_in_the_same_run(level: Level) -> None:
    service, struck, spared = await open_month(level)
    await level.use(struck, 500, failed=15, over=10 * DAY)
    await level.use(spared, 500, over=10 * DAY)
    closed = await close(level)
    [month] = closed.judged
    assert (month["verdict"], month["availability"], month["credit"]) == ("breached", Decimal("98.5"), Decimal(25))
    [paid] = closed.paid
    assert (paid.org_id, paid.taxable, paid.debited) == (struck.org, Decimal("121.25"), Decimal("84.87"))
    [line] = await note_lines(level)
    assert (line["org_id"], line["provider_org"], line["taxable"], line["fault"]) == (
        struck.org,
        service.org,
        Decimal("121.25"),
        "provider",
    )
    [note] = await level.bazaar.rows("SELECT key, reason FROM port.credit_notes")
    assert note == {"key": f"sla/{month['id']}/{paid.invoice_id}", "reason": "sla"}
    assert await level.kinds(service) == ["breached", "credited"]


async def test_running_again_or_three_at_once_judges_and_credits_nothing_twice(level: Level) -> None:
    service, one, two = await open_month(level)
    for subscription in (one, two):
        await level.use(subscription, 200, failed=20, over=DAY)
    level.to(END + 2 * HOUR)
    await level.invoices.issue_all(PLATFORM, MONTH)
    runs = await asyncio.gather(*(level.closing.close(PLATFORM, MONTH) for _ in range(3)))
    assert sum(len(run.judged) for run in runs) == 1
    assert sum(len(run.paid) for run in runs) == 2
    again = await level.closing.close(PLATFORM, MONTH)
    assert (again.judged, again.known, again.paid) == ([], 1, [])
    assert len(await note_lines(level)) == 2 and level.notes.calls == 2
    assert sorted(await level.kinds(service)) == ["breached", "credited", "credited"]


async def test_the_evidence_finds_the_very_calls_whatever_comes_later(level: Level) -> None:
    _, one, two = await open_month(level)
    made = await level.use(one, 100, failed=10, over=DAY)
    made += await level.use(two, 100, failed=5, over=2 * DAY, status=500)
    await level.use(one, 40, failed=40, status=404, over=DAY)
    [month] = (await close(level)).judged
    failed = sorted(event.id for event in made if event.status >= 500)
    await level.use(two, 300, failed=300, until=END - DAY)  # late: after the verdict
    await level.watch.gather()
    story = await level.sla.month(PLATFORM, month["id"])
    assert [str(call.id) for call in await all_calls(level, PLATFORM, month["id"])] == failed
    assert story.evidence["broken"] == len(failed) == sum(one.calls for one in story.affected)
    assert story.evidence["counts"]["answered"] == 185 and story.evidence["counts"]["failed"] == 15
    causes = {(one["outcome"], one["status"]): (one["verdict"], one["calls"]) for one in story.evidence["causes"]}
    assert causes == {
        ("completed", 200): ("answered", 185),
        ("provider_failed", 503): ("down", 10),
        ("provider_failed", 500): ("failed", 5),
        ("provider_failed", 404): ("not_counted", 40),
    }
    assert (await level.closing.close(PLATFORM, MONTH)).judged == []


async def test_a_slow_month_pays_its_latency_credit_to_who_waited(level: Level) -> None:
    service, slow, quick = await open_month(level, p95_ms=200, latency_credit="5")
    made = await level.use(slow, 20, ms=900, over=DAY)
    await level.use(quick, 180, ms=50, over=DAY)
    closed = await close(level)
    assert (closed.judged[0]["missed"], closed.judged[0]["credit"]) == (["p95"], Decimal(5))
    assert [(paid.org_id, paid.taxable) for paid in closed.paid] == [(slow.org, Decimal("1.00"))]
    calls = await all_calls(level, PLATFORM, closed.judged[0]["id"])
    assert sorted(str(call.id) for call in calls) == sorted(event.id for event in made)
    assert await level.kinds(service) == ["breached", "credited"]


async def test_what_is_invoiced_later_is_credited_by_a_later_run(level: Level) -> None:
    _, one, _ = await open_month(level)
    await level.use(one, 200, failed=20, over=DAY)
    level.to(END + 2 * HOUR)
    closed = await level.closing.close(PLATFORM, MONTH)
    assert len(closed.judged) == 1 and closed.paid == [], "nothing is invoiced yet"
    await level.invoices.issue_all(PLATFORM, MONTH)
    paid, failed = await level.closing.pay(PLATFORM)
    assert ([one.taxable for one in paid], failed) == ([Decimal("90.00")], [])
    await level.use(one, 30, until=END - DAY)  # late usage, on the next invoice with a line of its own month
    level.clock.advance(days=32)
    await level.invoices.issue_all(PLATFORM, "2026-12")
    paid, _ = await level.closing.pay(PLATFORM)
    assert [one.taxable for one in paid] == [Decimal("15.00")]
    assert (await level.closing.pay(PLATFORM))[0] == []


async def test_a_run_that_is_broken_off_is_simply_run_again(level: Level) -> None:
    service, one, two = await open_month(level)
    for subscription in (one, two):
        await level.use(subscription, 200, failed=20, over=DAY)
    level.notes.refused = "More than the line's remaining value."
    closed = await close(level)
    assert closed.paid == [] and len(closed.failed) == 2
    assert await note_lines(level) == [] and await level.kinds(service) == ["breached"]
    level.notes.refused = ""
    assert len((await level.closing.close(PLATFORM, MONTH)).paid) == 2


async def test_a_crash_between_the_note_and_its_record_leaves_neither(
    level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, one, _ = await open_month(level)
    await level.use(one, 200, failed=20, over=DAY)
    with monkeypatch.context() as patch:

        async def fall(*_: Any, **__: Any) -> None:
            raise RuntimeError("the power is gone")

        patch.setattr("haat.sla.store.add_credit", fall)
        with pytest.raises(RuntimeError):
            await close(level)
    assert await note_lines(level) == []
    assert len((await close(level)).paid) == 1
    assert len(await note_lines(level)) == 1


# --- what pays nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {"failed": 60, "status": 429},
        {"failed": 60, "status": 422},
        {"failed": 60, "code": "INTERNAL", "status": 500},
        {"failed": 60, "code": "CONTENT_REFUSED", "status": 200},
        {"failed": 60, "mode": "test"},
        {"failed": 60, "mode": "shadow"},
    ],
)
async def test_what_is_not_the_providers_fault_breaks_nothing(level: Level, how: dict[str, Any]) -> None:
    service, one, _ = await open_month(level)
    await level.use(one, 100, over=DAY, **how)
    await level.use(one, 100, over=DAY)
    [month] = (await close(level)).judged
    assert (month["verdict"], month["availability"]) == ("kept", Decimal(100))
    assert await note_lines(level) == [] and await level.kinds(service) == ["judged"]


async def test_ninety_nine_calls_break_nothing_however_many_of_them_failed(level: Level) -> None:
    _, one, _ = await open_month(level)
    await level.use(one, 99, failed=99, over=DAY)
    [month] = (await close(level)).judged
    assert (month["verdict"], month["availability"], month["credit"]) == ("unmeasured", None, 0)


async def test_probes_judge_a_month_in_which_few_called_and_then_pay_whoever_was_charged(level: Level) -> None:
    service, one, two = await open_month(level)
    for subscription in (one, two):
        await level.use(subscription, 10, over=DAY)
    level.clock.advance(minutes=-1)
    await level.probed(service, good=True, times=97, every=600)
    await level.probed(service, good=False, times=3, every=600)
    closed = await close(level)
    assert (closed.judged[0]["source"], closed.judged[0]["availability"]) == ("probes", Decimal(97))
    assert {paid.org_id for paid in closed.paid} == {one.org, two.org}


async def test_failures_in_announced_maintenance_are_left_out_of_the_month_and_of_its_evidence(level: Level) -> None:
    level.to(START - DAY)
    service = await level.bazaar.service(price="0.1", unit="requests")
    await level.promise(service, availability="99.5", tiers=TIERS)
    one = await level.bazaar.subscribe(await level.bazaar.organisation(), service)
    start = START + 5 * DAY
    await level.sla.announce(PLATFORM, service.id, start, start + 2 * HOUR)
    level.to(END)
    await level.use(one, 50, failed=50, until=start + 2 * HOUR, over=2 * HOUR)
    await level.use(one, 200, failed=2, over=DAY)
    [month] = (await close(level)).judged
    assert (month["verdict"], month["availability"]) == ("breached", Decimal(99))
    assert len(await all_calls(level, PLATFORM, month["id"])) == 2
    [[begins, ends]] = month["evidence"]["predicate"]["excluded"]
    assert (datetime.fromisoformat(begins), datetime.fromisoformat(ends)) == (start, start + 2 * HOUR)


async def test_a_model_that_runs_with_us_is_credited_by_the_platform(level: Level) -> None:
    service, one, _ = await open_month(level)
    await level.bazaar.run(
        """INSERT INTO service_versions (id, service_id, version, endpoint, dialect, is_default, accepted_at,
               created_at)
           VALUES (gen_random_uuid(), %s, '1', 'http://127.0.0.1:8090/vani/speak%%401', 'task', true, now(), now())""",
        service.id,
    )
    await level.use(one, 200, failed=20, over=DAY)
    closed = await close(level)
    assert [(paid.taxable, paid.debited) for paid in closed.paid] == [(Decimal("90.00"), 0)]
    assert [line["fault"] for line in await note_lines(level)] == ["platform"]


async def test_a_month_that_runs_or_is_none_is_not_judged(level: Level) -> None:
    await open_month(level)
    with pytest.raises(Conflict):
        await level.closing.close(PLATFORM, MONTH)
    with pytest.raises(InvalidRequest):
        await level.closing.close(PLATFORM, "last month")


async def test_without_credit_notes_a_breach_stays_owed(level: Level) -> None:
    _, one, _ = await open_month(level)
    await level.use(one, 200, failed=20, over=DAY)
    level.closing._credit = None
    closed = await close(level)
    assert (len(closed.judged), closed.paid, len(closed.failed)) == (1, [], 1)
    level.closing._credit = level.notes
    assert len((await level.closing.pay(PLATFORM))[0]) == 1


# --- versions of a promise ----------------------------------------------------------------------------


async def test_a_month_is_judged_by_the_promise_that_held_as_it_began(level: Level) -> None:
    service, one, _ = await open_month(level)
    level.to(END - 3 * DAY)
    lower = await level.promise(service, availability="90")
    assert lower.effective_from == END
    level.to(END)
    await level.use(one, 200, failed=10, over=DAY)
    [month] = (await close(level)).judged
    assert (month["verdict"], month["evidence"]["objective"]) == ("breached", 1)


async def test_a_first_promise_is_held_to_what_came_after_it(level: Level) -> None:
    service = await level.bazaar.service(price="0.1", unit="requests")
    one = await level.bazaar.subscribe(await level.bazaar.organisation(), service)
    level.to(START + 10 * DAY + timedelta(minutes=7))
    await level.use(one, 100, failed=100, over=HOUR)
    promised = await level.promise(service, availability="99.5", tiers=TIERS)
    assert promised.effective_from == START + 10 * DAY + timedelta(minutes=15)
    level.to(END)
    await level.use(one, 200, over=DAY)
    assert (await close(level)).judged[0]["verdict"] == "kept"


# --- who sees what ------------------------------------------------------------------------------------


async def test_customers_are_pseudonyms_to_their_provider_and_see_only_themselves(level: Level, database: Any) -> None:
    service, one, two = await open_month(level)
    await level.use(one, 100, failed=10, over=DAY)
    await level.use(two, 100, failed=5, over=DAY)
    month = (await close(level)).judged[0]["id"]
    seen = await level.sla.month(partner(service.org), month)
    assert {each.customer.startswith("customer-") for each in seen.affected} == {True}
    assert (len(seen.credits), seen.credits[0].invoice_id) == (2, None)
    assert (seen.credited, seen.debited) == (Decimal("92.50"), Decimal("64.75"))
    mine = await level.sla.month(consumer(one.org), month)
    assert [(each.customer, each.calls) for each in mine.affected] == [(str(one.org), 10)]
    assert [(each.taxable, each.debited) for each in mine.credits] == [(Decimal("45.00"), 0)]
    assert len(await all_calls(level, consumer(one.org), month)) == 10
    assert len(await all_calls(level, partner(service.org), month)) == 15
    assert [each.id for each in (await level.sla.breaches(consumer(two.org))).items] == [month]
    stranger = consumer(await level.bazaar.organisation())
    for asked in (level.sla.month(stranger, month), level.sla.calls(stranger, month)):
        with pytest.raises(NotFound):
            await asked
    assert (await level.sla.breaches(stranger)).items == []
    with pytest.raises(PermissionDenied):
        await level.closing.close(partner(service.org), MONTH)
    assert stranger.org_id is not None
    async with database.app.transaction(tenant(stranger.org_id)) as connection:
        for table in ("sla_months", "sla_affected", "sla_credits", "sla_slots", "sla_probes", "sla_objectives"):
            assert await (await connection.execute(f"SELECT FROM {table}")).fetchall() == []


async def test_verdicts_evidence_and_credits_are_never_edited(level: Level, database: Any) -> None:
    _, one, _ = await open_month(level)
    await level.use(one, 100, failed=10, over=DAY)
    await close(level)
    for statement in (
        "UPDATE sla_months SET credit = 0",
        "DELETE FROM sla_affected",
        "UPDATE sla_credits SET taxable = 1",
        "UPDATE sla_objectives SET availability = 91",
    ):
        with psycopg.connect(database.owner_dsn) as owner, pytest.raises(psycopg.Error, match="never edited"):
            owner.execute(statement)
        with pytest.raises(psycopg.Error, match="permission denied"):
            await level.bazaar.run(statement)
