"""Which addresses a provider's endpoint may have (STANDARDS, SSRF)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.infra import net
from haat.infra.net import check_address, check_url, parse_networks, resolve
from haat.kernel.errors import AddressForbidden

INWARD = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.127.255.255",
    "0.0.0.0",
    "0.1.2.3",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "2001::1",
    "2001:db8::1",
    "3fff::1",
    "100::1",
    "5f00::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::200e"]


@pytest.mark.parametrize("address", INWARD)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(AddressForbidden, match="not a public address"):
        check_address(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_taken(address: str) -> None:
    assert str(check_address(address)) == address


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_judged_as_the_address_within(address: Any) -> None:
    def verdict(text: str) -> bool:
        try:
            check_address(text)
        except AddressForbidden:
            return False
        return True

    assert verdict(f"::ffff:{address}") == verdict(str(address))
    assert not verdict(f"64:ff9b::{address}")


def test_the_operator_may_allow_a_network() -> None:
    allowed = parse_networks(["10.1.0.0/16", "fd00::/8"])
    assert str(check_address("10.1.2.3", allowed)) == "10.1.2.3"
    assert str(check_address("::ffff:10.1.2.3", allowed)) == "10.1.2.3"
    assert str(check_address("fd00::5", allowed)) == "fd00::5"
    with pytest.raises(AddressForbidden):
        check_address("10.2.0.1", allowed)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://api.example.in/v1", ("https", "api.example.in", 443)),
        ("http://api.example.in", ("http", "api.example.in", 80)),
        ("http://api.example.in:8080/x?y=1", ("http", "api.example.in", 8080)),
        ("https://[2606:4700::1111]:8443/", ("https", "2606:4700::1111", 8443)),
        ("https://उदाहरण.भारत/", ("https", "उदाहरण.भारत", 443)),
    ],
)
def test_an_address_is_taken_apart(url: str, parts: tuple[str, str, int]) -> None:
    assert check_url(url, https_only=False) == parts


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.in",
        "//api.example.in/",
        "ftp://api.example.in/",
        "file:///etc/passwd",
        "gopher://api.example.in:70/",
        "https://",
        "https:///path",
        "https://user@api.example.in/",
        "https://user:secret@api.example.in/",
        "https://@api.example.in/",
        "https://api.example.in\\@127.0.0.1/",
        "https://api.example.in:22/",
        "https://api.example.in:25/",
        "https://api.example.in:0/",
        "https://api.example.in:65536/",
        "https://api.example.in:-1/",
        "https://api.example.in:abc/",
        "https://[::1/",
        "https://api.exa\nmple.in/",
        "https://api.example.in/\r\nX: y",
        "https://api.example.in/a b",
        "https://api.example\x00.in/",
        " https://api.example.in/",
        "https://api.example.in\t/",
    ],
)
def test_an_address_that_two_readers_could_read_differently_is_refused(url: str) -> None:
    with pytest.raises(AddressForbidden):
        check_url(url, https_only=False)


def test_plain_http_is_refused_outside_development() -> None:
    with pytest.raises(AddressForbidden, match="Only https"):
        check_url("http://api.example.in/", https_only=True)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader_of_addresses(text: str) -> None:
    for url in (text, f"https://{text}/"):
        try:
            scheme, host, port = check_url(url, https_only=True)
        except AddressForbidden:
            continue
        assert scheme == "https" and host and (port in (80, 443) or 1024 <= port <= 65535)


def _answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    async def getaddrinfo(self: Any, host: str, port: int, **_: Any) -> list[Any]:
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)


async def test_a_name_is_resolved_to_the_first_of_its_good_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, "8.8.8.8", "2606:4700::1111")
    assert str(await resolve("api.example.in", 443)) == "8.8.8.8"


@pytest.mark.parametrize("bad", ["127.0.0.1", "10.0.0.1", "::1", "::ffff:192.168.0.1", "64:ff9b::7f00:1"])
async def test_a_name_with_one_bad_address_among_good_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    _answers(monkeypatch, "8.8.8.8", bad)
    with pytest.raises(AddressForbidden):
        await resolve("api.example.in", 443)


@pytest.mark.parametrize("disguise", ["2130706433", "0x7f000001", "0x7f.1", "017700000001", "127.1", "0", "localhost"])
async def test_loopback_in_disguise_is_refused(disguise: str) -> None:
    with pytest.raises(AddressForbidden):
        await resolve(disguise, 80)


async def test_a_literal_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch)  # an IndexError would tell
    assert str(await resolve("8.8.4.4", 443)) == "8.8.4.4"


async def test_an_allowed_network_is_reached_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, "10.1.2.3")
    assert str(await resolve("internal.example.in", 80, parse_networks(["10.1.0.0/16"]))) == "10.1.2.3"


@pytest.mark.parametrize("host", ["a" * 64 + ".in", "nobody.invalid", "nul\0.in"])
async def test_a_name_without_address_is_refused(host: str) -> None:
    with pytest.raises(AddressForbidden, match="has no address"):
        await resolve(host, 443)


async def test_a_name_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(self: Any, host: str, port: int, **_: Any) -> list[Any]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(net, "RESOLVE_SECONDS", 0.01)
    with pytest.raises(AddressForbidden):
        await resolve("slow.example.in", 443)
