"""``GET /v1/models``: what may be called, and under which names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haat.gateway.doors.catalog import Card, cards, one_card
from haat.gateway.doors.openai.protocol import OpenAIOperation, encode
from haat.gateway.doors.visit import Visit

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway


class Models(OpenAIOperation):
    """``GET /v1/models``: the services that the caller's application may call, each under its names."""

    name = "openai models"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        visit.answer(call, encode({"object": "list", "data": [_shown(card) for card in cards(gateway, call)]}))
        return False


class OneModel(OpenAIOperation):
    """``GET /v1/models/{id}``, whose id may hold slashes."""

    name = "openai models.retrieve"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        visit.answer(call, encode(_shown(one_card(gateway, call))))
        return False


def _shown(card: Card) -> dict[str, Any]:
    return {"id": card.name, "object": "model", "created": card.created, "owned_by": card.provider}
