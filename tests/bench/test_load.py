"""What the benchmark sends and how it reads what wrk prints."""

from __future__ import annotations

import json

import pytest

from bench.bodies import ANSWER_BYTES, CHAT, CHAT_ANSWER, REQUEST_BYTES, TASK, TASK_ANSWER, padded
from bench.load import LoadFailed, Outcome, parse_outcome
from bench.open_loop import Seen, wire


def test_the_result_is_found_among_what_wrk_says() -> None:
    text = (
        "Running 1s test\n  1 threads and 64 connections\n"
        'result {"requests": 10, "seconds": 1.5, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "errors": 2}\n'
    )
    assert parse_outcome(text) == Outcome(10, 1.5, 1.0, 2.0, 3.0, 2)


def test_a_run_without_a_result_is_a_failure_that_quotes_it() -> None:
    with pytest.raises(LoadFailed, match="unable to connect"):
        parse_outcome("unable to connect to 127.0.0.1:1 Connection refused")


def test_every_gateway_carries_equally_many_bytes() -> None:
    assert {len(TASK), len(CHAT)} == {REQUEST_BYTES}
    assert {len(TASK_ANSWER), len(CHAT_ANSWER)} == {ANSWER_BYTES}
    assert json.loads(CHAT)["model"] == "bench"


def test_padding_keeps_the_content_and_refuses_what_is_too_long() -> None:
    assert json.loads(padded({"a": "ä"}, 40)) == {"a": "ä"}
    with pytest.raises(ValueError, match="don't fit"):
        padded({"a": "b" * 50}, 40)


def test_a_request_has_its_length_and_ends_with_its_body() -> None:
    request = wire(80, "/x", {"A": "b"}, b"body")
    assert request == b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:80\r\nA: b\r\nContent-Length: 4\r\n\r\nbody"


def test_calls_that_were_lost_and_wrong_answers_are_errors() -> None:
    assert Seen(rate=1, seconds=1, wrong=2, lost=3).errors == 5
