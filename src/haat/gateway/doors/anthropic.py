"""Anthropic's door: ``/v1/messages`` and ``…/count_tokens``, passed on to providers who speak that protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haat.gateway.dialects.asking import with_model
from haat.gateway.doors.operation import Operation, read_body
from haat.gateway.doors.visit import Visit
from haat.kernel.errors import HaatError, InvalidRequest

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

DIALECT = "anthropic"
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

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        said = {"type": kind, "message": error.detail, "code": error.code}
        return b"application/json", _encode({"type": "error", "error": said, "request_id": request_id})

    def error_event(self, error: HaatError, request_id: str) -> bytes:
        return b"event: error\ndata: %b\n\n" % self.problem(error, request_id)[1]


class Messages(AnthropicOperation):
    """``POST /v1/messages``, whole or as a stream."""

    name = "anthropic messages"
    tail = b"/messages"


class CountTokens(AnthropicOperation):
    """``POST /v1/messages/count_tokens``: how many tokens a request would take; it takes none itself."""

    name = "anthropic messages.count_tokens"
    tail = b"/messages/count_tokens"


OPERATIONS = {
    (b"POST", b"/v1/messages"): Messages(),
    (b"POST", b"/v1/messages/count_tokens"): CountTokens(),
}
