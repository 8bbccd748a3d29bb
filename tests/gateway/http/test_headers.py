"""The vocabulary of headers: hop-by-hop ones end at the gateway, whoever sends them and however they are written."""

from __future__ import annotations

import pytest

from haat.gateway.http.headers import (
    ANSWER_HEADERS,
    CONNECTION,
    DROP,
    FORWARD,
    KEEP_ALIVE,
    REQUEST_HEADERS,
    UPGRADE,
    ends_chunked,
    is_host,
    read_connection,
)


@pytest.mark.parametrize("name", [b"te", b"Trailer", b"Proxy-Connection", b"proxy-authorization"])
def test_hop_by_hop_headers_end_here_in_both_directions(name: bytes) -> None:
    assert REQUEST_HEADERS[name] == ANSWER_HEADERS[name] == DROP


def test_what_governs_a_connection_is_read_and_never_forwarded() -> None:
    assert REQUEST_HEADERS[b"Connection"] == ANSWER_HEADERS[b"connection"] == CONNECTION
    assert (REQUEST_HEADERS[b"Upgrade"], ANSWER_HEADERS[b"Upgrade"]) == (UPGRADE, DROP)
    assert (REQUEST_HEADERS[b"Keep-Alive"], ANSWER_HEADERS[b"Keep-Alive"]) == (DROP, KEEP_ALIVE)


def test_a_provider_can_not_speak_for_the_gateway() -> None:
    for name in (b"X-Request-ID", b"x-haat-units", b"RateLimit", b"ratelimit-policy", b"X-RateLimit-Remaining"):
        assert ANSWER_HEADERS.get(name, ANSWER_HEADERS.get(name.lower())) == DROP


def test_both_spellings_of_a_name_mean_the_same() -> None:
    for table in (REQUEST_HEADERS, ANSWER_HEADERS):
        assert all(table[name] == table[name.title()] == table[name.lower()] for name in table)
    assert FORWARD == 0, "the parser's callbacks test for falsehood"


@pytest.mark.parametrize("value", [b"close", b" Close ", b"x, CLOSE", b",close,,"])
def test_close_is_one_of_the_tokens(value: bytes) -> None:
    assert read_connection(value).close


def test_a_connection_header_names_what_ends_here_and_only_whole_tokens_count() -> None:
    assert read_connection(b"X-Own, keep-alive , closed") == (False, True, {b"x-own", b"closed"})


@pytest.mark.parametrize("value", [b"a", b"a.b:80", b"a:", b"[::1]:8080", b"127.0.0.1", b"%E0%A4%B9.example", b" a "])
def test_a_host_may_have_a_port(value: bytes) -> None:
    assert is_host(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"u@a",
        b"a/b",
        b"a?b",
        b"a#b",
        b"a b",
        b"a,b",
        b"a:b",
        b"a:123456",
        b"[::1",
        b"\xe9",
        b"%e",
        b"a" * 256,
    ],
)
def test_a_host_is_nothing_else(value: bytes) -> None:
    assert not is_host(value)


def test_the_hosts_that_are_remembered_are_bounded() -> None:
    for number in range(5000):
        assert is_host(b"host-%d" % number)
    assert not is_host(b"host 1")


@pytest.mark.parametrize(
    ("codings", "ends"),
    [
        (b"chunked", True),
        (b"gzip, Chunked", True),
        (b"chunked, gzip", False),
        (b"chunked, chunked", False),
        (b"a;b, chunked", False),
        (b"", False),
    ],
)
def test_chunked_is_the_last_coding_or_none(codings: bytes, ends: bool) -> None:
    assert ends_chunked(codings) is ends
