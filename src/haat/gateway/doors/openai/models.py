"""``GET /v1/models``: what may be called, and under which names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from haat.gateway.doors.openai.protocol import OpenAIOperation, encode
from haat.gateway.doors.visit import Visit
from haat.kernel.errors import ServiceNotFound

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.snapshot import Service


class Models(OpenAIOperation):
    """``GET /v1/models``: the services that the caller's application may call, each under its names."""

    name = "openai models"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        credential = call.credential
        assert credential is not None
        data = []
        for service in gateway.names.of_caller(gateway, credential.application):
            data += [_card(service, name) for name in (service.path, *gateway.names.aliases_of(gateway, service))]
        visit.answer(call, encode({"object": "list", "data": data}))
        return False


class OneModel(OpenAIOperation):
    """``GET /v1/models/{id}``, whose id may hold slashes."""

    name = "openai models.retrieve"
    _PREFIX = b"/v1/models/"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        credential = call.credential
        assert credential is not None
        raw = call.target[call.target.index(self._PREFIX) + len(self._PREFIX) :].partition(b"?")[0]
        name = unquote_to_bytes(raw).decode("utf-8", "replace")
        service = gateway.names.find(gateway, call, name).service
        if (credential.application, service.id) not in gateway.directory.subscriptions:
            raise ServiceNotFound(f"The application is not subscribed to {service.path}.")
        visit.answer(call, encode(_card(service, name)))
        return False


def _card(service: Service, name: str) -> dict[str, Any]:
    created = min((price.effective_from for price in service.prices), default=0) // 1_000_000
    return {"id": name, "object": "model", "created": created, "owned_by": service.provider}
