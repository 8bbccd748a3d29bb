"""Connections to the servers: one channel each, to an address that was looked at, given up when nobody uses it."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from haat.infra.inference.upstream import Upstream
from haat.infra.net import check_url, parse_networks, resolve

log = logging.getLogger(__name__)

MOST_MESSAGE_BYTES = 64 * 1024 * 1024
"""Of one request and of one response."""
MOST_CHANNELS = 1000
LOOK_SECONDS = 30.0
"""A server's name is looked up again after so long: when it leads elsewhere, so does the next call."""
IDLE_SECONDS = 300.0
LAST_CALLS_SECONDS = 3600.0
"""What is under way on a channel that is given up may last so long."""
_CONNECT_MS = 5000
_OPTIONS = (
    ("grpc.max_send_message_length", MOST_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),  # nobody's environment leads our calls elsewhere
    ("grpc.enable_retries", 0),  # the gateway knows what may be repeated
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
    # What a server doesn't acknowledge within ten seconds ends the connection: with keepalives on, the kernel sees to
    # that (TCP_USER_TIMEOUT). They themselves are rarer than the five minutes below which servers complain.
    ("grpc.keepalive_time_ms", 600_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.min_reconnect_backoff_ms", _CONNECT_MS),  # which is the time that one attempt to connect has
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

Key = tuple[str, tuple[str, ...]]


class _Held:
    """A channel, the address it leads to, and when that was looked at and the channel used last."""

    __slots__ = ("address", "channel", "looked_at", "used_at")

    def __init__(self, channel: Any, address: str, now: float) -> None:
        self.channel, self.address = channel, address
        self.looked_at = self.used_at = now


class Channels:
    """All channels, by the server's address and the networks that it may lie in."""

    def __init__(self) -> None:
        self._held: dict[Key, _Held] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def to(self, upstream: Upstream) -> Any:
        """Return a channel to a server; raise AddressForbidden where none may be opened."""
        now = time.monotonic()
        key = (upstream.url, upstream.networks)
        held = self._held.get(key)
        if held is None or now - held.looked_at > LOOK_SECONDS:
            held = await self._look(key, upstream, now)
        held.used_at = now
        self._held[key] = held = self._held.pop(key, held)  # the last one is the one used last
        return held.channel

    async def _look(self, key: Key, upstream: Upstream, now: float) -> _Held:
        scheme, host, port = check_url(upstream.url, https_only=False, grpc=True)
        ip = await resolve(host, port, parse_networks(upstream.networks))
        address = f"ipv6:[{ip}]:{port}" if ip.version == 6 else f"ipv4:{ip}:{port}"
        held = self._held.get(key)
        if held is not None and held.address == address:
            held.looked_at = now
            return held
        if held is not None:
            self._give_up(key)
        while len(self._held) >= MOST_CHANNELS:
            self._give_up(next(iter(self._held)))
        options = [*_OPTIONS, ("grpc.default_authority", urlsplit(upstream.url).netloc)]
        if scheme == "grpcs":
            options.append(("grpc.ssl_target_name_override", host))
            channel = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(_roots()), options)
        else:
            channel = grpc.aio.insecure_channel(address, options)
        held = self._held[key] = _Held(channel, address, now)
        return held

    def expire(self) -> None:
        """Give up what nobody has used for a while."""
        now = time.monotonic()
        for key, held in list(self._held.items()):
            if now - held.used_at > IDLE_SECONDS:
                self._give_up(key)

    def _give_up(self, key: Key) -> None:
        channel = self._held.pop(key).channel
        task = asyncio.get_running_loop().create_task(channel.close(LAST_CALLS_SECONDS))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        for held in self._held.values():
            await held.channel.close(None)
        self._held.clear()
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)


def _roots() -> bytes | None:
    """Return the certificates that this machine trusts, as the gateway does; None for those that come with gRPC."""
    file = ssl.get_default_verify_paths().cafile
    try:
        return Path(file).read_bytes() if file else None
    except OSError as error:
        log.warning("%s can't be read, so that the certificates are trusted that come with gRPC: %s", file, error)
        return None
