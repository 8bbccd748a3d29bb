"""Every case of the corpus, whole and cut at every byte."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from gateway.http.case import KEY, Case, Sent
from gateway.http.corpus import CASES
from gateway.http.wire import CONTINUE, PROVIDER, Seen, Wire
from gateway.rig import APP, ORG, Market, Request, Response
from haat.gateway.market.snapshot import Credential

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
VERSION = b"API-Version: 1\r\n"
"""Is said once the service is known; a request can be found bad before that or after."""
NEW_EACH_TIME = {"x-request-id", "traceparent"}
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
        if answer.status >= 400:
            check_problem(answer, head_only=case.methods != () and not answer.body)
    if not case.kept and case.answers and not case.patience:
        assert answers[-1].header("connection") == "close"


def check_problem(answer: Response, head_only: bool) -> None:
    assert answer.header("content-type") == "application/problem+json"
    if head_only:
        return
    problem = answer.json()
    assert problem["status"] == answer.status
    assert problem["request_id"] == answer.header("x-request-id")
    assert len(problem["detail"]) > 10
    assert "Traceback" not in problem["detail"]


def check_fields(sent: Sent, request: Request) -> None:
    names = {name for name, _ in request.headers}
    assert not names & (NEVER_FORWARDED | set(sent.lacks))
    assert request.header("host") == [PROVIDER]
    assert len(request.header("content-length") + request.header("transfer-encoding")) <= 1
    for name, value in sent.has.items():
        assert ", ".join(request.header(name)) == value.replace("PROVIDER", PROVIDER)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case(wire: Wire, case: Case) -> None:
    check(case, wire.run(case.raw, patience=case.patience))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_cut_at_every_byte(wire: Wire, case: Case) -> None:
    """Two pieces, for every place between them; where several requests come, with quick and slow providers."""
    whole = comparable(wire.run(case.raw, patience=case.patience))
    for late in (False, True) if case.raw.count(b" HTTP/1.") > 1 else (False,):
        places = positions(case)
        runs = wire.run_cut(case.raw, places, late=late, patience=case.patience)
        for position, seen in zip(places, runs, strict=True):
            if case.bounded:
                check_bounded(case, seen)
            else:
                assert comparable(seen) == whole, f"cut at byte {position}"


def positions(case: Case) -> list[int]:
    length = len(case.raw)
    most = max(16, min(EVERY_BYTE if length <= EVERY_BYTE else EVERY_BYTE // 5, ANSWERS // max(1, len(case.answers))))
    if length <= most:
        return list(range(1, length))
    edge = most // 3
    step = (length - 2 * edge) // edge + 1
    return [*range(1, edge), *range(edge, length - edge, step), *range(length - edge, length)]


def comparable(seen: Seen) -> tuple[object, ...]:
    """Return all of it that must not depend on the pieces."""
    requests = [
        (
            request.method,
            request.target,
            request.body,
            [field for field in request.headers if field[0] not in NEW_EACH_TIME],
        )
        for request in seen.requests
    ]
    output = seen.output.replace(CONTINUE, b"").replace(VERSION, b"")
    return output, seen.kept, requests, seen.violations


def check_bounded(case: Case, seen: Seen) -> None:
    """However many were taken, they were answered in order; the connection stays only if these were all."""
    answers = seen.answers()
    assert len(answers) >= len(case.answers)
    assert {answer.status for answer in answers} == set(case.answers)
    assert [request.target for request in seen.requests] == [f"/base/{n}" for n in range(len(answers))]
    assert seen.kept == (answers[-1].header("connection") != "close")


OVER_SOCKETS = [case for case in CASES if len(case.raw) < 500 and case.answers and not case.patience][::16]


@pytest.mark.parametrize("case", OVER_SOCKETS, ids=lambda case: case.name)
async def test_a_case_over_a_real_connection_byte_by_byte(market: Market, case: Case) -> None:
    credential = Credential("corpus", ORG, APP, market.keyring.hash_key(KEY), 0, 0)
    market.gateway.directory.put_credential(credential.id, credential)
    client = await market.connect()
    with contextlib.suppress(ConnectionError):  # the gateway may have answered and closed before all was sent
        await client.send(case.raw, range(1, len(case.raw)))
    statuses = []
    for method, _ in itertools.zip_longest(case.methods, case.answers, fillvalue="POST"):
        answer = await client.receive(str(method))
        assert answer is not None
        statuses.append(answer.status)
    assert tuple(statuses) == case.answers
    assert [(sent.method, sent.target, sent.body) for sent in case.upstream] == [
        (request.method, request.target, request.body) for request in market.provider.requests
    ]
    assert case.kept or await client.ended()
