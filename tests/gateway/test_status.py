"""What an operator sees of a gateway, and who else does not."""

from __future__ import annotations

import re

import pytest

from gateway.rig import MakeMarket, Market, answer
from haat.gateway import status
from haat.gateway.call import Call
from haat.gateway.status import METRICS
from haat.gateway.workers.place import Place

PATH = "/v1/services/acme/echo/invoke"


async def ask(market: Market, path: str, *headers: str, method: str = "GET"):  # type: ignore[no-untyped-def]
    client = await market.connect()
    await client.send("\r\n".join([f"{method} {path} HTTP/1.1", "Host: gateway", *headers, "", ""]).encode())
    response = await client.receive(method)
    assert response is not None
    return response


async def test_the_state_of_every_endpoint_that_was_called_is_visible(market: Market) -> None:
    market.provider.behaviour = answer(503)
    await market.call("POST", PATH, b"x")
    await market.call("GET", PATH)
    response = await ask(market, "/status")
    assert response.header("content-type") == "application/json"
    [seen] = response.json()["workers"]
    [service] = seen["services"]
    [endpoint] = service["endpoints"]
    assert (seen["gateway"], service["service"], service["version"]) == ("gateway-0", "acme/echo", "1")
    assert (service["calls"], service["retries"], service["stood_in"]) == (2, 2, 0)
    assert (endpoint["breaker"], endpoint["failures_in_a_row"], endpoint["ejected"]) == ("closed", 4, False)
    assert (endpoint["in_flight"], endpoint["waiting"], endpoint["most"]) == (0, 0, 128)
    market.provider.behaviour = answer(502)
    await market.call("POST", PATH, b"x")
    [service] = (await ask(market, "/status")).json()["workers"][0]["services"]
    [endpoint] = service["endpoints"]
    assert (endpoint["breaker"], endpoint["opened"]) == ("open", 1)
    assert 58 <= endpoint["opens_again_in"] <= 60
    assert (await ask(market, "/health")).json()["components"]["upstreams"]["broken"] == 1


def samples(text: str) -> dict[str, float]:
    """Return the samples of Prometheus' text format, by name and labels."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r'([a-z_]+(?:\{(?:[a-z_]+="(?:[^"\\]|\\.)*",?)*\})?) (\S+)', line)
        assert match, line
        assert match[1] not in found, "a sample is there once"
        found[match[1]] = float(match[2])
    return found


async def test_calls_are_counted_by_their_routes_template_and_status(market: Market) -> None:
    for _ in range(3):
        await market.call("POST", PATH + "/with/some?q=1", b"x")
    market.provider.behaviour = answer(422)
    await market.call("PUT", PATH, b"x")
    await market.call("POST", PATH, key="haat_live_nonsense")
    response = await ask(market, "/metrics")
    assert (response.header("content-type") or "").startswith("text/plain; version=0.0.4")
    found = samples(response.body.decode())
    echo, worker = 'endpoint="/v1/services/acme/echo/{path}"', 'worker="gateway-0"'
    assert found[f'api_requests_total{{method="POST",{echo},status_code="200",{worker}}}'] == 3
    assert found[f'api_requests_total{{method="PUT",{echo},status_code="422",{worker}}}'] == 1
    assert found[f'api_requests_total{{method="POST",endpoint="",status_code="401",{worker}}}'] == 1
    assert found[f"api_request_duration_seconds_count{{{echo},{worker}}}"] == 4
    assert found[f'api_request_duration_seconds_bucket{{{echo},le="+Inf",{worker}}}'] == 4
    assert 0 < found[f"api_request_duration_seconds_sum{{{echo},{worker}}}"] < 4
    buckets = [
        value for name, value in found.items() if name.startswith(f"api_request_duration_seconds_bucket{{{echo}")
    ]
    assert buckets == sorted(buckets)
    assert found[f"api_active_requests{{{worker}}}"] == 0


async def test_every_metric_is_there_with_its_meaning(market: Market) -> None:
    await market.call("POST", PATH, b"x")
    text = (await ask(market, "/metrics")).body.decode()
    for name, (kind, _) in METRICS.items():
        assert f"# TYPE {name} {kind}" in text
        assert re.search(rf"^{name}(_bucket)?{{", text, re.MULTILINE), f"{name} has no sample"


async def test_of_several_workers_any_one_answers_for_all_that_are_there(market: Market) -> None:
    gateway = market.gateway
    (gateway.settings.data_dir / "gateway").mkdir(exist_ok=True)
    await market.call("POST", PATH, b"x")
    for slot, worker in ((2, "gateway-2"), (1, "gateway-1"), (0, "gateway-0")):
        gateway.place, gateway.meter.worker = Place(slot, (7, 8, 9)), worker
        status.publish(gateway)
        if slot == 2:
            gateway.clock._anchor += 31_000_000_000  # it is not heard of any more
    seen = (await ask(market, "/status")).json()["workers"]
    assert [worker["gateway"] for worker in seen] == ["gateway-0", "gateway-1"]
    text = (await ask(market, "/metrics")).body.decode()
    assert text.count("# TYPE api_requests_total") == 1
    assert {"gateway-0", "gateway-1"} == set(re.findall('worker="([^"]+)"', text))
    samples(text)


@pytest.mark.parametrize("path", ["/status", "/metrics"])
async def test_they_are_not_for_callers_that_a_proxy_speaks_for(market: Market, path: str) -> None:
    assert (await ask(market, path, "X-Forwarded-For: 203.0.113.7")).status == 404
    assert (await ask(market, path, "Forwarded: for=203.0.113.7")).status == 404
    assert (await ask(market, path, method="POST")).status == 404
    assert (await ask(market, path)).status == 200
    assert (await ask(market, path, method="HEAD")).body == b""


@pytest.mark.parametrize(
    ("peer", "networks", "allowed"),
    [
        ("127.0.0.1", [], True),
        ("::1", [], True),
        ("::ffff:127.0.0.1", [], True),
        ("10.0.0.7", [], False),
        ("10.0.0.7", ["10.0.0.0/8"], True),
        ("::ffff:10.0.0.7", ["10.0.0.0/8"], True),
        ("203.0.113.7", ["10.0.0.0/8"], False),
        ("", [], False),
    ],
)
async def test_they_are_for_this_machine_and_the_networks_the_operator_names(
    make_market: MakeMarket, peer: str, networks: list[str], allowed: bool
) -> None:
    market = await make_market(status_networks=networks)
    client = await market.connect()
    await market.until(lambda: bool(market.gateway.clients))
    call = Call(next(iter(market.gateway.clients)))
    call.target, call.method = b"/status", b"GET"
    assert status.is_asked(market.gateway, call, peer) is allowed
    client.close()
