"""The addresses below ``/v2``: health, metadata, readiness, and infer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

import haat
from haat.gateway import health
from haat.gateway.doors.answers import read_outputs
from haat.gateway.doors.inference.glance import glance_at
from haat.gateway.doors.inference.inference import Inference, read_inference
from haat.gateway.doors.inference.place import place_of
from haat.gateway.doors.inference.tasks import face_of, metadata
from haat.gateway.doors.operation import Operation
from haat.gateway.doors.visit import Visit
from haat.gateway.http.headers import value_of
from haat.gateway.http.streams import Rewriter
from haat.gateway.market.scopes import require
from haat.infra.inference.tensors import SIZE_HEADER
from haat.kernel.errors import HaatError, NotFound, NotSubscribed

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole
    from haat.gateway.market.routes import Route
    from haat.plugins.api import Event

_SIZE = SIZE_HEADER.lower().encode("ascii")
_encode = msgspec.json.Encoder(decimal_format="number").encode


class InferenceOperation(Operation):
    """What all of them share: how a refusal looks, and how an address names a model."""

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        errors = error.extensions.get("errors")
        sentence = f"{errors[0]['field']}: {errors[0]['message']}" if errors else error.detail
        return b"application/json", _encode({"error": sentence, "code": error.code, "request_id": request_id})


class ServerMetadata(InferenceOperation):
    """``GET /v2``: who this is, and which extensions it speaks."""

    name = "inference server metadata"
    open_to_all = True

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        card = {"name": "haat", "version": haat.__version__, "extensions": ["binary_tensor_data"]}
        visit.answer(call, _encode(card))
        return False


class Health(InferenceOperation):
    """``GET /v2/health/live`` and ``/v2/health/ready``: what `haat.gateway.health` says, as the protocol says it."""

    open_to_all = True

    def __init__(self, what: str) -> None:
        self.name = f"inference health {what}"
        self._member, self._target = what, f"/health/{what}".encode("ascii")

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        status, _ = health.report(gateway, self._target)
        visit.answer(call, _encode({self._member: status == 200}), status)
        return False


class RepositoryIndex(InferenceOperation):
    """``POST /v2/repository/index``: the models that the caller's application may call, each under its names."""

    name = "inference repository index"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        credential = call.credential
        assert credential is not None
        index = [
            {"name": name, "version": service.default_version, "state": "READY", "reason": ""}
            for service in gateway.names.of_caller(gateway, credential)
            for name in (service.path, *gateway.names.aliases_of(gateway, service))
        ]
        visit.answer(call, _encode(index))
        return False


class Models(InferenceOperation):
    """``GET /v2/models/…``: a model's metadata, or whether it is ready."""

    name = "inference models"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        credential = call.credential
        assert credential is not None
        name, route, what = place_of(gateway, call)
        require(credential, route.service)
        if (credential.application, route.service.id) not in gateway.directory.subscriptions:
            raise NotSubscribed(f"The application is not subscribed to {route.service.path}.")
        if what == "ready":
            ready = any(endpoint.breaker.ready(call.started) for endpoint in route.in_turn())
            visit.answer(call, _encode({"name": name, "ready": ready}), 200 if ready else 503)
        elif what:
            raise NotFound("Infer requests are sent with POST.")
        else:
            visit.answer(call, _encode(metadata(route, name)))
        return False


class Infer(InferenceOperation):
    """``POST /v2/models/…/infer``: a call of the service, its items and options in tensors."""

    name = "inference infer"
    takes_parts = True

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        name, route, what = place_of(gateway, call)
        if what != "infer":
            raise NotFound("Models are asked at /v2/models/{name}/infer.")
        if not route.executing.takes_tasks:
            visit.pass_on(call, route, b"/infer")
            return True
        visit.asked = inference = _inference_of(call, route, name)
        visit.languages = inference.languages
        visit.become(call, route, b"/invoke", inference.task)
        return True

    def stream(self, call: Call, visit: Visit, before: Rewriter | None) -> Rewriter | None:
        inference: Inference = visit.asked

        def look(event: Event) -> None:
            event.data = inference.part(read_outputs(event.data.encode("utf-8"))).decode("utf-8")

        return Rewriter((look,), before=before)

    def leave(self, call: Call, visit: Visit, answer: Whole) -> None:
        visit.asked.give(answer)


def _inference_of(call: Call, route: Route, name: str) -> Inference:
    """Return what a call asks of the route that it calls so; raise InvalidRequest or MalformedJson."""
    face, version = face_of(route.service.category), route.version.version
    wanted = face.required(route.executing)
    body = call.body[0] if len(call.body) == 1 else b"".join(call.body)
    size = value_of(call.lines, _SIZE)
    seen = None if size else glance_at(body, face, wanted, name, version)
    return seen or read_inference(body, size or None, face, wanted, name, version)


class Nothing(InferenceOperation):
    """Every other address below ``/v2``: models are neither loaded nor traced here."""

    name = "inference elsewhere"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        raise NotFound("This address of the protocol is not spoken here: docs/open-inference.md lists those that are.")


OPERATIONS = {
    (b"GET", b"/v2"): ServerMetadata(),
    (b"GET", b"/v2/health/live"): Health("live"),
    (b"GET", b"/v2/health/ready"): Health("ready"),
    (b"POST", b"/v2/repository/index"): RepositoryIndex(),
    (b"GET", b"/v2/models/*"): Models(),
    (b"POST", b"/v2/models/*"): Infer(),
    (b"GET", b"/v2/*"): Nothing(),
    (b"POST", b"/v2/*"): Nothing(),
}
