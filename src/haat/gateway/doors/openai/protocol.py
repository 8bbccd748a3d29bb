"""What the operations of the OpenAI-compatible door share: how a refusal looks, and how a request is passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haat.gateway.dialects.asking import with_model
from haat.gateway.doors.operation import Operation
from haat.gateway.doors.visit import Visit
from haat.kernel.errors import HaatError, InvalidRequest

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.market.routes import Route

encode = msgspec.json.Encoder(decimal_format="number").encode
DIALECT = "openai"
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


def wrong_service(route: Route, what: str) -> HaatError:
    """Return the refusal of a model that is there and can't do what was asked for."""
    return wrong_field("model", f"{route.service.path} speaks `{route.executing.dialect}` and gives no {what} here.")


class OpenAIOperation(Operation):
    """What all of them share: how a refusal looks (`openai.APIStatusError` reads it).

    ``_fields`` has beginnings of fields of the task schema, each with the one of the protocol that it was made of.
    """

    _fields: tuple[tuple[str, str], ...] = ()
    _too_long: str | None = None
    """The field that is meant where a task service says that its input is too long."""

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
        errors = error.extensions.get("errors")
        if errors:
            field = next(
                (own for begin, own in self._fields if errors[0]["field"].startswith(begin)), errors[0]["field"]
            )
            message = f"{field}: {errors[0]['message']}"
        else:
            field = self._too_long if error.code == "INPUT_TOO_LONG" else error.extensions.get("field")
            message = error.detail
        return b"application/json", encode(
            {"error": {"message": message, "type": kind, "param": field, "code": error.code, "request_id": request_id}}
        )


def pass_on(call: Call, visit: Visit, route: Route, tail: bytes) -> None:
    """Pass a JSON request on to a provider who speaks this protocol, with the name by which it knows the model."""
    model = route.executing.policy.model
    visit.pass_on(call, route, tail, with_model(b"".join(call.body), model) if model else None)
