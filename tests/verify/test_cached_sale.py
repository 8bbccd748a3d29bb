"""Answers from the cache on a whole running platform: from the provider's word to the invoice, and back out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import uuid4

import httpx
import pytest
from trade import Handler, Market, serving

pytestmark = pytest.mark.verify

SAMPLE = {"method": "POST", "path": "/invoke", "body": {"input": [{"text": "sample"}]}}


class Capitals(Handler):
    """A task service; ``asked`` is what it was asked for, batch by batch."""

    asked: ClassVar[list[list[str]]] = []

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = [item["text"] for item in request["input"]]
        self.asked.append(texts)
        self.answer(200, json.dumps({"output": [{"text": text.upper()} for text in texts]}).encode())


@pytest.fixture(scope="module")
def capitals(market: Market) -> Iterator[str]:
    """A service whose answers are kept, item by item, with a plan on which known answers cost a quarter."""
    with serving(Capitals) as address:
        path = market.offer(address, SAMPLE, dialect="task")
        service = f"/services/{market.id_of(path)}"
        market.provider.ask("PUT", f"{service}/policy", cache={"ttl_seconds": 600, "items": True})
        market.provider.ask("POST", f"{service}/plans", code="saver", name="Saver", cached_share="0.25")
        yield path


class Caller:
    def __init__(self, market: Market, path: str) -> None:
        self.market, self.path = market, path
        self.application = market.buyer.ask("POST", "/applications", name=f"Trial {uuid4().hex[:8]}")["id"]
        service = market.id_of(path)
        market.buyer.ask("POST", "/subscriptions", application_id=self.application, service_id=service, plan="saver")
        self.key: str = market.buyer.ask("POST", f"/applications/{self.application}/keys", name="trial")["key"]
        market.settle()

    def call(self, *texts: str, key: str | None = None) -> httpx.Response:
        return httpx.post(
            f"{self.market.platform.gateway_url}/v1/services/{self.path}/invoke",
            json={"input": [{"text": text} for text in texts]},
            headers={"Authorization": f"Bearer {key or self.key}"},
            timeout=40,
            trust_env=False,
        )

    def story(self, response: httpx.Response) -> Any:
        return self.market.buyer.story(response.headers["X-Request-ID"])


@pytest.fixture
def caller(market: Market, capitals: str) -> Caller:
    return Caller(market, capitals)


def test_a_known_answer_is_charged_at_the_plans_share_and_named_on_the_bill(caller: Caller) -> None:
    words = [f"{uuid4().hex}-{number}" for number in range(3)]
    Capitals.asked.clear()
    miss, partial, hit = caller.call(*words[:2]), caller.call(*words), caller.call(*words)
    assert [one.headers["X-Cache"] for one in (miss, partial, hit)] == ["MISS", "PARTIAL", "HIT"]
    assert Capitals.asked == [words[:2], words[2:]]
    assert hit.json() == partial.json() == {"output": [{"text": word.upper()} for word in words]}
    # It is sold by requests: what was asked for costs a whole one, a known answer a quarter.
    assert [one.headers["X-Haat-Charge"] for one in (miss, partial, hit)] == ["0.01 INR", "0.01 INR", "0.0025 INR"]
    stories = [caller.story(one) for one in (miss, partial, hit)]
    assert [story["call"]["cache"] for story in stories] == ["miss", "partial", "hit"]
    assert [float(story["list_charge"]) for story in stories] == [0.01, 0.01, 0.0025]
    charges = [charge for charge in caller.market.buyer.ask("GET", "/cost")["charges"] if charge["plan"] == "saver"]
    assert [(charge["cached_share"], float(charge["amount"])) for charge in charges] == [
        (None, 0.02),
        ("0.250", 0.0025),
    ]


def test_a_purge_and_a_changed_policy_reach_the_gateway_within_a_second(caller: Caller) -> None:
    word = uuid4().hex
    service = f"/services/{caller.market.id_of(caller.path)}"
    caller.call(word)
    assert caller.call(word).headers["X-Cache"] == "HIT"
    caller.market.provider.ask("POST", f"{service}/cache/purge")
    assert _within_a_second(lambda: caller.call(word).headers["X-Cache"] == "MISS")
    caller.market.provider.ask("PUT", f"{service}/policy", cache=None)
    assert _within_a_second(lambda: "X-Cache" not in caller.call(word).headers)
    caller.market.provider.ask("PUT", f"{service}/policy", cache={"ttl_seconds": 600, "items": True})
    assert _within_a_second(lambda: caller.call(word).headers.get("X-Cache") == "HIT")


def test_data_goes_nowhere_that_its_application_forbids_known_answer_or_not(caller: Caller) -> None:
    word = uuid4().hex
    caller.call(word)
    policy = f"/applications/{caller.application}/policy"
    caller.market.buyer.ask("PUT", policy, data={"regions": ["SG"]})
    assert _within_a_second(lambda: caller.call(word).status_code == 403)
    refused = caller.call(word)
    assert refused.json()["code"] == "DATA_POLICY" and refused.json()["service"]["region"] == "IN"
    story = caller.story(refused)
    assert (story["call"]["outcome"], story["billed"]) == ("refused", False)
    caller.market.buyer.ask("PUT", policy, data={"regions": ["IN"]})
    assert _within_a_second(lambda: caller.call(word).status_code == 200)


def test_the_cache_is_warmed_from_a_file(caller: Caller, tmp_path: Any) -> None:
    words = [uuid4().hex for _ in range(5)]
    file = tmp_path / "words.jsonl"
    file.write_text("".join(json.dumps({"input": [{"text": word}]}) + "\n" for word in words))
    said = caller.market.platform.run(
        "cache", "warm", str(file), "--key", caller.key, "--service", caller.path, "--json"
    )
    assert (json.loads(said)["kept"], json.loads(said)["failed"]) == (5, 0)
    assert caller.call(*words).headers["X-Cache"] == "HIT"


def _within_a_second(so: Any) -> bool:
    deadline = time.monotonic() + 1
    while not so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
