"""Which addresses a URL that somebody else supplied may lead to.

A name is resolved once, every answer is checked, and the connection goes to a checked address: what
was looked at is what is dialled, so a name that changes its answer between the two gains nothing.
Python 3.11's own ``is_private`` misses 100.64.0.0/10 and ``is_global`` passes multicast and the
ranges that wrap IPv4, so these are denied by name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from haat.infra.inference.upstream import SCHEMES
from haat.kernel.errors import AddressForbidden

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_DENIED: tuple[IPNetwork, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "192.0.0.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",  # benchmarking
        "224.0.0.0/4",
        "240.0.0.0/4",
        "64:ff9b::/96",  # NAT64: wraps any IPv4 address
        "64:ff9b:1::/48",
        "2002::/16",  # 6to4: wraps any IPv4 address
        "2001::/32",  # Teredo
        "3fff::/20",  # documentation
        "ff00::/8",
    )
)
_UNICAST = ipaddress.ip_network("2000::/3")  # all that is routed; ::7f00:1, fec0:: and more are not
_SPACE_OR_CONTROL = re.compile(r"[\s\x00-\x20\x7f-\x9f\\]")
RESOLVE_SECONDS = 5.0
LOOPBACK = ("127.0.0.0/8", "::1/128")


def parse_networks(networks: Iterable[str]) -> tuple[IPNetwork, ...]:
    """Return networks from CIDR texts."""
    return tuple(ipaddress.ip_network(network) for network in networks)


def hosted_networks(endpoint: str, models_address: str, provider: str) -> tuple[str, ...]:
    """Return the loopback networks for an endpoint of the provider's own models in our models process, else none.

    Nothing else on loopback is opened by it: the address is held against the whole pattern, its path included.
    """
    pattern = (
        re.escape(f"{models_address}/{provider}/") + r"[a-z0-9](?:-?[a-z0-9]){0,39}%40[A-Za-z0-9][A-Za-z0-9._-]{0,31}"
    )
    return LOOPBACK if models_address and re.fullmatch(pattern, endpoint) else ()


def check_address(address: IPAddress | str, allowed: Iterable[IPNetwork] = ()) -> IPAddress:
    """Return the address when it is public or in an allowed network; raise AddressForbidden."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip in network for network in allowed if network.version == ip.version):
        return ip
    denied = any(ip in network for network in _DENIED if network.version == ip.version)
    if denied or not ip.is_global or (ip.version == 6 and ip not in _UNICAST):
        raise AddressForbidden(f"{ip} is not a public address, and the operator has not allowed its network.")
    return ip


def check_url(url: str, *, https_only: bool, grpc: bool = False) -> tuple[str, str, int]:
    """Return (scheme, host, port) of a URL that may be called; raise AddressForbidden.

    Userinfo is refused, and ports below 1024 other than 80 and 443; so is whatever one reader of
    addresses drops and another keeps: white space, control characters, backslashes. With ``grpc`` it may
    also be a server's that is asked over gRPC: a host and a port, nothing else.
    """
    try:
        if _SPACE_OR_CONTROL.search(url):
            raise ValueError("a URL has no such characters")
        parts = urlsplit(url)
        usual = 443 if parts.scheme == "https" else 80
        port = usual if parts.port is None else parts.port
        bare = parts.port is not None and not (parts.path.rstrip("/") or parts.query or parts.fragment)
    except ValueError as error:
        raise AddressForbidden("The address can't be read: write it as https://host/path.") from error
    if grpc and parts.scheme in SCHEMES:
        if not bare or not parts.hostname:
            raise AddressForbidden("Write the address of a server that is asked over gRPC as grpcs://host:port.")
    elif parts.scheme not in ("http", "https") or not parts.hostname:
        raise AddressForbidden("Write the address as https://host/path.")
    if https_only and parts.scheme not in ("https", "grpcs"):
        raise AddressForbidden("Only https addresses are taken here.")
    if parts.username is not None or parts.password is not None:
        raise AddressForbidden("Leave user name and password out of the address.")
    if port < 1024 and port not in (80, 443):
        raise AddressForbidden(f"Port {port} is not allowed: use 443, 80 or one from 1024 on.")
    return parts.scheme, parts.hostname, port


async def resolve(host: str, port: int, allowed: Iterable[IPNetwork] = ()) -> IPAddress:
    """Return the one address to dial; raise AddressForbidden when any answer for the name is bad.

    An answer that takes longer than `RESOLVE_SECONDS` counts as none.
    """
    allowed = tuple(allowed)
    try:
        return check_address(host, allowed)
    except ValueError:
        pass  # a name, not an address
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, TimeoutError, ValueError) as error:
        raise AddressForbidden(f"The name {host} has no address.") from error
    checked = [check_address(str(answer[4][0]), allowed) for answer in answers]  # all of them, then the first
    return checked[0]
