"""The OpenAI-compatible door: ``/v1/models``, ``/v1/embeddings``."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from haat.gateway.doors.visit import Operation, Visit, read_body, read_task_answer, reply
from haat.kernel.errors import HaatError, InvalidRequest, ProviderFailed, ServiceNotFound

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole
    from haat.gateway.market.snapshot import Service

_encode = msgspec.json.Encoder(decimal_format="number").encode
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
"""What the protocol calls a refusal, by its status; other 4xx are invalid requests, 5xx errors of the server."""


def wrong_field(field: str, message: str) -> HaatError:
    """Return the refusal of a request for one of its fields: in this protocol that is a 400."""
    return InvalidRequest(f"{field}: {message}", field=field)


class OpenAIOperation(Operation):
    """What all of them share: how a refusal looks (`openai.APIStatusError` reads it)."""

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
        errors = error.extensions.get("errors")
        field = errors[0]["field"] if errors else error.extensions.get("field")
        message = f"{errors[0]['field']}: {errors[0]['message']}" if errors else error.detail
        return b"application/json", _encode(
            {"error": {"message": message, "type": kind, "param": field, "code": error.code, "request_id": request_id}}
        )


# --- models -------------------------------------------------------------------------------------


class Models(OpenAIOperation):
    """``GET /v1/models``: the services that the caller's application may call, each under its names."""

    name = "openai models"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        credential = call.credential
        assert credential is not None
        data = []
        for service in gateway.names.of_caller(gateway, credential.application):
            data += [_card(service, name) for name in (service.path, *gateway.names.aliases_of(gateway, service))]
        visit.answer(call, _encode({"object": "list", "data": data}))
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
        visit.answer(call, _encode(_card(service, name)))
        return False


def _card(service: Service, name: str) -> dict[str, Any]:
    created = min((price.effective_from for price in service.prices), default=0) // 1_000_000
    return {"id": name, "object": "model", "created": created, "owned_by": service.provider}


# --- embeddings ---------------------------------------------------------------------------------


class _Embeddings(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class Embeddings(OpenAIOperation):
    """``POST /v1/embeddings``. A task service takes texts; token numbers are for providers who speak this protocol."""

    name = "openai embeddings"
    _decoder = msgspec.json.Decoder(_Embeddings)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _Embeddings = read_body(self._decoder, call, wrong_field)
        visit.asked = asked
        route = gateway.names.find(gateway, call, asked.model)
        if not route.executing.takes_tasks:
            visit.pass_on(call, route, b"/embeddings")
            return True
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InvalidRequest(
                "`input` must be a text or a list of texts: this model takes no token numbers.", field="input"
            )
        if asked.dimensions is not None:
            raise InvalidRequest("`dimensions` can't be chosen: this model has a fixed size.", field="dimensions")
        visit.become(call, route, b"/invoke", _encode({"input": [{"text": text} for text in texts]}))
        return True

    def leave(self, call: Call, visit: Visit, answer: Whole) -> None:
        outputs, usage = read_task_answer(answer)
        wanted: _Embeddings = visit.asked
        data = []
        for index, output in enumerate(outputs):
            vector = output.get("embedding")
            if not isinstance(vector, list):
                raise ProviderFailed("The provider's answer holds no embeddings; the call is not billed.")
            shown: Any = vector
            if wanted.encoding_format == "base64":
                shown = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
            data.append({"object": "embedding", "index": index, "embedding": shown})
        tokens = tokens_of(usage)
        reply(
            answer,
            _encode(
                {
                    "object": "list",
                    "data": data,
                    "model": wanted.model,
                    "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
                }
            ),
        )


def tokens_of(usage: dict[str, float]) -> int:
    """Return how many tokens a call took; a service that counts otherwise has none."""
    return int(usage.get("tokens", 0))


OPERATIONS = {
    (b"GET", b"/v1/models"): Models(),
    (b"GET", b"/v1/models/*"): OneModel(),
    (b"POST", b"/v1/embeddings"): Embeddings(),
}
