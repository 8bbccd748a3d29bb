"""Test keys on a whole running platform: made in the control plane, answered by the gateway, seen and never billed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from trade import PATIENCE_SECONDS, Handler, Market, serving

from haat_client import ApiError, Haat, QuotaExhausted

pytestmark = pytest.mark.verify

ANSWER = b'{"output":[{"text":"real"}]}'


class Asked(Handler):
    """A task service that counts how often it is asked."""

    times: ClassVar[int] = 0

    def do_POST(self) -> None:
        Asked.times += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, ANSWER)


@pytest.fixture(scope="module")
def service(market: Market) -> Iterator[str]:
    sample = {"method": "POST", "path": "/invoke", "body": {"input": [{"text": "sample"}]}}
    with serving(Asked) as address:
        yield market.offer(address, sample, dialect="task")


def story(client: Haat, request_id: str) -> Any:
    """Return a call's story once it is in the usage store."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return client.usage.call(request_id).data
        except ApiError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_a_test_call_is_metered_and_costs_nothing_beside_a_live_one_that_does(market: Market, service: str) -> None:
    buyer = market.buyer
    application = buyer.ask("POST", "/applications", name=f"Trial {uuid4().hex[:8]}")["id"]
    buyer.ask("POST", "/subscriptions", application_id=application, service_id=market.id_of(service), plan="basic")
    keys = {mode: buyer.ask("POST", f"/applications/{application}/keys", mode=mode)["key"] for mode in ("live", "test")}
    market.settle()
    token = buyer.client.headers["Authorization"].partition(" ")[2]
    places = {"base_url": market.platform.gateway_url, "control_url": market.platform.control_url, "token": token}
    before = Asked.times
    with Haat(keys["test"], **places) as tester, Haat(keys["live"], **places) as live:
        tests = [tester.services.invoke(service, "hello") for _ in range(3)]
        with pytest.raises(QuotaExhausted):
            tester.services.invoke(service, "hello", simulate="quota")
        assert Asked.times == before, "no provider hears of it"
        sold = live.services.invoke(service, "hello", simulate="quota")
        assert (sold.texts, Asked.times) == (["real"], before + 1)
        assert [(one.meta.mode, str(one.charge)) for one in (*tests, sold)] == [("test", "0")] * 3 + [("live", "0.01")]
        stories = [story(tester, one.request_id) for one in (*tests, sold)]
        assert [(one["call"]["mode"], one["billed"]) for one in stories] == [("test", False)] * 3 + [("live", True)]
        [summed] = [one for one in live.usage.summary().items if f"{one['provider']}/{one['slug']}" == service]
        assert summed["counts"]["calls"] == 1
        assert len(live.usage.calls(mode="test", application_id=application).items) == 4, "the refusal is one, too"
    cost = buyer.ask("GET", "/cost")
    assert [(one["calls"], float(one["amount"])) for one in cost["charges"]] == [(1, 0.01)]
