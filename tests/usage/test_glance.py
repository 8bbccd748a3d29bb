"""A glance at a record's bytes gives the row that decoding it gives, or nothing."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.usage import glance
from haat.usage.event import Members, Outcome, Timings, UnreadableEvent, UsageEvent, decode, encode
from haat.usage.glance import identifier, row_in
from haat.usage.model import UNITS, Misfit
from haat.usage.rows import row_of

NOW = 1_790_000_000_000
IDS = [str(UUID(int=number << 64 | number, version=4)) for number in range(1, 4)]
TRICKY = ("", "a", '"', "\\", ',"status":200', '","timings_us":{"total":1}', "}", "{", "ह\0", "status", "bytes_out")
_words = st.sampled_from(TRICKY)
_quantities = st.one_of(
    st.integers(0, 3000).map(str), st.decimals(0, 99, places=3).map(str), st.sampled_from(("-1", "many", "1e30", "NaN"))
)
_numbers = st.one_of(st.integers(0, 10**6), st.sampled_from((-1, 2**31, 2**63 - 1)))


def call_id(at: int, tail: int) -> str:
    return str(UUID(int=at << 80 | 0x7 << 76 | 0b10 << 62 | tail))


_events = st.builds(
    UsageEvent,
    id=st.builds(call_id, st.integers(NOW - 10**6, NOW + 2 * 10**5), st.integers(0, 2**62 - 1)),
    at=st.integers(NOW - 10**6, NOW + 2 * 10**5),
    outcome=st.sampled_from(Outcome),
    v=st.sampled_from((0, 1)),
    org=st.sampled_from(("", *IDS)),
    subscription=st.sampled_from(("", "none", *IDS)),
    plan=st.sampled_from(("", "basic")),
    user=_words,
    tags=st.dictionaries(_words, _words, max_size=2),
    caller_request_id=_words,
    provider_org=st.sampled_from(IDS),
    service=st.sampled_from(IDS),
    method=st.sampled_from(("", "POST")),
    path_template=_words,
    status=st.sampled_from((0, 200, 429, 1000, -1)),
    error_code=_words,
    units=st.dictionaries(st.sampled_from((*UNITS[:3], "status", "stamps")), _quantities, max_size=3),
    units_source=st.sampled_from(("", "counted")),
    raw_usage=_words,
    timings_us=st.builds(Timings, admission=_numbers, first_byte=_numbers, total=_numbers),
    bytes_in=_numbers,
    bytes_out=_numbers,
    cache=st.sampled_from(("", "miss", "hit", "partial")),
    cached_units=st.dictionaries(st.sampled_from(UNITS[:2]), _quantities, max_size=1),
    cached_share=st.sampled_from(("", "0.2", "2")),
    region=_words,
    language_pair=_words,
    attempts=st.sampled_from((0, 2)),
    gateway=st.sampled_from(("", "gateway-0")),
    trace=_words,
    mode=st.sampled_from(("live", "test", "shadow", "new")),
    agreed=st.sampled_from((None, True, False)),
)


def glanced(payload: bytes) -> Any:
    """Return what a glance sees of a payload, or None."""
    id = identifier(payload)
    row = row_in(payload, id, 7, NOW) if id is not None else None
    return row and seen(row)


def decoded(payload: bytes) -> Any:
    """Return what decoding it whole says, or None for what must be set aside."""
    try:
        row = row_of(decode(payload), 7, NOW)
    except (Misfit, UnreadableEvent):
        return None
    return seen(row)


def seen(row: Any) -> Any:
    rolled = (row.caller.key, row.rest.pair, row.rest.live, row.status, row.time_ms, row.total_us)
    amounts = {unit: getattr(row.counted.amounts, unit) for unit in UNITS}
    return row.id, row.data, rolled, (row.bytes_in, row.bytes_out), amounts


def plain(event: UsageEvent) -> bytes:
    """Write an event as the gateway writes plain calls: what recurs in one piece, the call's own members around it."""
    members = {name: getattr(event, name) for name in ("org", "subscription", "service", "provider_org", "region")}
    recurring = encode({**members, "units": event.units, "gateway": event.gateway})[1:-1]
    return (
        b'{"id":"%b","at":%d,"outcome":"completed","v":1,%b,"method":"POST","status":%d,"timings_us":{"admission":%d,'
        b'"queue":0,"connect":0,"first_byte":%d,"total":%d},"bytes_in":%d,"bytes_out":%d}'
    ) % (
        event.id.encode(),
        event.at,
        recurring,
        event.status,
        event.timings_us.admission,
        event.timings_us.first_byte,
        event.timings_us.total,
        event.bytes_in,
        event.bytes_out,
    )


@given(st.lists(_events, max_size=5))
def test_a_glance_sees_what_decoding_says_or_nothing(events: list[UsageEvent]) -> None:
    for event in events:
        for payload in (encode(event), plain(event)):
            assert glanced(payload) in (None, decoded(payload))
            assert glanced(payload) in (None, decoded(payload))  # by now its pieces are known


@given(_events, st.randoms(use_true_random=False))
def test_a_glance_is_not_deceived_by_bytes_that_are_otherwise(event: UsageEvent, chance: random.Random) -> None:
    payload = bytearray(chance.choice((encode, plain))(event))
    glanced(bytes(payload))
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(payload))
        payload[at : at + chance.randint(0, 2)] = chance.choice((b"", b",", b'"', b"}", b"{", b"1", b"\\", b"x", b'{"'))
        assert glanced(bytes(payload)) in (None, decoded(bytes(payload)))


def a_call(**members: Any) -> UsageEvent:
    known: dict[str, Any] = {
        "id": call_id(NOW, 5),
        "at": NOW,
        "outcome": Outcome.COMPLETED,
        "org": IDS[0],
        "subscription": IDS[1],
        "service": IDS[2],
        "provider_org": IDS[0],
        "method": "POST",
        "status": 200,
        "units": {"characters": "12"},
        "timings_us": Timings(1, 0, 0, 5, 9),
        "bytes_in": 3,
        "bytes_out": 4,
        "language_pair": "hi-Deva>ur-Arab",
        "gateway": "gateway-0",
    }
    return UsageEvent(**(known | members))


@pytest.mark.parametrize("write", [encode, plain])
@pytest.mark.parametrize(
    "members",
    [{}, {"user": "asha", "tags": {"team": "ops"}}, {"caller_request_id": "r-1"}, {"trace": "ab"}, {"cache": "hit"}],
)
def test_a_glance_is_enough_for_most_calls(write: Any, members: dict[str, Any]) -> None:
    payload = write(a_call(**members))
    assert glanced(payload) == decoded(payload) is not None


@pytest.mark.parametrize(
    "members", [{"cache": "hit", "cached_units": {"characters": "12"}}, {"units": {"pages": "-1"}}]
)
def test_what_a_glance_can_not_judge_is_decoded(members: dict[str, Any]) -> None:
    assert glanced(encode(a_call(**members))) is None


@pytest.mark.parametrize("write", [encode, plain])
def test_a_record_that_breaks_off_anywhere_or_lacks_a_piece_is_no_glances_to_judge(write: Any) -> None:
    payload = write(a_call())
    for cut in range(len(payload)):
        assert glanced(payload[:cut]) is None
        assert glanced(payload[:cut] + b"}") in (None, decoded(payload[:cut] + b"}"))
    for name in (b'"outcome"', b'"status"', b'"timings_us"', b'"bytes_out"'):
        at = payload.index(name)
        end = payload.find(b",", at)
        for start in (63, at):
            cut_out = payload[:start] + (payload[end:] if end > 0 else b"}")
            assert glanced(cut_out) in (None, decoded(cut_out))


def test_what_is_some_calls_own_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(glance._callers), len(glance._others)
    for number in range(10):
        own = {"caller_request_id": f"r-{number}", "trace": f"{number}", "raw_usage": f"{number}"}
        assert glanced(encode(a_call(**own)))
        assert glanced(encode(a_call(tags={"long": f"{number}" * 3000})))
    assert (len(glance._callers), len(glance._others)) <= (before[0], before[1] + 2)


def test_every_member_of_an_event_is_part_of_a_row() -> None:
    """A member that is new must be taken into a part, or calls that differ in it alone would get the same row."""
    said = {*glance._OWN, *glance._COUNTED, *glance._REST, *glance._CALLER, "v", "status", "outcome"}
    assert said == set(UsageEvent.__struct_fields__) == set(Members.__struct_fields__)
