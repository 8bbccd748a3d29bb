"""``POST /v1/moderations``: whether texts are harmful, and in which way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.doors.answers import read_task_answer
from haat.gateway.doors.bodies import read_body
from haat.gateway.doors.openai.protocol import DIALECT, OpenAIOperation, encode, pass_on, wrong_field, wrong_service
from haat.gateway.doors.visit import Visit, reply
from haat.kernel.errors import ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole

USUAL_MODEL = "omni-moderation-latest"
"""Who names no model means the listing with this alias."""


class _Moderations(msgspec.Struct):
    input: str | list[str | dict[str, Any]]
    model: str | None = None


class Moderations(OpenAIOperation):
    """A task service answers each text with ``{"flagged", "categories", "scores"}``."""

    name = "openai moderations"
    _decoder = msgspec.json.Decoder(_Moderations)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _Moderations = read_body(self._decoder, call, wrong_field)
        model = asked.model or USUAL_MODEL
        route = gateway.names.find(gateway, call, model)
        if route.executing.dialect == DIALECT:
            pass_on(call, visit, route, b"/moderations")
            return True
        if not route.executing.takes_tasks:
            raise wrong_service(route, "moderations")
        texts = [_text(part) for part in ([asked.input] if isinstance(asked.input, str) else asked.input)]
        if not texts:
            raise wrong_field("input", "must be a text, or a list of texts")
        visit.asked = model
        visit.become(call, route, b"/invoke", encode({"input": [{"text": text} for text in texts]}))
        return True

    def leave(self, call: Call, visit: Visit, answer: Whole) -> None:
        outputs, _ = read_task_answer(answer)
        body = {"id": f"modr-{call.id}", "model": visit.asked, "results": [_result(output) for output in outputs]}
        reply(answer, encode(body))


def _text(part: str | dict[str, Any]) -> str:
    text = part.get("text") if isinstance(part, dict) else part
    if not isinstance(text, str):
        raise wrong_field("input", "this model looks at texts only")
    return text


def _result(output: dict[str, Any]) -> dict[str, Any]:
    flagged, categories, scores = output.get("flagged"), output.get("categories"), output.get("scores")
    if not isinstance(flagged, bool) or not isinstance(categories, dict) or not isinstance(scores, dict):
        raise ProviderFailed("The provider's answer doesn't say what is flagged; the call is not billed.")
    return {
        "flagged": flagged,
        "categories": categories,
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in categories},
    }
