"""``POST /v1/translate``: finds the language, the way, and a service for each pair on it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from haat.gateway.doors.bodies import read_body, wrong_field
from haat.gateway.doors.names import Policy, best, offers, quality_of, subscribed, tag_of
from haat.gateway.doors.native import NativeOperation, check_timeout, run
from haat.gateway.doors.pipeline import Stage
from haat.gateway.doors.visit import Visit
from haat.kernel.errors import UndeterminedLanguage, UnsupportedLanguage
from haat.language import detect, parse_tag

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.snapshot import Service

MOST_PAIRS = 500
ENGLISH_TAG = str(parse_tag("en"))
_encode = msgspec.json.Encoder(decimal_format="number").encode


class _TranslateBody(msgspec.Struct, forbid_unknown_fields=True):
    text: str | list[str]
    target: str
    source: str = ""
    policy: Policy = "price"
    pivot: Literal["never", "allow"] = "never"
    via: str = ""
    timeout_ms: int = 30_000


class Translate(NativeOperation):
    """``POST /v1/translate``: finds the language and a service for the pair, by way of a third language if allowed."""

    name = "haat translate"
    _decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_TranslateBody)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _TranslateBody = read_body(self._decoder, call)
        texts = [asked.text] if isinstance(asked.text, str) else asked.text
        if not texts or not all(text.strip() for text in texts):
            raise wrong_field("text", "must be a text, or a list of texts, none empty")
        check_timeout(asked.timeout_ms)
        source, confidence = tag_of(asked.source), 1.0
        if not source:
            source, confidence = _language_of(texts)
        target = tag_of(asked.target)
        path = _path(gateway, call, source, target, asked.pivot, tag_of(asked.via))
        stages = [_stage(gateway, call, one, other, asked.policy) for one, other in pairwise(path)]

        def make(stages: list[Stage]) -> bytes:
            return _encode(
                {
                    "translations": [output.get("text", "") for output in stages[-1].output],
                    "source": source,
                    "detected": {"confidence": confidence} if not asked.source else None,
                    "target": target,
                    "pivot": [stage.config["source"] for stage in stages[1:]],
                    "stages": [stage.report() for stage in stages],
                }
            )

        run(gateway, call, visit, stages, [{"text": text} for text in texts], asked.timeout_ms * 1000, make)
        return False


def _stage(gateway: Gateway, call: Call, source: str, target: str, policy: Policy) -> Stage:
    """Return the stage that translates a pair, with whom the policy says, and why."""
    pair = f"{source}>{target}"
    found = _translators(gateway, pair)
    service = best(gateway, call, found, policy, pair)
    route = gateway.routes.find(service.path.encode("ascii"))
    stage = Stage(service.slug, route, {"source": source, "target": target})
    stage.reason = {"by": policy, "of": len(subscribed(gateway, call, found))}
    declared = quality_of(service, pair)
    if policy == "quality" and declared is not None:
        stage.reason |= {
            "metric": declared.metric,
            "score": float(declared.score),
            "test_set": declared.test_set,
            "date": declared.date,
        }
    return stage


def _language_of(texts: list[str]) -> tuple[str, float]:
    """Return the language that all these texts are in, and how sure that is; raise UndeterminedLanguage."""
    found = detect("\n".join(texts))
    named = found.best
    if named is None:
        likely = [str(candidate.tag) for candidate in found.candidates[:5]]
        raise UndeterminedLanguage(reason=found.reason, candidates=likely)
    return str(named.tag), round(named.confidence, 4)


def _translators(gateway: Gateway, pair: str) -> list[Service]:
    """Return the services that say they translate a pair."""
    return [
        service
        for service, version in offers(gateway, "translation")
        if version.takes_tasks and pair in version.language_pairs
    ]


def _path(gateway: Gateway, call: Call, source: str, target: str, pivot: str, via: str) -> tuple[str, ...]:
    """Return the languages on the way; a third one only when it is asked for or allowed. Raise UnsupportedLanguage.

    Of third languages those come first that the application is subscribed to both ways for, and English among them.
    """
    if source == target:
        message = f"is the language of the text already: {source}"
        raise wrong_field("target", message)
    pairs: dict[str, list[Service]] = {}
    for service, version in offers(gateway, "translation"):
        if version.takes_tasks:
            for pair in version.language_pairs:
                pairs.setdefault(pair, []).append(service)
    if not via and f"{source}>{target}" in pairs:
        return source, target
    ways = []
    for one in [via] if via else _reached(pairs, source) if pivot == "allow" else []:
        first, second = pairs.get(f"{source}>{one}"), pairs.get(f"{one}>{target}")
        if first and second:
            mine = bool(subscribed(gateway, call, first) and subscribed(gateway, call, second))
            ways.append((not mine, one != ENGLISH_TAG, one))
    if ways:
        return source, min(ways)[2], target
    hint = "" if pivot == "allow" or via else " A third language may help: send `pivot` as `allow`."
    raise UnsupportedLanguage(
        f"Nobody here translates from {source} to {target}: `supported` has the pairs there are.{hint}",
        supported=sorted(pairs)[:MOST_PAIRS],
    )


def _reached(pairs: Iterable[str], source: str) -> list[str]:
    """Return the languages that somebody translates this one into."""
    return [pair.partition(">")[2] for pair in pairs if pair.startswith(f"{source}>")]


OPERATIONS = {(b"POST", b"/v1/translate"): Translate()}
