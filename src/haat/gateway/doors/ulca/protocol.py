"""How ULCA's answers look, good ones and refusals."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.doors.answers import read_task_answer
from haat.gateway.doors.operation import Operation
from haat.gateway.doors.visit import reply
from haat.kernel.errors import HaatError

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.doors.visit import Visit
    from haat.gateway.http.answers import Whole

encode = msgspec.json.Encoder(decimal_format="number").encode


class UlcaOperation(Operation):
    """What all of them share: how a refusal looks. Clients read ``message`` or ``detail.message``."""

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        return b"application/json", encode(refusal(error, request_id))


def refusal(error: HaatError, request_id: str) -> dict[str, Any]:
    """Return the body of a refusal: the sentence twice, for two kinds of clients, and all that is known beside it."""
    errors = _in_their_words(error)
    message = "; ".join(f"{one['field']}: {one['message']}" for one in errors) if errors else error.detail
    stage = error.extensions.get("stage")
    said = {**error.extensions, "errors": errors} if errors else error.extensions
    if errors and stage:
        message = f"Stage {stage['number']} ({stage['name']}): {message}"
    detail = {**said, "message": message, "code": error.code}
    return {"code": error.code, "message": message, "detail": detail, "request_id": request_id}


_FIELDS = (
    (re.compile(r"input(\[\d+\])\.audio\.content"), r"audio\1.audioContent"),
    (re.compile(r"input(\[\d+\])\.audio\.format|config\.format"), "config.audioFormat"),
    (re.compile(r"input(\[\d+\])\.image\.content"), r"image\1.imageContent"),
    (re.compile(r"input(\[\d+\])\.text"), r"input\1.source"),
)
"""Fields of the task schema, and those that they were made of."""


def _in_their_words(error: HaatError) -> list[dict[str, str]]:
    """Return which fields are wrong; of a service that got what the caller sent, by the caller's names."""
    errors: list[dict[str, str]] = error.extensions.get("errors") or []
    if error.extensions.get("stage", {}).get("number", 1) > 1:
        return errors
    return [{**one, "field": _their_name(one["field"])} for one in errors]


def _their_name(field: str) -> str:
    for ours, theirs in _FIELDS:
        if ours.fullmatch(field):
            return ours.sub(theirs, field)
    return field


class ChainOperation(UlcaOperation):
    """An operation whose answer is made of what its tasks answer."""

    def leave(self, call: Call, visit: Visit, answer: Whole) -> None:
        outputs, _ = read_task_answer(answer)
        reply(answer, visit.asked.body(outputs))
