"""Fuzzes what clients send: ``make fuzz SECONDS=60``.

Whatever arrives, in whatever pieces: no exception leaves a callback, each answer is one that a strict parser
reads, the provider gets well-formed requests that no reader can read differently, never more than were
answered, and nothing is read on behind bytes that can't be.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from gateway.http.corpus import CASES
from gateway.http.fuzz.engine import cuts, main
from gateway.http.lenient import read_with_chunks, read_with_length
from gateway.http.wire import CONTINUE, Seen, Wire
from gateway.rig import Response

SEEDS = [case.raw for case in CASES if case.raw]


def target(wire: Wire, data: bytes) -> None:
    raw, places, late = cuts(data)
    seen = wire.run(raw, places, late=late)
    answers = look(raw, seen)
    whole = wire.run(raw)
    in_step([kind(one) for one in answers], [kind(one) for one in look(raw, whole)])
    in_step([(one.target, one.body) for one in seen.requests], [(one.target, one.body) for one in whole.requests])


def look(raw: bytes, seen: Seen) -> list[Response]:
    """Check what can be said of any input, and return its answers."""
    answers = seen.answers(heads(raw, seen.output))
    assert seen.violations == (), "the provider got something malformed"
    assert len(seen.requests) <= len(answers), "the provider was asked more than was answered"
    for before, after in pairwise(answers):
        assert before.header("connection") != "close", after.status
    if answers and answers[-1].header("connection") == "close":
        assert not seen.kept
    for answer in answers[:-1]:
        assert not unreadable(answer)
    if answers and unreadable(answers[-1]):
        assert not seen.kept
    if b"_" not in seen.forwarded:  # which a careless reader takes for a hyphen
        for found in (read_with_length(seen.forwarded), read_with_chunks(seen.forwarded)):
            begun = [(one.method.decode(), one.target.decode("latin-1")) for one in found]
            assert begun[: len(seen.requests)] == [(one.method, one.target) for one in seen.requests]
            assert len(begun) <= seen.heads, "hidden in what was forwarded is another request"
    return answers


def unreadable(answer: Response) -> bool:
    return answer.status in (400, 505) and bool(answer.body) and "not valid HTTP/1.1" in answer.json()["detail"]


def heads(raw: bytes, output: bytes) -> list[str]:
    """Return the methods that the answers belong to, as far as it matters: after HEAD there is no body."""
    methods = []
    for part in output.replace(CONTINUE, b"").split(b"HTTP/1.1 ")[1:]:
        head, _, body = part.partition(b"\r\n\r\n")
        bodiless = b"HEAD" in raw and not body and b"Content-Length: 0\r\n" not in head + b"\r\n"
        methods.append("HEAD" if bodiless else "POST")
    return methods


def kind(answer: Response) -> int:
    """Return the status; of a refusal only that it is one, because a request can be refused for what has come of it."""
    return min(answer.status, 400)


def in_step(one: Sequence[object], other: Sequence[object]) -> None:
    """How far a connection is read may depend on the pieces; what it is read as may not."""
    common = min(len(one), len(other))
    assert list(one[:common]) == list(other[:common]), (one, other)


if __name__ == "__main__":
    main(target, SEEDS)
