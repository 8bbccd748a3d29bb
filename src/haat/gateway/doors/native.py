"""Haat's own doors to more than one service: ``/v1/pipelines``, ``/v1/translate``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from haat.gateway import relay
from haat.gateway.doors.names import best, offers, tag_of
from haat.gateway.doors.operation import Operation, read_body
from haat.gateway.doors.pipeline import MOST_STAGES, Pipeline, Stage
from haat.gateway.doors.visit import Visit
from haat.kernel.errors import HaatError, UndeterminedLanguage, UnsupportedLanguage, ValidationFailed
from haat.language import detect, parse_tag
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.snapshot import Service

MOST_PAIRS = 500
ENGLISH_TAG = str(parse_tag("en"))
_encode = msgspec.json.Encoder(decimal_format="number").encode


class NativeOperation(Operation):
    """Refusals are problems (RFC 9457), as at every address of Haat's own."""

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        return b"application/problem+json", _encode(error.problem(request_id))

    def error_event(self, error: HaatError, request_id: str) -> bytes:
        return b"event: error\ndata: %b\n\n" % _encode(error.problem(request_id))


class _Stage(msgspec.Struct, forbid_unknown_fields=True):
    service: str
    config: dict[str, Any] = {}
    name: str = ""


class _PipelineBody(msgspec.Struct, forbid_unknown_fields=True):
    stages: list[_Stage]
    input: list[dict[str, Any]]
    timeout_ms: int = 60_000


class Pipelines(NativeOperation):
    """``POST /v1/pipelines``: several services in a row, each with what the one before it answered."""

    name = "haat pipelines"
    _decoder = msgspec.json.Decoder(_PipelineBody)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _PipelineBody = read_body(self._decoder, call)
        errors = []
        if not 1 <= len(asked.stages) <= MOST_STAGES:
            errors.append({"field": "stages", "message": f"must be a list of 1 to {MOST_STAGES} stages"})
        if not asked.input:
            errors.append({"field": "input", "message": "must be a list with at least one item"})
        if not 100 <= asked.timeout_ms <= 600_000:
            errors.append({"field": "timeout_ms", "message": "must be a whole number from 100 to 600000"})
        if errors:
            raise ValidationFailed(errors=errors)
        stages = []
        for number, stage in enumerate(asked.stages):
            route = gateway.names.find(gateway, call, stage.service)
            if not route.version.takes_tasks:
                message = f"{route.service.path} does not speak the task schema: it can't be a stage"
                raise ValidationFailed(errors=[{"field": f"stages[{number}].service", "message": message}])
            stages.append(Stage(stage.name or route.service.slug, route, stage.config))
        run(gateway, call, visit, stages, asked.input, asked.timeout_ms * 1000, _whole)
        return False


def _whole(stages: list[Stage]) -> dict[str, Any]:
    return {"output": stages[-1].output, "stages": [stage.report() for stage in stages]}


def run(
    gateway: Gateway,
    call: Call,
    visit: Visit,
    stages: list[Stage],
    items: list[dict[str, Any]],
    timeout_us: int,
    answer: Callable[[list[Stage]], dict[str, Any]],
) -> None:
    """Run a pipeline for a call at a door and answer it with what ``answer`` makes of its stages."""

    def done(pipeline: Pipeline, error: HaatError | None) -> None:
        if error is not None:
            relay.refuse(call, error, Outcome.REFUSED)
            return
        visit.answer(call, _encode(answer(pipeline.stages)))

    Pipeline(gateway, call, stages, timeout_us, done).begin(items)


# --- translate ----------------------------------------------------------------------------------


class _TranslateBody(msgspec.Struct, forbid_unknown_fields=True):
    text: str | list[str]
    target: str
    source: str = ""
    policy: Literal["price", "latency"] = "price"
    pivot: Literal["never", "allow"] = "never"
    via: str = ""
    timeout_ms: int = 30_000


class Translate(NativeOperation):
    """``POST /v1/translate``: finds the language and a service for the pair, by way of a third language if allowed."""

    name = "haat translate"
    _decoder = msgspec.json.Decoder(_TranslateBody)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _TranslateBody = read_body(self._decoder, call)
        texts = [asked.text] if isinstance(asked.text, str) else asked.text
        if not texts or not all(text.strip() for text in texts):
            raise ValidationFailed(
                errors=[{"field": "text", "message": "must be a text, or a list of texts, none empty"}]
            )
        source, confidence = tag_of(asked.source), 1.0
        if not source:
            source, confidence = _language_of(texts)
        target = tag_of(asked.target)
        path = _path(gateway, source, target, asked.pivot, tag_of(asked.via))
        stages = []
        for one, other in pairwise(path):
            service = best(gateway, call, _translators(gateway, one, other), asked.policy)
            route = gateway.routes.find(service.path.encode("ascii"))
            stages.append(Stage(service.slug, route, {"source": one, "target": other}))

        def whole(stages: list[Stage]) -> dict[str, Any]:
            return {
                "translations": [output.get("text", "") for output in stages[-1].output],
                "source": source,
                "detected": {"confidence": confidence} if not asked.source else None,
                "target": target,
                "pivot": list(path[1:-1]),
                "stages": [stage.report() for stage in stages],
            }

        run(gateway, call, visit, stages, [{"text": text} for text in texts], asked.timeout_ms * 1000, whole)
        return False


def _language_of(texts: list[str]) -> tuple[str, float]:
    """Return the language that all these texts are in, and how sure that is; raise UndeterminedLanguage."""
    found = detect("\n".join(texts))
    named = found.best
    if named is None:
        likely = [str(candidate.tag) for candidate in found.candidates[:5]]
        raise UndeterminedLanguage(reason=found.reason, candidates=likely)
    return str(named.tag), round(named.confidence, 4)


def _translators(gateway: Gateway, source: str, target: str) -> list[Service]:
    """Return the services that say they translate this pair."""
    wanted = f"{source}>{target}"
    return [
        service
        for service, version in offers(gateway, "translation")
        if version.takes_tasks and wanted in version.language_pairs
    ]


def _path(gateway: Gateway, source: str, target: str, pivot: str, via: str) -> tuple[str, ...]:
    """Return the languages on the way; a third one only when it is asked for or allowed. Raise UnsupportedLanguage."""
    if source == target:
        message = f"is the language of the text already: {source}"
        raise ValidationFailed(errors=[{"field": "target", "message": message}])
    pairs = {pair for _, version in offers(gateway, "translation") for pair in version.language_pairs}
    between = [via]
    if not via:
        if f"{source}>{target}" in pairs:
            return source, target
        reached = {pair.partition(">")[2] for pair in pairs if pair.startswith(f"{source}>")}
        between = sorted(reached, key=lambda tag: (tag != ENGLISH_TAG, tag)) if pivot == "allow" else []
    for one in between:
        if f"{source}>{one}" in pairs and f"{one}>{target}" in pairs:
            return source, one, target
    hint = "" if pivot == "allow" or via else " A third language may help: send `pivot` as `allow`."
    raise UnsupportedLanguage(
        f"Nobody here translates from {source} to {target}: `supported` has the pairs there are.{hint}",
        supported=sorted(pairs)[:MOST_PAIRS],
    )


OPERATIONS = {
    (b"POST", b"/v1/pipelines"): Pipelines(),
    (b"POST", b"/v1/translate"): Translate(),
}
