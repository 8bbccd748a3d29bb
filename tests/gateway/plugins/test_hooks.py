"""Plugins on the call path: what they see, what they may change, and what becomes of a call when one fails."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.rig import Client, Market, Request, answer
from haat.gateway.market.policy import VersionPolicy
from haat.gateway.market.snapshot import Version
from haat.gateway.steps import STAGES
from haat.plugins import registry
from haat.plugins.switches import Switch, Switches

HEAD = "from haat.plugins.api import *\nfrom haat.kernel.errors import ContentRefused, PermissionDenied\n"


def take(market: Market, folder: Path, sections: Mapping[str, Mapping[str, Any]] | None = None, **codes: str) -> None:
    """Switch these plugins on, and no others."""
    home = folder / "plugins"
    home.mkdir(exist_ok=True)
    for name, code in codes.items():
        (home / f"{name}.py").write_text(HEAD + code)
    switches = Switches({name: Switch(True) for name in (*codes, *(sections or {}))})
    loaded = registry.load(home, switches, sections or {}, STAGES, group="haat-nobody")
    assert all(row.state != "left out" for row in loaded.rows), loaded.rows
    market.gateway.hooks.take(loaded)


def test_without_plugins_a_route_has_no_steps_and_nobody_is_asked(market: Market) -> None:
    assert market.gateway.routes.find(b"acme/echo").steps == ()
    assert market.gateway.authenticators == ()
    assert market.gateway.meter.observers == ()


async def test_a_plugin_changes_headers_and_body_of_a_request(market: Market, tmp_path: Path) -> None:
    take(
        market,
        tmp_path,
        change="""
class Change(Plugin):
    @hookimpl
    def haat_on_request(self, call):
        assert (call.service.path, call.method, call.path, call.plan) == ("acme/echo", "POST", "/invoke", "basic")
        value = call.json()
        value["more"] = True
        call.set_json(value)
        call.headers.set("X-Checked", "yes")
        call.tags["seen"] = "by-plugin"
""",
    )
    response = await market.call("POST", body=b'{"a": 1}')
    assert response.status == 200
    [request] = market.provider.requests
    assert json.loads(request.body) == {"a": 1, "more": True}
    assert request.header("x-checked") == ["yes"]
    assert request.header("content-length") == [str(len(request.body))]
    event = await market.settled_event()
    assert event.tags == {"seen": "by-plugin"}
    assert event.bytes_in == 8


async def test_a_plugin_changes_an_answer_and_what_headers_said_of_the_old_one_goes(
    market: Market, tmp_path: Path
) -> None:
    take(
        market,
        tmp_path,
        change="""
class Change(Plugin):
    @hookimpl
    def haat_on_response(self, call, answer):
        answer.status = 203
        answer.set_json({"was": answer.json()})
        answer.headers.set("X-Seen", call.id)
""",
    )
    market.provider.behaviour = answer(200, b'{"ok":true}', 'ETag: "1"', "Content-MD5: x")
    response = await market.call("POST", "/v1/services/acme/echo/invoke", b"", "Accept-Encoding: gzip")
    assert (response.status, response.json()) == (203, {"was": {"ok": True}})
    assert response.header("x-seen") == response.header("x-request-id")
    assert response.header("etag") is None and response.header("content-md5") is None
    assert market.provider.requests[0].header("accept-encoding") == []
    assert (await market.settled_event()).status == 203


async def test_plugins_run_in_order_and_answers_come_back_the_other_way_round(market: Market, tmp_path: Path) -> None:
    code = """
class P(Plugin):
    order = {order}
    @hookimpl
    def haat_on_request(self, call):
        call.headers.set("X-Way", call.headers.get("X-Way") + "{name}")
    @hookimpl
    def haat_on_response(self, call, answer):
        answer.headers.set("X-Back", answer.headers.get("X-Back") + "{name}")
"""
    take(
        market,
        tmp_path,
        **{name: code.format(name=name, order=order) for name, order in (("a", 3), ("b", 2), ("c", 1))},
    )
    response = await market.call("POST")
    assert market.provider.requests[0].header("x-way") == ["cba"]
    assert response.header("x-back") == "abc"


async def test_a_refusal_is_answered_recorded_as_refused_and_not_billed(market: Market, tmp_path: Path) -> None:
    take(
        market,
        tmp_path,
        guard="""
class Guard(Plugin):
    @hookimpl
    def haat_on_request(self, call):
        if b"bad" in call.body:
            raise ContentRefused("Not that.", word="bad")
""",
    )
    response = await market.call("POST", body=b"bad")
    assert (response.status, response.json()["code"], response.json()["detail"]) == (
        422,
        "CONTENT_REFUSED",
        "Not that.",
    )
    assert market.provider.requests == []
    event = await market.settled_event()
    assert (event.outcome, event.error_code, event.units) == ("refused", "CONTENT_REFUSED", {})


async def test_an_answer_can_be_refused_as_well(market: Market, tmp_path: Path) -> None:
    take(
        market,
        tmp_path,
        guard="""
class Guard(Plugin):
    @hookimpl
    def haat_on_response(self, call, answer):
        raise ContentRefused
""",
    )
    response = await market.call("POST")
    assert response.status == 422
    assert len(market.provider.requests) == 1
    event = await market.settled_event()
    assert (event.outcome, event.units) == ("refused", {})


BROKEN = """
class Broken(Plugin):
    fails = "{fails}"
    @hookimpl
    def haat_on_request(self, call):
        call.body = b"half done"
        call.headers.set("X-Half", "done")
        raise RuntimeError("oh")
"""


async def test_a_failing_plugin_is_logged_and_passed_over_with_all_it_did(
    market: Market, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    take(market, tmp_path, broken=BROKEN.format(fails="open"))
    for _ in range(3):
        assert (await market.call("POST", body=b"whole")).status == 200
    assert [request.body for request in market.provider.requests] == [b"whole"] * 3
    assert market.provider.requests[0].header("x-half") == []
    assert caplog.text.count("plugin broken failed in haat_on_request") == 1
    assert market.gateway.hooks.loaded.running["broken"].failures == 3


async def test_a_failing_guard_refuses_the_call(market: Market, tmp_path: Path) -> None:
    take(market, tmp_path, broken=BROKEN.format(fails="closed"))
    response = await market.call("POST", body=b"whole")
    assert (response.status, response.json()["code"]) == (503, "PLUGIN_FAILED")
    assert market.provider.requests == []
    assert (await market.settled_event()).outcome == "refused"


async def test_an_answer_that_a_guard_fails_on_is_not_shown(market: Market, tmp_path: Path) -> None:
    code = """
class Broken(Plugin):
    fails = "{fails}"
    @hookimpl
    def haat_on_response(self, call, answer):
        answer.body = b"half"
        raise RuntimeError
"""
    take(market, tmp_path, broken=code.format(fails="closed"))
    assert (await market.call("POST")).status == 503
    take(market, tmp_path, broken=code.format(fails="open") + "# another size\n")
    assert (await market.call("POST")).body == b'{"ok":true}'


async def test_a_guard_that_is_switched_on_and_not_there_keeps_every_call_out(market: Market, tmp_path: Path) -> None:
    switches = Switches({"gone": Switch(True, closed=True)})
    market.gateway.hooks.take(registry.load(tmp_path, switches, {}, STAGES, group="haat-nobody"))
    response = await market.call("POST")
    assert (response.status, response.json()["code"]) == (503, "PLUGIN_FAILED")
    assert "gone" in response.json()["detail"]
    market.gateway.hooks.take(registry.load(tmp_path, Switches(), {}, STAGES, group="haat-nobody"))
    assert (await market.call("POST")).status == 200


async def test_a_slow_hook_is_warned_about(market: Market, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    take(
        market,
        tmp_path,
        slow="""
class Slow(Plugin):
    slow_ms = 0.0
    @hookimpl
    def haat_on_request(self, call):
        pass
""",
    )
    await market.call("POST")
    await market.call("POST")
    assert caplog.text.count("plugin slow held everybody up") == 1
    assert market.gateway.hooks.loaded.running["slow"].slow == 2


async def test_services_that_a_plugin_does_not_want_have_no_step(market: Market, tmp_path: Path) -> None:
    market.add_service("other")
    take(
        market,
        tmp_path,
        some="""
class Some(Plugin):
    @hookimpl
    def haat_wants(self, service):
        return service.slug == "echo"
    @hookimpl
    def haat_on_request(self, call):
        call.headers.set("X-Some", "1")
""",
    )
    assert market.gateway.routes.find(b"acme/other").steps == ()
    assert len(market.gateway.routes.find(b"acme/echo").steps) == 1


async def test_a_plugin_says_who_is_calling(market: Market, tmp_path: Path) -> None:
    [credential] = market.gateway.directory.credentials.values()
    take(
        market,
        tmp_path,
        who=f"""
class Who(Plugin):
    @hookimpl
    def haat_authenticate(self, call):
        if call.headers.get("Authorization") == "Bearer of-another-house":
            return {credential.id!r}
        if call.headers.get("X-Api-Key") == "nobody":
            return "no-such-credential"
        if call.headers.get("Authorization") == "Bearer blocked":
            raise PermissionDenied
""",
    )
    for _ in range(2):  # the second time out of what is known already
        assert (await market.call("POST", key="of-another-house")).status == 200
    assert (await market.call("POST", key="blocked")).status == 403
    assert (await market.call("POST", key="something-else")).status == 401
    assert (await market.call("POST")).status == 200
    client = await market.connect()
    await client.send(b"POST /v1/services/acme/echo/invoke HTTP/1.1\r\nHost: g\r\nX-API-Key: nobody\r\n\r\n")
    response = await client.receive("POST")
    assert response is not None and response.json()["code"] == "INVALID_CREDENTIAL"
    assert {event.credential for event in market.events()} == {credential.id}


async def test_nobody_is_asked_who_probes_the_gateways_health(market: Market, tmp_path: Path) -> None:
    take(
        market,
        tmp_path,
        nobody="""
class Nobody(Plugin):
    @hookimpl
    def haat_authenticate(self, call):
        raise PermissionDenied
""",
    )
    assert (await market.call("GET", "/health/live")).status == 200
    assert (await market.call("GET")).status == 403


async def test_a_caller_can_not_say_the_key_that_stands_for_an_identified_call(market: Market, tmp_path: Path) -> None:
    from haat.gateway.plugins import hooks

    [credential] = market.gateway.directory.credentials.values()
    assert len(hooks._STAND_IN) > 32
    response = await market.call("POST", key=f"plugin-:{credential.id}")
    assert response.status == 401


async def test_a_plugin_chooses_among_several_endpoints(market: Market, tmp_path: Path) -> None:
    here = f"http://127.0.0.1:{market.provider.port}"
    version = Version(
        "1", f"{here}/one", 5000, 1 << 20, "", "http", VersionPolicy(endpoints=(f"{here}/two", f"{here}/three"))
    )
    service = market.gateway.directory.services["acme/echo"]
    import msgspec

    market.gateway.directory.put_service(service.id, msgspec.structs.replace(service, versions=(version,)))
    take(
        market,
        tmp_path,
        choose="""
class Choose(Plugin):
    @hookimpl
    def haat_select_upstream(self, call, endpoints):
        if call.headers.get("X-Where") == "nowhere":
            return "http://elsewhere.example"
        return next((url for url in endpoints if url.endswith(call.headers.get("X-Where", "!"))), None)
""",
    )
    for _ in range(3):
        await market.call("POST", "/v1/services/acme/echo/invoke", b"", "X-Where: /three")
    assert {request.target for request in market.provider.requests} == {"/three/invoke"}
    assert (await market.call("POST", "/v1/services/acme/echo/invoke", b"", "X-Where: nowhere")).status == 200
    assert (await market.call("POST")).status == 200


async def test_a_plugin_sees_what_was_recorded_and_can_not_change_it(
    market: Market, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    take(
        market,
        tmp_path,
        watch="""
import builtins
builtins.seen = []
class Watch(Plugin):
    fails = "closed"
    @hookimpl
    def haat_on_usage(self, usage):
        builtins.seen.append((usage.id, usage.outcome, usage.units))
        usage.units["requests"] = "0"
        raise ContentRefused
""",
    )
    import builtins

    response = await market.call("POST")
    assert response.status == 200
    assert builtins.seen == [(response.header("x-request-id"), "completed", {"requests": "1"})]  # type: ignore[attr-defined]
    assert (await market.settled_event()).units == {"requests": "1"}
    assert "can't refuse a call that has ended" in caplog.text


# --- streams ------------------------------------------------------------------------------------


async def stream(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for part in (b"data: call 98765 432", b"10\n\nda", b"ta: [DONE]\n\n"):
        writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        await writer.drain()
        await asyncio.sleep(0.01)
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


async def test_events_of_a_stream_are_masked_one_by_one(market: Market, tmp_path: Path) -> None:
    take(market, tmp_path, {"masking": {"services": ["acme/*"]}})
    market.provider.behaviour = stream
    response = await market.call("POST", "/v1/services/acme/echo/invoke", b"", "Accept: text/event-stream")
    assert response.body == b"data: call [PHONE]\n\ndata: [DONE]\n\n"
    event = await market.settled_event()
    assert event.bytes_out == len(response.body)


async def test_a_refused_event_ends_the_stream(market: Market, tmp_path: Path) -> None:
    take(
        market,
        tmp_path,
        guard="""
class Guard(Plugin):
    @hookimpl
    def haat_on_stream(self, call, event):
        if "DONE" in event.data:
            raise ContentRefused
""",
    )
    market.provider.behaviour = stream
    response = await market.call("POST")
    assert b"98765" in response.body and b"DONE" not in response.body
    assert b"event: error" in response.body and b"CONTENT_REFUSED" in response.body
    assert (await market.settled_event()).error_code == "CONTENT_REFUSED"


async def test_a_guard_of_answers_that_does_not_know_streams_lets_none_pass(market: Market, tmp_path: Path) -> None:
    code = """
class Guard(Plugin):
    fails = "{fails}"
    @hookimpl
    def haat_on_response(self, call, answer):
        pass
"""
    market.provider.behaviour = stream
    take(market, tmp_path, guard=code.format(fails="closed"))
    assert (await market.call("POST")).status == 503
    take(market, tmp_path, guard=code.format(fails="open") + "# other\n")
    assert (await market.call("POST")).status == 200


# --- the two that come with the house ------------------------------------------------------------


async def test_masking_takes_personal_data_out_both_ways(market: Market, tmp_path: Path) -> None:
    take(market, tmp_path, {"masking": {"services": ["acme/echo"]}})
    market.provider.behaviour = answer(200, b'{"to": "asha@example.in", "n": 1.50}')
    response = await market.call(
        "POST",
        "/v1/services/acme/echo/invoke",
        '{"text": "९८७६५४३२१०", "id": 9876543210}'.encode(),
        "Content-Type: application/json",
    )
    assert market.provider.requests[0].body == b'{"text": "[PHONE]", "id": 9876543210}'
    assert response.body == b'{"to": "[EMAIL]", "n": 1.50}'


async def test_masking_of_one_application_leaves_the_others_alone(market: Market, tmp_path: Path) -> None:
    take(market, tmp_path, {"masking": {"applications": ["another"]}})
    await market.call("POST", body=b"asha@example.in")
    assert market.provider.requests[0].body == b"asha@example.in"


async def test_profanity_is_refused_in_requests_and_answers(market: Market, tmp_path: Path) -> None:
    take(market, tmp_path, {"profanity": {"services": ["*"]}})
    refused = await market.call("POST", body="तू हरामी है".encode())
    assert (refused.status, refused.json()["code"], refused.json()["language"]) == (422, "CONTENT_REFUSED", "hi")
    assert market.provider.requests == []
    market.provider.behaviour = answer(200, b'["damn"]')
    assert (await market.call("POST", body=b"fine")).status == 422
    assert len(market.provider.requests) == 1


async def test_masking_and_profanity_together(market: Market, tmp_path: Path) -> None:
    take(market, tmp_path, {"masking": {"services": ["*"]}, "profanity": {"services": ["*"], "action": "mask"}})
    await market.call("POST", body=b"damn, write to a@b.in")
    assert market.provider.requests[0].body == b"****, write to [EMAIL]"


async def test_a_compressed_request_is_looked_into_and_an_unknown_coding_is_not_let_by(
    market: Market, tmp_path: Path
) -> None:
    import gzip

    take(market, tmp_path, {"masking": {"services": ["*"]}})
    packed = gzip.compress(b"mail a@b.in")
    await market.call("POST", "/v1/services/acme/echo/invoke", packed, "Content-Encoding: gzip")
    [request] = market.provider.requests
    assert (request.body, request.header("content-encoding")) == (b"mail [EMAIL]", [])
    refused = await market.call("POST", "/v1/services/acme/echo/invoke", b"??", "Content-Encoding: br")
    assert (refused.status, refused.json()["code"]) == (400, "INVALID_REQUEST")
    market.provider.behaviour = answer(200, b"??", "Content-Encoding: br")
    assert (await market.call("POST")).json()["code"] == "PLUGIN_FAILED"


async def test_calls_in_flight_end_with_the_plugins_they_began_with(market: Market, tmp_path: Path) -> None:
    code = """
class P(Plugin):
    @hookimpl
    def haat_on_response(self, call, answer):
        answer.headers.set("X-Plugin", "{word}")
"""
    take(market, tmp_path, p=code.format(word="old"))
    let_go = asyncio.Event()

    async def wait(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await let_go.wait()
        writer.write(answer())
        return True

    market.provider.behaviour = wait
    client: Client = await market.connect()
    await client.send(market.raw())
    await market.provider.arrived.wait()
    take(market, tmp_path, p=code.format(word="newer"))
    let_go.set()
    first = await client.receive("POST")
    assert first is not None and first.header("x-plugin") == "old"
    assert (await market.call("POST")).header("x-plugin") == "newer"
