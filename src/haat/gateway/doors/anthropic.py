"""Anthropic's door: messages, passed on to providers who speak that protocol, and the list of models in its shape."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from haat.gateway.dialects.asking import with_model
from haat.gateway.doors.bodies import read_body
from haat.gateway.doors.catalog import Card, cards, one_card
from haat.gateway.doors.operation import Operation
from haat.gateway.doors.visit import Visit
from haat.kernel.errors import HaatError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

DIALECT = "anthropic"
USUAL_PAGE, MOST_PAGE = 20, 1000
_encode = msgspec.json.Encoder(decimal_format="number").encode
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""What the protocol calls a refusal, by its status; other 4xx are invalid requests, 5xx errors of its own."""


class _Named(msgspec.Struct):
    model: str


_named = msgspec.json.Decoder(_Named)


def wrong_field(field: str, message: str) -> HaatError:
    """Return the refusal of a request for one of its fields: in this protocol that is a 400."""
    return InvalidRequest(f"{field}: {message}", field=field)


class AnthropicOperation(Operation):
    """What all of them share: how a refusal looks, and where clients look for its id."""

    id_header = b"Request-Id"

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        errors = error.extensions.get("errors")
        message = f"{errors[0]['field']}: {errors[0]['message']}" if errors else error.detail
        said = {"type": kind, "message": message, "code": error.code}
        return b"application/json", _encode({"type": "error", "error": said, "request_id": request_id})

    def error_event(self, error: HaatError, request_id: str) -> bytes:
        return b"event: error\ndata: %b\n\n" % self.problem(error, request_id)[1]


class _Passing(AnthropicOperation):
    """Only the model's name is read; ``anthropic-version`` and whatever else was sent go on to the provider."""

    tail = b""

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _Named = read_body(_named, call, wrong_field)
        route = gateway.names.find(gateway, call, asked.model)
        if route.executing.dialect != DIALECT:
            raise wrong_field(
                "model", f"{route.service.path} speaks `{route.executing.dialect}` and takes no messages."
            )
        model = route.executing.policy.model
        visit.pass_on(call, route, self.tail, with_model(b"".join(call.body), model) if model else None)
        return True


class Messages(_Passing):
    """``POST /v1/messages``, whole or as a stream."""

    name = "anthropic messages"
    tail = b"/messages"


class CountTokens(_Passing):
    """``POST /v1/messages/count_tokens``: how many tokens a request would take; it takes none itself."""

    name = "anthropic messages.count_tokens"
    tail = b"/messages/count_tokens"


class Models(AnthropicOperation):
    """``GET /v1/models``: what the caller's application may call, page by page."""

    name = "anthropic models"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        query = dict(parse_qsl(call.target.partition(b"?")[2].decode("utf-8", "replace")))
        limit = query.get("limit", str(USUAL_PAGE))
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MOST_PAGE):
            raise wrong_field("limit", f"must be a whole number from 1 to {MOST_PAGE}")
        found = cards(gateway, call)
        first, last = 0, len(found)
        if "after_id" in query:
            first = _place(found, query, "after_id") + 1
        if "before_id" in query:
            last = _place(found, query, "before_id")
        if "before_id" in query and "after_id" not in query:
            first = max(first, last - int(limit))
            has_more = first > 0
        else:
            has_more = last - first > int(limit)
            last = min(last, first + int(limit))
        page = [_shown(card) for card in found[first:last]]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        visit.answer(call, _encode({"data": page, "has_more": has_more, **ends}))
        return False


class OneModel(AnthropicOperation):
    """``GET /v1/models/{id}``, whose id may hold slashes."""

    name = "anthropic models.retrieve"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        visit.answer(call, _encode(_shown(one_card(gateway, call))))
        return False


def _place(found: list[Card], query: dict[str, str], name: str) -> int:
    """Return where in the list the model stands that a page begins or ends at."""
    for place, card in enumerate(found):
        if card.name == query[name]:
            return place
    raise wrong_field(name, "must be the id of a model in this list")


def _shown(card: Card) -> dict[str, str]:
    created = datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": card.name, "display_name": card.name, "created_at": created}


class Elsewhere(AnthropicOperation):
    """Every other address below ``/v1/messages``, such as its batches."""

    name = "anthropic elsewhere"
    open_to_all = True

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        method = call.method.decode("ascii")
        raise NotFound(f"Nothing here answers {method} at this address: docs/anthropic.md lists what is spoken.")


OPERATIONS = {
    (b"POST", b"/v1/messages"): Messages(),
    (b"POST", b"/v1/messages/count_tokens"): CountTokens(),
    **{(method, b"/v1/messages/*"): Elsewhere() for method in (b"GET", b"POST", b"DELETE")},
}
SHARED = {
    (b"GET", b"/v1/models"): Models(),
    (b"GET", b"/v1/models/*"): OneModel(),
}
"""Addresses that OpenAI's protocol has too: who sends ``anthropic-version`` means these."""
