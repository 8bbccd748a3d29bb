"""Trace context: continued where it is valid, begun where it isn't, sampled by our own decision."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rig import Market
from haat.gateway.http.trace import parse_parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0([01])")
PATH = "/v1/services/acme/echo/invoke"


@pytest.mark.parametrize(
    ("value", "trace"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE),
        (f"00-{TRACE}-{SPAN}-00", TRACE),
        (f"cc-{TRACE}-{SPAN}-01", TRACE),
        (f"cc-{TRACE}-{SPAN}-01-what-a-later-version-says", TRACE),
        (f"cc-{TRACE}-{SPAN}-01.", ""),
        (f"00-{TRACE}-{SPAN}-01-more", ""),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{TRACE.upper()}-{SPAN}-01", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE[:-1]}-{SPAN}-01", ""),
        (f"00-{TRACE}-{SPAN}-1", ""),
        (f"00-{TRACE}-{SPAN}-0g", ""),
        ("", ""),
    ],
)
def test_parents_are_judged_by_the_standard(value: str, trace: str) -> None:
    assert parse_parent(value.encode()) == trace.encode()


@given(st.binary(max_size=80))
def test_whatever_comes_a_trace_id_is_32_digits_or_nothing(value: bytes) -> None:
    assert re.fullmatch(rb"([0-9a-f]{32})?", parse_parent(value))


async def test_a_call_without_a_trace_begins_one_with_its_own_id(market: Market) -> None:
    response = await market.call("POST")
    [line] = market.provider.requests[0].header("traceparent")
    match = SENT.fullmatch(line)
    identifier = response.header("x-request-id")
    assert match is not None and identifier is not None
    assert match[1] == identifier.replace("-", "") and match[3] == "0"
    assert int(match[2], 16)
    assert (await market.settled_event()).trace == ""


async def test_a_valid_trace_goes_on_with_a_new_span_and_is_recorded(market: Market) -> None:
    sent = (f"traceparent: 00-{TRACE}-{SPAN}-01", "tracestate: a=1", "tracestate: b=2")
    await market.call("POST", PATH, b"", *sent)
    [request] = market.provider.requests
    match = SENT.fullmatch(request.header("traceparent")[0])
    assert match is not None
    assert match[1] == TRACE and match[2] != SPAN
    assert match[3] == "0"  # the caller's wish to be sampled is not ours
    assert request.header("tracestate") == ["a=1,b=2"]
    assert (await market.settled_event()).trace == TRACE


@pytest.mark.parametrize(
    "sent",
    [
        (f"traceparent: 00-{'0' * 32}-{SPAN}-01", "tracestate: a=1"),
        (f"traceparent: 00-{TRACE}-{SPAN}-01", f"traceparent: 00-{TRACE}-{SPAN}-01", "tracestate: a=1"),
        ("tracestate: a=1",),
    ],
)
async def test_without_a_valid_parent_the_state_is_dropped(market: Market, sent: tuple[str, ...]) -> None:
    await market.call("POST", PATH, b"", *sent)
    [request] = market.provider.requests
    [line] = request.header("traceparent")
    match = SENT.fullmatch(line)
    assert match is not None and match[1] != TRACE
    assert request.header("tracestate") == []


async def test_spans_of_calls_differ(market: Market) -> None:
    for _ in range(20):
        await market.call("POST", PATH, b"", f"traceparent: 00-{TRACE}-{SPAN}-01")
    spans = {request.header("traceparent")[0].split("-")[2] for request in market.provider.requests}
    assert len(spans) == 20


@pytest.mark.parametrize(("ratio", "flags"), [(1.0, {"01"}), (0.0, {"00"}), (0.5, {"00", "01"})])
async def test_sampling_is_our_own_decision_by_the_trace(make_market: object, ratio: float, flags: set[str]) -> None:
    market = await make_market(trace_sample_ratio=ratio)  # type: ignore[operator]  # a fixture
    seen: dict[str, set[str]] = {}
    for number in range(40):
        trace = f"{number + 1:032x}"
        for _ in range(2):
            await market.call("POST", PATH, b"", f"traceparent: 00-{trace}-{SPAN}-01")
            seen.setdefault(trace, set()).add(market.provider.requests[-1].header("traceparent")[0][-2:])
    assert all(len(decisions) == 1 for decisions in seen.values())
    assert set().union(*seen.values()) == flags
