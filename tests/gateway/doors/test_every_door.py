"""The same work asked for at every door: neither counters nor records nor charges tell which one it was.

They differ by id and time, and by nothing else; refusals and failures, and what is known already, are no exception.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gateway.bills import PRICE
from gateway.doors.every_door import WORKS, Way, Work
from gateway.rig import APP, ORG, Market, Response, answer, close_market, open_market
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import CachePolicy
from haat.infra.keyring import Keyring
from haat.usage.event import Outcome

LABELS = ("X-Haat-User: ravi", "X-Haat-Tags: team=search", "X-Request-ID: mine")
NO_PLAN_SAYS_THAT = PlanLimits(per_day=1_000_000)
_OWN = {"id", "at", "timings_us"}
Case = Callable[[Market, Work, Way], Awaitable[list[Response]]]


def open_shop(market: Market, work: Work, limits: PlanLimits | None = NO_PLAN_SAYS_THAT, **more: Any) -> None:
    """Put the service of a work on the shelf, with a price, and let the provider answer."""
    market.add_service(
        "words",
        dialect=work.dialect,
        category=work.category,
        unit=work.unit,
        price=PRICE,
        subscribed=limits,
        **{**work.listing, **more},
    )
    market.provider.behaviour = works(work)


def works(work: Work) -> bytes:
    reported = (f"X-Haat-Usage: {work.reported}",) if work.reported else ()
    return answer(200, json.dumps(work.answer).encode(), *reported)


async def ask(market: Market, way: Way, *headers: str, key: str | None = None) -> Response:
    response: Response = await market.call("POST", way.path, way.body, *way.headers, *LABELS, *headers, key=key)
    return response


# --- the cases ------------------------------------------------------------------------------------


async def done(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work)
    return [await ask(market, way)]


async def over_a_rate(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work, PlanLimits(per_minute=1))
    return [await ask(market, way) for _ in range(2)]


async def over_a_quota(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work, PlanLimits(quota_per_month=1, quota_unit=work.unit))
    return [await ask(market, way)]


async def within_a_quota(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work, PlanLimits(quota_per_month=50_000, quota_unit=work.unit))
    return [await ask(market, way) for _ in range(2)]


async def not_subscribed(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work, None)
    return [await ask(market, way)]


async def suspended(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work, status="suspended", reason="for a reason")
    return [await ask(market, way)]


async def revoked(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work)
    return [await ask(market, way, key=market.add_key(revoked_at=1))]


async def provider_fails(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work)
    market.provider.behaviour = answer(500, b"boom")
    return [await ask(market, way)]


async def provider_refuses(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work)
    market.provider.behaviour = answer(422, b'{"code": "INPUT_TOO_LONG", "detail": "Too long.", "status": 422}')
    return [await ask(market, way)]


async def provider_babbles(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work)
    market.provider.behaviour = b"HTTP/1.1 nothing\r\n\r\n"
    return [await ask(market, way)]


async def provider_is_gone(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work)
    await market.provider.stop()
    return [await ask(market, way)]


async def at_most_so_many_units(market: Market, work: Work, way: Way) -> list[Response]:
    open_shop(market, work, PlanLimits(quota_per_month=2, quota_unit=work.unit))
    return [await ask(market, way, f"X-Haat-Max-Units: {work.unit}=2")]


def keep_answers(market: Market, work: Work) -> None:
    open_shop(market, work, PlanLimits(quota_per_month=50_000, quota_unit=work.unit))
    directory = market.gateway.directory
    service = directory.services["acme/words"]
    policy = structs.replace(service.policy, cache=CachePolicy(ttl_seconds=60))
    directory.put_service(service.id, structs.replace(service, policy=policy))


async def known_already(market: Market, work: Work, way: Way) -> list[Response]:
    keep_answers(market, work)
    return [await ask(market, way) for _ in range(2)]


async def nothing_kept(market: Market, work: Work, way: Way) -> list[Response]:
    keep_answers(market, work)
    return [await ask(market, way, "Cache-Control: no-store") for _ in range(2)]


CASES: dict[str, Case] = {
    "done": done,
    "over-a-rate": over_a_rate,
    "over-a-quota": over_a_quota,
    "within-a-quota": within_a_quota,
    "at-most-so-many-units": at_most_so_many_units,
    "not-subscribed": not_subscribed,
    "suspended": suspended,
    "revoked": revoked,
    "provider-fails": provider_fails,
    "provider-refuses": provider_refuses,
    "provider-babbles": provider_babbles,
    "provider-is-gone": provider_is_gone,
    "known-already": known_already,
    "nothing-kept": nothing_kept,
}
WITHOUT_A_NAME = {"not-subscribed", "suspended"}
"""Who names no service is told that there is none for him, and not which one he is not let to."""


# --- what is compared -----------------------------------------------------------------------------


def seen(market: Market, work: Work, way: Way, responses: list[Response]) -> dict[str, Any]:
    """Return all that a door could show in, without what is each call's own."""
    records = []
    for event in market.events():
        own = {name: getattr(event, name) for name in event.__struct_fields__ if name not in _OWN}
        assert own.pop("credential") == f"key-{market.key[-6:]}"  # each market of this test has a key of its own
        if event.outcome == Outcome.REFUSED:
            del own["bytes_in"]  # natively who is refused by his head alone has not sent any
        if way.chain and own["trace"]:  # a chain's calls are found by the id of the request that they were made for
            ids = [response.header("x-request-id") or "" for response in responses]
            assert own["trace"] in [identifier.replace("-", "") for identifier in ids]
            own["trace"] = ""
        records.append(own)
    gateway = market.gateway
    service = gateway.directory.services["acme/words"]
    subscription = gateway.directory.subscriptions.get((APP, service.id))
    counters: dict[str, Any] = {}
    if subscription is not None:
        now = gateway.clock.now_us()
        allowance = gateway.limits.of(APP, service.id, subscription.limits, "Asia/Kolkata", now)
        counters = {
            "minute": allowance.admitted("minute", now),
            "day": allowance.admitted("day", now),
            "used": allowance.used,
            "reserved": allowance.reserved,
            "in_flight": allowance.in_flight,
        }
    traffic = gateway.routes.find(b"acme/words").traffic if service.status == "published" else None
    return {
        "statuses": [response.status for response in responses],
        "records": records,
        "counters": counters,
        "answers": None if traffic is None else (traffic.answers, traffic.refused),
        "elsewhere": sum(gateway.meter.elsewhere.answers.values()),
        "asked": [(request.target, request.body) for request in market.provider.requests],
        "charges": [charge_of(response, way, work.unit) for response in responses if response.status < 400],
    }


def charge_of(response: Response, way: Way, unit: str) -> tuple[str, str]:
    """Return units and charge as the answer has them: of a chain those of its one stage."""
    if way.chain:
        [stage] = response.json()["stages"]
        return stage["units"][unit], stage["charge"]
    name, _, quantity = (response.header("x-haat-units") or "").partition("=")
    assert name == unit
    return quantity, response.header("x-haat-charge") or ""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("work", WORKS)
async def test_no_door_shows(work: str, case: str, tmp_path: Path, keyring: Keyring) -> None:
    asked, found = WORKS[work], {}
    for door, way in asked.ways.items():
        if not way.names and case in WITHOUT_A_NAME:
            continue
        (tmp_path / door).mkdir()
        market = await open_market(tmp_path / door, keyring)
        try:
            responses = await CASES[case](market, asked, way)
            expected = 0 if case == "revoked" else len(responses)
            await market.until(lambda: len(market.confirmed()) == expected)  # noqa: B023  # called at once
            found[door] = seen(market, asked, way, responses)
        finally:
            await close_market(market)
    first = found.pop("native")
    assert found
    for door, one in found.items():
        assert one == first, door
    assert {record["org"] for record in first["records"]} <= {ORG}
    if case == "known-already":
        asked_for, known = first["records"]
        assert (asked_for["cache"], known["cache"]) == ("miss", "hit")
        assert (known["units"], known["units_source"]) == (asked_for["units"], asked_for["units_source"])
