"""Every way of misbehaving in docs/resilience.md, against the gateway: what the caller gets, and what is left."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.rig import MakeMarket, Market, Response
from gateway.upstreams.bad_upstream import AFTER_THE_HEAD, BEHAVIOURS, BadUpstream
from haat.gateway.status import METRICS
from haat.usage.event import Outcome

DOCS = (Path(__file__).parents[3] / "docs" / "resilience.md").read_text()
BAD = "/v1/services/acme/bad/invoke"
GOOD = "/v1/services/acme/bad/good"
REFUSED, STALE = "refuses the connection", "closes an idle connection just as it is used"


class Documented(NamedTuple):
    """What docs/resilience.md says of a misbehaviour."""

    status: int
    how: str
    code: str


def documented() -> dict[str, Documented]:
    table = DOCS.partition("| A provider that … |")[2].partition("\n\n")[0]
    found = {}
    for line in table.splitlines()[2:]:
        name, status, code, _ = (cell.strip() for cell in line.strip("|").split("|"))
        number, _, how = status.partition(", ")
        found[name] = Documented(int(number), how, code.strip("`"))
    return found


TABLE = documented()


def test_the_table_and_the_misbehaving_server_name_the_same() -> None:
    assert set(TABLE) == {*BEHAVIOURS, *AFTER_THE_HEAD, REFUSED, STALE}


def test_the_documented_metrics_are_those_that_are_there() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \| (.+) \|$", DOCS, re.MULTILINE)
    assert {name: (kind, meaning) for name, kind, meaning in rows} == METRICS


async def check(market: Market, name: str, response: Response) -> None:
    """Hold an answer and what it left behind against the table."""
    expected = TABLE[name]
    assert response.status == expected.status
    assert response.whole == (expected.how != "cut off")
    if expected.how == "error event":
        assert b"event: error\ndata: {" in response.body and expected.code.encode() in response.body
    elif expected.code.isupper() and not expected.how:
        assert response.json()["code"] == expected.code
    identifier = response.header("x-request-id")
    await market.until(lambda: identifier in market.confirmed())
    [event] = [event for event in market.events() if event.id == identifier]
    if expected.code == "*":
        assert (event.outcome, event.units) == (Outcome.COMPLETED, {"requests": "1"})
    else:
        assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})
        assert event.error_code == (expected.code if expected.code.isupper() else "")
    await market.until(lambda: not market.gateway.calls)
    assert all(allowance.in_flight == 0 and allowance.reserved == 0 for allowance in allowances(market))


def allowances(market: Market):  # type: ignore[no-untyped-def]
    return market.gateway.limits._allowances.values()


@pytest.mark.parametrize("name", [*BEHAVIOURS, "answers before the request has ended"])
async def test_a_bad_upstream_gives_what_is_documented_and_disturbs_nobody(make_market: MakeMarket, name: str) -> None:
    market = await make_market(stream_max_seconds=1.0)
    async with BadUpstream(name) as upstream:
        market.add_service("bad", port=upstream.port, timeout_ms=800)
        others = [asyncio.create_task(market.call("POST", GOOD, b"x")) for _ in range(4)]
        others += [asyncio.create_task(market.call("POST", "/v1/services/acme/echo/x", b"x")) for _ in range(4)]
        body = b"x" * 500_000 if name in AFTER_THE_HEAD else b"x"
        client = await market.connect()
        sending = asyncio.create_task(client.send(market.raw("POST", BAD, body)))
        response = await client.receive("POST")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert response is not None
        others += [asyncio.create_task(market.call("POST", GOOD, b"x")) for _ in range(4)]
        assert [other.status for other in await asyncio.gather(*others)] == [200] * 12
        await check(market, name, response)
        assert upstream.calls == 1, "it may have been executed: it is not repeated"


async def test_nobody_at_the_address(market: Market) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        market.add_service("bad", port=unused.getsockname()[1])
        response = await market.call("POST", BAD, b"x")
        await check(market, REFUSED, response)
        assert [event.attempts for event in market.events()] == [3]


async def test_a_connection_that_was_closed_just_then(market: Market) -> None:
    async with BadUpstream("closes without an answer") as upstream:
        market.add_service("bad", port=upstream.port)
        assert (await market.call("POST", GOOD, b"x")).status == 200
        assert market.gateway.pools.each(lambda pool: pool.idle) == 1
        response = await market.call("POST", BAD, b"x")
        await check(market, STALE, response)


async def test_a_storm_of_bad_answers_leaves_nothing_behind(make_market: MakeMarket) -> None:
    market = await make_market(stream_max_seconds=0.3, upstream_connections=4)
    names = [name for name in BEHAVIOURS if TABLE[name].code == "PROVIDER_FAILED"]
    for name in names:
        async with BadUpstream(name) as upstream:
            market.add_service("bad", port=upstream.port, timeout_ms=2000)
            bad = [market.call("POST", BAD, b"x") for _ in range(8)]
            good = [market.call("POST", "/v1/services/acme/echo/x", b"x") for _ in range(4)]
            responses = await asyncio.gather(*bad, *good)
            assert [response.status for response in responses[8:]] == [200] * 4
    await market.until(lambda: not market.gateway.calls)
    await market.until(lambda: len(market.confirmed()) == len(names) * 12)
    assert all(allowance.in_flight == 0 and allowance.reserved == 0 for allowance in allowances(market))
    market.gateway.endpoints.look(market.gateway.clock.now_us())
    assert len(market.gateway.endpoints.every()) <= 2
    assert market.gateway.pools.each(lambda pool: pool.busy + pool.waiting) == 0
