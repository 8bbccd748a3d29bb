"""The vocabulary of headers: hop-by-hop ones end at the gateway, whoever sends them and however they are written."""

from __future__ import annotations

import pytest

from haat.gateway.headers import ANSWER_HEADERS, CONNECTION, DROP, FORWARD, KEEP_ALIVE, REQUEST_HEADERS


@pytest.mark.parametrize("name", [b"te", b"Trailer", b"upgrade", b"Proxy-Connection", b"proxy-authorization"])
def test_hop_by_hop_headers_end_here_in_both_directions(name: bytes) -> None:
    assert REQUEST_HEADERS[name] == ANSWER_HEADERS[name] == DROP


def test_what_governs_a_connection_is_read_and_never_forwarded() -> None:
    assert REQUEST_HEADERS[b"Connection"] == ANSWER_HEADERS[b"connection"] == CONNECTION
    assert (REQUEST_HEADERS[b"Keep-Alive"], ANSWER_HEADERS[b"Keep-Alive"]) == (DROP, KEEP_ALIVE)


def test_a_provider_can_not_speak_for_the_gateway() -> None:
    for name in (b"X-Request-ID", b"x-haat-units", b"RateLimit", b"ratelimit-policy", b"X-RateLimit-Remaining"):
        assert ANSWER_HEADERS.get(name, ANSWER_HEADERS.get(name.lower())) == DROP


def test_both_spellings_of_a_name_mean_the_same() -> None:
    for table in (REQUEST_HEADERS, ANSWER_HEADERS):
        assert all(table[name] == table[name.title()] == table[name.lower()] for name in table)
    assert FORWARD == 0, "the parser's callbacks test for falsehood"
