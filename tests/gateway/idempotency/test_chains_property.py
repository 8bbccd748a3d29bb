"""Whatever stops a pipeline with a key, and however often: sent until it ends, each of its calls is sold once."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.doors.flows import Chain, events_in
from gateway.rig import Response, answer, close_market, open_market
from haat.infra.keyring import Keyring

LETTERS = "abc"
KEY = ("Idempotency-Key: k",)


class Trouble(NamedTuple):
    """What happens to one attempt when it comes to a stage with an item."""

    kind: Literal["refused", "left", "reset"]
    stage: int
    item: int


class Plan(NamedTuple):
    stages: int
    items: int
    streams: bool
    troubles: list[Trouble]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    streams = draw(st.booleans())
    stages, items = draw(st.integers(1, 3)), draw(st.integers(1, 3)) if streams else 1
    kinds = st.sampled_from(["refused", "left", "reset"])
    troubles = st.builds(Trouble, kinds, st.integers(0, stages - 1), st.integers(0, items - 1))
    return Plan(stages, items, streams, draw(st.lists(troubles, max_size=4)))


@given(plans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_sent_until_it_ends_each_call_is_sold_once(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(_run(Path(folder), plan))


async def _run(folder: Path, plan: Plan) -> None:
    market = await open_market(folder, Keyring(bytes(32)))
    try:
        letters = LETTERS[: plan.stages]
        chain = Chain(market, *letters)
        refused = []
        for trouble in plan.troubles:
            place = letters[trouble.stage], f"{trouble.item}{letters[: trouble.stage]}"
            before = list(chain.asked)
            if trouble.kind == "refused":
                chain.instead[place] = answer(503, b"{}")
                await _ask(chain, plan, letters)
                if chain.instead.pop(place, None) is None:
                    refused.append(place)
            else:
                await _leave(chain, plan, letters, place, reset=trouble.kind == "reset")
            await market.until(lambda: not market.gateway.calls)
            again = [one for one in chain.asked[len(before) :] if one in before]
            assert all(one in refused for one in again), "only what was not done is asked again"
        done = await _ask(chain, plan, letters)
        assert done is not None and done.status == 200
        repeated = await _ask(chain, plan, letters)
        assert repeated is not None and repeated.header("idempotency-replayed") == "true"
        if plan.streams:
            assert events_in(done.body)[-1].data == "[DONE]" and repeated.body == done.body
        else:
            assert done.json()["output"] == [{"text": f"0{letters}"}]
        every = [(letter, str(at + 1)) for at, letter in enumerate(letters) for _ in range(plan.items)]
        assert sorted(chain.billed()) == sorted(every)
        for allowance in market.gateway.limits._allowances.values():
            assert allowance.in_flight == 0
    finally:
        await close_market(market)


def _request(chain: Chain, plan: Plan, letters: str) -> bytes:
    return chain.raw(letters, *map(str, range(plan.items)), headers=KEY, stream=plan.streams)


async def _ask(chain: Chain, plan: Plan, letters: str) -> Response | None:
    client = await chain.market.connect()
    await client.send(_request(chain, plan, letters))
    response = await client.receive("POST")
    client.close()
    return response


async def _leave(chain: Chain, plan: Plan, letters: str, place: tuple[str, str], *, reset: bool) -> None:
    """Leave while a call runs; or be answered, when that call is not needed any more."""
    gate = chain.gate(*place)
    reached = len(chain.asked)
    client = await chain.market.connect()
    await client.send(_request(chain, plan, letters))
    answered = asyncio.ensure_future(client.receive("POST"))
    await chain.market.until(lambda: place in chain.asked[reached:] or answered.done())
    answered.cancel()
    await asyncio.gather(answered, return_exceptions=True)
    if reset:
        client.reset()
    else:
        client.close()
    await chain.market.until(lambda: not chain.market.gateway.clients)
    gate.set()
    del chain.gates[place]
