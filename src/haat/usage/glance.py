"""A usage row made of a record's bytes without decoding them whole: what recurs is known by its bytes.

Two writers make records, `haat.usage.event.encode` and the gateway's short form for plain calls, and in both of them
the members that differ from call to call lie in the same places:

    {"id":"…","at":…,     this call's own
    "outcome":"…",…       who called what: the same bytes for the next call of that subscription
    ,"status":…           how it went and how much: often the same bytes
    ,"timings_us":…       this call's own numbers, up to the end of "bytes_out"
    ,…}                   what else was seen: mostly the same bytes

A record is cut there. A piece that was never seen is decoded by itself, strictly: only a sequence of whole members
passes, none of them unknown, and so the record as a whole is the object of all pieces' members, wherever the cuts
fell. The parts of the row that it says are then kept by its bytes. Whatever doesn't fit (an older or a newer
writer, a call answered from the cache in part, a record that must be set aside) is decoded whole instead, by
the caller: a glance saves time and never decides.
"""

from __future__ import annotations

from binascii import Error, unhexlify
from typing import Final

from haat.usage.event import UnreadableEvent, UsageEvent, decode_members, decode_numbers
from haat.usage.model import Misfit
from haat.usage.parts import Caller, Counted, Rest, caller_of, counted_of, rest_of
from haat.usage.rows import Row, time_of

_ID_AT: Final = 7
_ID_END: Final = 43
_AT: Final = 50
_AT_END: Final = 63
_HEAD: Final = b'{"id":"'
_HEAD_GOES_ON: Final = b'","at":'
_OUTCOME: Final = b'"outcome":"'
_STATUS: Final = b',"status":'
_NUMBERS: Final = b',"timings_us":'
_LAST_NUMBER: Final = b',"bytes_out":'
_MOST_CALLERS: Final = 65_536
_MOST_OTHERS: Final = 32_768
_LONGEST: Final = 2_048


class _Piece:
    """What a piece of a record says; None where it says nothing of it."""

    __slots__ = ("caller", "counted", "rest", "status")

    def __init__(self, status: int, caller: Caller | None, counted: Counted | None, rest: Rest | None) -> None:
        self.status, self.caller, self.counted, self.rest = status, caller, counted, rest


_NONE = decode_members(b"")
_OWN = ("id", "at", "timings_us", "bytes_in", "bytes_out")
_COUNTED = ("error_code", "units", "units_source", "raw_usage")
_REST = (
    *("cache", "cached_units", "cached_share", "region", "language_pair", "attempts", "executed_by", "gateway"),
    *("trace", "mode", "rollout", "arm", "agreed"),
)
_NOT_CALLER = frozenset((*_OWN, *_COUNTED, *_REST, "v", "status", "outcome"))
_CALLER = tuple([name for name in UsageEvent.__struct_fields__ if name not in _NOT_CALLER])
_NOTHING_COUNTED: Final = counted_of(_NONE)
_NO_REST: Final = rest_of(_NONE)
_NO_PIECE: Final = _Piece(0, None, None, None)
_STRANGE: Final = _Piece(0, None, None, None)
"""Stands for a piece that can't be used by itself."""

_callers: Final[dict[bytes, _Piece]] = {}
_others: Final[dict[bytes, _Piece]] = {b"": _NO_PIECE}


def identifier(payload: bytes) -> bytes | None:
    """Return the id of a record that begins as a glance needs it, 16 bytes; None for another one."""
    if payload[:_ID_AT] != _HEAD or payload[_ID_END:_AT] != _HEAD_GOES_ON or payload[_AT_END : _AT_END + 1] != b",":
        return None
    try:
        found = unhexlify(payload[_ID_AT:_ID_END].replace(b"-", b""))
    except Error:
        return None
    return found if len(found) == 16 else None


def row_in(payload: bytes, id: bytes, batch: int, now_ms: int | None) -> Row | None:
    """Return the row of a record whose `identifier` is ``id``, or None: it must be decoded whole."""
    status_at = payload.find(_STATUS, _AT_END)
    numbers_at = payload.find(_NUMBERS, status_at)
    last_at = payload.find(_LAST_NUMBER, numbers_at)
    if last_at < 0 or numbers_at < 0 or status_at <= _AT_END:
        return None
    end = len(payload) - 1
    rest_at = payload.find(b",", last_at + 1)
    if rest_at < 0:
        rest_at, third_bytes = end, b""
    elif rest_at + 1 < end:
        third_bytes = payload[rest_at + 1 : end]
    else:
        return None
    first_bytes = payload[_AT_END + 1 : status_at]
    first = _callers.get(first_bytes)
    if first is None:
        if not first_bytes.startswith(_OUTCOME):  # which every event has, and a piece need not
            return None
        first = _learn(first_bytes, _callers, _MOST_CALLERS)
    second_bytes = payload[status_at + 1 : numbers_at]
    second = _others.get(second_bytes)
    if second is None:
        second = _learn(second_bytes, _others, _MOST_OTHERS)
    third = _others.get(third_bytes)
    if third is None:
        third = _learn(third_bytes, _others, _MOST_OTHERS)
    if first is _STRANGE or second is _STRANGE or third is _STRANGE:
        return None
    caller = first.caller
    if caller is None or second.caller is not None or third.caller is not None:
        return None
    counted, rest = second.counted, third.rest
    if first.counted is not None or third.counted is not None:
        if counted is not None or third.counted is not None:
            return None
        counted = first.counted
    if first.rest is not None or second.rest is not None:
        if rest is not None or second.rest is not None:
            return None
        rest = first.rest
    at = payload[_AT:_AT_END]
    try:
        if not at.isdigit() or payload[end:] != b"}":
            return None
        numbers = decode_numbers(b"{%b}" % payload[numbers_at + 1 : rest_at])
        time_ms = time_of(id, int(at), now_ms)
    except (ValueError, Misfit):
        return None
    return Row(
        id,
        batch,
        time_ms,
        second.status,
        numbers.timings_us,
        numbers.bytes_in,
        numbers.bytes_out,
        caller,
        _NOTHING_COUNTED if counted is None else counted,
        _NO_REST if rest is None else rest,
    )


def _learn(data: bytes, known: dict[bytes, _Piece], most: int) -> _Piece:
    """Return what a piece says, and keep it unless it is some call's own."""
    try:
        piece, recurs = _piece(decode_members(data))
    except (UnreadableEvent, Misfit):
        piece, recurs = _STRANGE, True
    if recurs and len(data) <= _LONGEST:
        if len(known) >= most:
            known.clear()
            known[b""] = _NO_PIECE
        known[data] = piece
    return piece


def _piece(members: UsageEvent) -> tuple[_Piece, bool]:
    if _say(members, _OWN) or members.cached_units or members.cached_share:
        return _STRANGE, True
    recurs = not (members.caller_request_id or members.raw_usage or members.trace)
    return _Piece(
        members.status,
        caller_of(members) if _say(members, _CALLER) else None,
        counted_of(members) if _say(members, _COUNTED) else None,
        rest_of(members) if _say(members, _REST) else None,
    ), recurs


def _say(members: UsageEvent, names: tuple[str, ...]) -> bool:
    return any(getattr(members, name) != getattr(_NONE, name) for name in names)
