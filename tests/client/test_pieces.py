"""The client's parts that do no I/O: events in any pieces, when to try again, which error it is, what is kept."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat_client.errors import (
    ApiError,
    IdempotencyConflict,
    NotSubscribed,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    Rejected,
    error_of,
)
from haat_client.etags import ETags
from haat_client.events import EventReader
from haat_client.retries import Retries, is_worth_it, retry_after

STREAM = (
    "\ufeff: a comment\r\ndata: one\r\n\r\nevent: note\rid: 7\rdata: two\rdata:  three\r\r"
    "data\n\nretry: 5\n\ndata: चार\n\ndata: never ended"
).encode()
EVENTS = [("message", "one", ""), ("note", "two\n three", "7"), ("message", "", "7"), ("message", "चार", "7")]


def read(*pieces: bytes) -> list[tuple[str, str, str]]:
    reader = EventReader()
    found = [event for piece in pieces for event in reader.feed(piece)] + list(reader.close())
    return [(event.name, event.data, event.id) for event in found]


def test_events_are_read_as_the_standard_says() -> None:
    assert read(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_it_does_not_matter_in_which_pieces_they_come(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert read(*[STREAM[one:other] for one, other in pairwise(edges)]) == EVENTS


def test_pauses_grow_to_a_bound_and_end() -> None:
    retries = Retries(times=6, first=0.5, most=4.0)
    assert [retries.wait(sent, None, 1.0) for sent in range(1, 8)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0, None]
    assert [retries.wait(sent, None, 0.0) for sent in range(1, 4)] == [0.25, 0.5, 1.0]


@given(st.integers(1, 10), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_shorter_than_was_asked_for_and_hardly_longer(sent: int, random: float) -> None:
    pause = Retries(times=10).wait(sent, 3.0, random)
    assert pause is not None and 3.0 <= pause <= 4.0


def test_who_asks_for_more_than_the_patience_is_not_waited_for() -> None:
    assert Retries(patience=60).wait(1, 61.0, 0.5) is None


@pytest.mark.parametrize(
    ("status", "headers", "code", "again"),
    [
        (429, {}, "RATE_LIMITED", True),
        (429, {"x-should-retry": "false"}, "QUOTA_EXHAUSTED", False),
        (503, {}, "OVERLOADED", True),
        (502, {}, "PROVIDER_FAILED", True),
        (504, {}, "PROVIDER_TIMEOUT", True),
        (500, {}, "INTERNAL", False),
        (500, {"x-should-retry": "true"}, "INTERNAL", True),
        (400, {}, "INVALID_REQUEST", False),
        (409, {}, "IDEMPOTENCY_IN_PROGRESS", True),
        (409, {}, "CONFLICT", False),
    ],
)
def test_what_may_be_cured_by_another_try(status: int, headers: dict[str, str], code: str, again: bool) -> None:
    assert is_worth_it(status, headers, code) is again


def test_retry_after_is_a_number_or_a_date() -> None:
    now = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after": "Sun, 29 Nov 2026 12:00:30 GMT"}, now) == 30.0
    assert retry_after({"retry-after": "Sun, 29 Nov 2026 11:00:00 GMT"}, now) == 0.0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "QUOTA_EXHAUSTED", QuotaExhausted),
        (429, "SOMETHING_NEW", RateLimited),
        (403, "NOT_SUBSCRIBED", NotSubscribed),
        (409, "IDEMPOTENCY_UNKNOWN", IdempotencyConflict),
        (422, "VALIDATION_FAILED", Rejected),
        (503, "PROVIDER_UNAVAILABLE", ProviderError),
        (503, "JOURNAL_FULL", Overloaded),
        (500, "", ApiError),
    ],
)
def test_a_refusal_is_of_the_type_that_its_code_or_status_says(status: int, code: str, kind: type[ApiError]) -> None:
    error = error_of(status, b'{"code":"%b","detail":"what to do"}' % code.encode(), "id-1", 2.0)
    assert type(error) is kind
    assert (error.code, error.status, error.request_id, error.retry_after) == (code, status, "id-1", 2.0)
    assert "what to do" in str(error) and "id-1" in str(error)


def test_every_code_of_the_market_has_a_type_that_is_no_stopgap() -> None:
    """So that a code that is added is thought about: none is a bare ApiError but those of the server's own faults."""
    from haat.kernel import errors

    for found in vars(errors).values():
        if isinstance(found, type) and issubclass(found, errors.HaatError) and found.status != 500:
            body = b'{"code":"%b"}' % found.code.encode()
            assert (
                type(error_of(found.status, body, "", None)) is not ApiError
                or found.status > 504
                or (found.status in (501, 505))
            ), found.code


def test_errors_name_the_fields() -> None:
    error = error_of(422, b'{"code":"VALIDATION_FAILED","errors":[{"field":"input","message":"is missing"}]}', "", None)
    assert error.errors == [{"field": "input", "message": "is missing"}]
    assert "input: is missing" in str(error)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"errors":7}', b'{"error":{"message":"no","code":"X"}}', b"\xff"]
)
def test_any_body_makes_an_error_and_none_breaks_it(body: bytes) -> None:
    assert str(error_of(502, body, "", None))


def test_answers_with_a_tag_are_kept_and_the_oldest_goes_first() -> None:
    kept = ETags(most=2, size=10)
    for place in ("one", "two"):
        kept.keep(place, {"etag": place}, b"x")
    assert kept.find("one") is not None
    kept.keep("three", {"etag": "3"}, b"x")
    assert kept.find("two") is None and kept.find("one") is not None
    kept.keep("one", {"etag": "1", "cache-control": "no-store"}, b"x")
    kept.keep("three", {"etag": "3"}, b"x" * 11)
    assert kept.find("one") is None and kept.find("three") is None
