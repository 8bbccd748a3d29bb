"""Every case of the corpus, whole and cut at every byte."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest

from gateway.http.case import Case, Sent
from gateway.http.corpus import CASES
from gateway.http.corpus.known_wrong import KNOWN_WRONG
from gateway.http.wire import PROVIDER, Seen, Wire
from gateway.rig import Request

NEVER_FORWARDED = {
    "authorization",
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "x-api-key",
    "x-haat-tags",
    "x-haat-user",
}
EVERY_BYTE = 1200
"""Longer cases are cut at each byte of their beginning and of their end, and here and there between."""
ANSWERS = 2400
"""Cases of many requests are cut less often, so that one costs about this many answers."""


def check(case: Case, seen: Seen) -> None:
    """Compare what was seen with what the case says."""
    answers = seen.answers(case.methods)
    assert tuple(answer.status for answer in answers) == case.answers, [answer.body for answer in answers]
    assert case.interim is None or seen.interim == case.interim
    assert seen.kept == case.kept
    assert seen.violations == ()
    assert [(sent.method, sent.target, sent.body) for sent in case.upstream] == [
        (request.method, request.target, request.body) for request in seen.requests
    ]
    for sent, request in zip(case.upstream, seen.requests, strict=True):
        check_fields(sent, request)
    for answer in answers:
        assert len([name for name, _ in answer.headers if name == "x-request-id"]) == 1
        assert answer.status < 400 or answer.header("content-type") == "application/problem+json"
    if not case.kept and case.answers and not case.patience:
        assert answers[-1].header("connection") == "close"


def check_fields(sent: Sent, request: Request) -> None:
    names = {name for name, _ in request.headers}
    assert not names & (NEVER_FORWARDED | set(sent.lacks))
    assert request.header("host") == [PROVIDER]
    assert len(request.header("content-length") + request.header("transfer-encoding")) <= 1
    for name, value in sent.has.items():
        assert ", ".join(request.header(name)) == value.replace("PROVIDER", PROVIDER)


def known_wrong(name: str) -> AbstractContextManager[object]:
    """Expect a case that is known to go wrong to do so: whoever mends it strikes it off the list."""
    return pytest.raises(AssertionError) if name in KNOWN_WRONG else nullcontext()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case(wire: Wire, case: Case) -> None:
    with known_wrong(case.name):
        check(case, wire.run(case.raw, patience=case.patience))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_cut_at_every_byte(wire: Wire, case: Case) -> None:
    """Two pieces, for every place between them; where several requests come, with quick and slow providers."""
    whole = comparable(wire.run(case.raw, patience=case.patience))
    with known_wrong(f"cut: {case.name}"):
        for late in (False, True) if case.raw.count(b" HTTP/1.") > 1 else (False,):
            places = positions(case)
            for position, seen in zip(
                places, wire.run_cut(case.raw, places, late=late, patience=case.patience), strict=True
            ):
                if case.bounded:
                    check_bounded(case, seen)
                else:
                    assert comparable(seen) == whole, f"cut at byte {position}"


def test_what_is_known_to_be_wrong_is_in_the_corpus() -> None:
    assert {name.removeprefix("cut: ") for name in KNOWN_WRONG} <= {case.name for case in CASES}


def positions(case: Case) -> list[int]:
    length = len(case.raw)
    most = max(16, min(EVERY_BYTE, ANSWERS // max(1, len(case.answers))))
    if length <= most:
        return list(range(1, length))
    edge = most // 4
    step = (length - 2 * edge) // (most // 8)
    return [*range(1, edge), *range(edge, length - edge, step), *range(length - edge, length)]


def comparable(seen: Seen) -> tuple[object, ...]:
    """Return all of it that must not depend on the pieces."""
    requests = [
        (
            request.method,
            request.target,
            request.body,
            [field for field in request.headers if field[0] != "x-request-id"],
        )
        for request in seen.requests
    ]
    return seen.output, seen.kept, requests, seen.violations


def check_bounded(case: Case, seen: Seen) -> None:
    """However many were taken, they were answered in order; the connection stays only if these were all."""
    answers = seen.answers()
    assert len(answers) >= len(case.answers)
    assert {answer.status for answer in answers} == set(case.answers)
    assert [request.target for request in seen.requests] == [f"/base/{n}" for n in range(len(answers))]
    assert seen.kept == (answers[-1].header("connection") != "close")
