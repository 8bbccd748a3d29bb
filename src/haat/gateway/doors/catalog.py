"""What a caller's application may call, as the doors' lists of models have it: one card a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

from haat.gateway.doors.names import may_call
from haat.gateway.doors.visit import path_behind
from haat.kernel.errors import ServiceNotFound

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.snapshot import Service

MODELS = b"/v1/models/"


class Card(NamedTuple):
    """A service under one of its names. ``created`` is since when it has a price, in seconds since the epoch."""

    name: str
    provider: str
    created: int


def cards(gateway: Gateway, call: Call) -> list[Card]:
    """Return the cards of all that the caller's application may call, each service under its own name first."""
    credential = call.credential
    assert credential is not None
    return [
        _card(service, name)
        for service in gateway.names.of_caller(gateway, credential)
        for name in (service.path, *gateway.names.aliases_of(gateway, service))
    ]


def one_card(gateway: Gateway, call: Call) -> Card:
    """Return the card of the model that the address names behind ``/v1/models/``; raise ServiceNotFound."""
    credential = call.credential
    assert credential is not None
    name = unquote_to_bytes(path_behind(call.target, MODELS)).decode("utf-8", "replace")
    service = gateway.names.find(gateway, call, name).service
    if not may_call(gateway, credential, [service]):
        raise ServiceNotFound(f"The application is not subscribed to {service.path}, or the key doesn't open it.")
    return _card(service, name)


def _card(service: Service, name: str) -> Card:
    created = min((price.effective_from for price in service.prices), default=0) // 1_000_000
    return Card(name, service.provider, created)
