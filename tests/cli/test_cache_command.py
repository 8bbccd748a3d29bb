"""`haat cache warm`: what it asks for is known afterwards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from gateway.rig import Market, Request, answer, close_market, open_market
from haat.cli.cache import warm_up
from haat.cli.main import haat
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import CachePolicy, ServicePolicy
from haat.infra.keyring import Keyring


@pytest.fixture
async def market(tmp_path: Path, keyring: Keyring) -> AsyncIterator[Market]:
    made = await open_market(tmp_path / "data", keyring)
    directory = made.gateway.directory
    service = directory.services["acme/echo"]
    directory.put_service(service.id, msgspec.structs.replace(service, policy=ServicePolicy(cache=CachePolicy())))
    yield made
    await close_market(made)


def url(market: Market) -> str:
    return f"http://127.0.0.1:{market.port}/v1/services/acme/echo/invoke"


async def test_what_a_file_asks_for_is_answered_from_the_cache_afterwards(market: Market, tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text("".join(json.dumps({"n": number}) + "\n\n" for number in range(12)))
    ticks: list[int] = []
    for _ in range(2):  # the second time everything is asked for again
        done = await warm_up(url(market), market.key, file, 3, lambda: ticks.append(1))
        assert (done.answered, done.kept, done.failed) == (12, 12, 0)
    assert len(market.provider.requests) == len(ticks) == 24
    response = await market.call("POST", "/v1/services/acme/echo/invoke", b'{"n": 7}', "Content-Type: application/json")
    assert response.header("x-cache") == "HIT"
    await market.until(lambda: len(market.confirmed()) == 25)
    assert {event.cache for event in market.events()} == {"bypass", "hit"}


async def test_lines_that_fail_are_counted_with_their_reason_and_stop_nobody(market: Market, tmp_path: Path) -> None:
    async def choosy(request: Request, reader: Any, writer: Any) -> bool:
        fresh = json.loads(request.body)["n"] != 2
        writer.write(answer(200) if fresh else answer(200, b"{}", "Cache-Control: no-store", 'ETag: "theirs"'))
        return True

    market.provider.behaviour = choosy
    file = tmp_path / "asked.jsonl"
    file.write_bytes(b'{"n":1}\nno json\n{"n":2}\n\xff\n')
    done = await warm_up(url(market), market.key, file, 1, lambda: None)
    assert (done.answered, done.kept, done.failed) == (2, 1, 2)
    assert done.reasons == ["line 2: it is not JSON", "line 4: it is not JSON"]
    refused = await warm_up(url(market), "haat_live_wrong", file, 1, lambda: None)
    assert refused.answered == 0 and refused.reasons[0].startswith("line 1: 401 ")


async def test_a_limit_is_waited_out(market: Market, tmp_path: Path) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        market.subscribe("acme/echo", PlanLimits())

    market.subscribe("acme/echo", PlanLimits(per_minute=1))
    file = tmp_path / "asked.jsonl"
    file.write_bytes(b'{"n":1}\n{"n":2}\n')
    done = await warm_up(url(market), market.key, file, 1, lambda: None, wait)
    assert done.answered == 2 and len(waits) == 1 and 0 < waits[0] <= 60


def test_a_gateway_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text("{}\n")
    arguments = ["cache", "warm", str(file), "--key", "k", "--service", "a/b", "--gateway", "http://127.0.0.1:9"]
    result = CliRunner().invoke(haat, [*arguments, "--json"])
    assert result.exit_code == 1 and json.loads(result.output)["failed"] == 1
    assert "can't be asked" in json.loads(result.output)["reasons"][0]
