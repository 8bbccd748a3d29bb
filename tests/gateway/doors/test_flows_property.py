"""Whichever order calls end in, whichever fails, whenever the caller leaves: the books of a stream are right."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.doors.flows import Chain, Event, events_in, place
from gateway.rig import answer, close_market, open_market
from haat.infra.keyring import Keyring
from haat.usage.event import Outcome

LETTERS = "abc"


class Plan(NamedTuple):
    stages: int
    items: int
    delays: list[int]
    """Milliseconds that the calls take, in the order in which they come."""
    fails: tuple[int, int] | None
    """The stage and the item that the provider refuses."""
    leaves_after: int | None
    """Events after which the caller leaves."""
    keyed: bool


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    stages, items = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    fails = draw(st.none() | st.tuples(st.integers(0, stages - 1), st.integers(0, items - 1)))
    delays = draw(st.lists(st.integers(0, 6), min_size=1, max_size=stages * items))
    leaves = draw(st.none() | st.integers(0, stages * items))
    return Plan(stages, items, delays, fails, leaves, draw(st.booleans()))


@given(plans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_call_has_one_event_and_is_billed_if_and_only_if_it_ended_well(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(_run(Path(folder), plan))


async def _run(folder: Path, plan: Plan) -> None:
    market = await open_market(folder, Keyring(bytes(32)))
    try:
        chain = Chain(market, *LETTERS[: plan.stages])
        letters = LETTERS[: plan.stages]
        if plan.fails is not None:
            stage, item = plan.fails
            chain.instead[letters[stage], f"{item}{letters[:stage]}"] = answer(422, b'{"code":"NO"}')
        behave, delays = market.provider.behaviour, iter(plan.delays)
        assert not isinstance(behave, bytes)

        async def slow(*arguments: object) -> bool:
            await asyncio.sleep(next(delays, 0) / 1000)
            return await behave(*arguments)  # type: ignore[arg-type]

        market.provider.behaviour = slow
        headers = ("Idempotency-Key: k",) if plan.keyed else ()
        client = await market.connect()
        await client.send(chain.raw(letters, *map(str, range(plan.items)), stream=True, headers=headers))
        events: list[Event] = []
        if plan.leaves_after is None:
            response = await client.receive("POST")
            assert response is not None
            events = events_in(response.body) if response.status == 200 else [Event("error", response.json())]
        else:
            text = b""
            while text.count(b"event: ") < plan.leaves_after and b"[DONE]" not in text and b'"code"' not in text:
                text += await client.reader.read(1)
            client.reset()
        gone = plan.leaves_after is not None
        await market.until(
            lambda: (
                not market.gateway.calls
                and len(market.confirmed()) == len(market.events())
                and not (gone and market.gateway.clients)
            )
        )
        _check_books(chain, plan, letters, events)
    finally:
        await close_market(market)


def _check_books(chain: Chain, plan: Plan, letters: str, events: list[Event]) -> None:
    recorded = chain.market.events()
    assert len(chain.asked) == len(set(chain.asked)), "nothing is asked twice"
    left = [event for event in recorded if event.outcome == Outcome.CLIENT_LEFT]
    unasked = len(recorded) - len(chain.asked)  # given up before the provider had heard of them
    assert 0 <= unasked <= len(left), "one event for each call, and none for the whole"
    if plan.leaves_after is None and plan.fails is None:
        assert not left
    for event in recorded:
        paid = event.units.get("characters", "0") != "0"
        assert paid == (event.outcome == Outcome.COMPLETED)
    for allowance in chain.market.gateway.limits._allowances.values():
        assert allowance.in_flight == 0
    outputs = [event for event in events if event.name == "output"]
    for stage in range(1, plan.stages + 1):  # in the order of the input
        items = [place(one)[1] for one in outputs if place(one)[0] == stage]
        assert items == list(range(len(items)))
    if plan.leaves_after is not None:
        return
    billed = {event.id for event in recorded if event.outcome == Outcome.COMPLETED}
    assert {one.data["request_id"] for one in outputs} == billed, "what is paid for has been delivered"
    if plan.fails is None:
        assert len(outputs) == plan.stages * plan.items
        assert json.dumps(events[-1].data) == '"[DONE]"'
    else:
        stage, item = plan.fails
        assert (events[-1].name, events[-1].data["stage"]["number"]) == ("error", stage + 1)
        assert events[-1].data["item"] == item
