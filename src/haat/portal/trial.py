"""The try-it form: its fields come from the version's own sample, its call is a real one.

Keys are stored only as hashes, so the form can't use a key the developer already has. It makes one
of the chosen application that lives a quarter of an hour, and keeps it in memory that long.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import PurePath
from typing import Any
from uuid import UUID

import httpx

from haat.catalog.drafts import SampleCall
from haat.catalog.model import TASK_DIALECTS, Listing, Version
from haat.kernel.errors import HaatError
from haat.kernel.money import multiply
from haat.kernel.permissions import Actor
from haat.language.messages import N_, _, _n, gettext
from haat.portal import formats, language_names
from haat.portal.language_names import LanguageName
from haat.portal.snippets import call_url
from haat.portal.visit import Visit

KEY_LIFE = timedelta(minutes=15)
KEY_NAME = N_("Try-it form")
_SPARE = timedelta(minutes=1)
FEED_SECONDS = 4.0  # how long a new key or subscription may take to reach the gateway
FEED_PAUSE = 0.1
NEWS = {"INVALID_CREDENTIAL", "NOT_SUBSCRIBED"}
MESSAGE = "message"
"""The field of a chat."""
_VISITORS_TOKENS = 200
_LANGUAGE_MEMBERS = ("source", "target", "language")
_LABELS = {
    "text": N_("Text"),
    "audio": N_("Audio"),
    "image": N_("Image"),
    "language": N_("Language"),
    "source": N_("Source"),
    "target": N_("Target"),
    "score": N_("Score"),
    "label": N_("Label"),
}
"""What the members of a task are called that many services have; others are called as their provider did."""
_FILES = {"audio": N_("Audio file"), "image": N_("Image file")}
_SOUND = {"wav": "audio/wav", "mp3": "audio/mpeg", "ogg": "audio/ogg", "flac": "audio/flac"}


# --- the form ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Control:
    """A field of the form. ``place`` is where its value goes in the body, e.g. ``input.text``."""

    place: str
    label: str
    kind: str
    value: str = ""
    options: tuple[tuple[str, str], ...] = ()
    accept: str = ""


def controls_of(version: Version) -> list[Control]:
    """Return the fields with which a version is tried, filled in with its sample."""
    sample = SampleCall.model_validate(version.sample)
    if (asked := _last_message(version, sample.body)) is not None:
        return [Control(MESSAGE, _("Your message"), "textarea", asked["content"])]
    if version.dialect not in TASK_DIALECTS or not isinstance(sample.body, dict):
        body = "" if sample.body is None else json.dumps(sample.body, ensure_ascii=False, indent=2)
        return [Control("body", f"{sample.method} {sample.path}", "code", body)]
    controls = [_input(name, value) for name, value in _first_input(sample.body).items()]
    config = sample.body.get("config") or {}
    if version.language_pairs:
        pair = f"{config.get('source')}>{config.get('target')}"
        options = tuple((one, _pair_text(one)) for one in version.language_pairs)
        controls.append(Control("pair", _("From and into"), "select", pair, options))
    for name, value in config.items():
        if name in ("source", "target") and version.language_pairs:
            continue
        if name in _LANGUAGE_MEMBERS and version.languages:
            options = tuple((tag, _language_text(tag)) for tag in version.languages)
            controls.append(Control(f"config.{name}", _label(name), "select", str(value), options))
        elif isinstance(value, str):
            controls.append(Control(f"config.{name}", _label(name), "text", value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            controls.append(Control(f"config.{name}", _label(name), "number", str(value)))
    return [control for control in controls if control.kind]


def _last_message(version: Version, body: Any) -> dict[str, Any] | None:
    """Return the message of a chat's body that is answered, when it is the user's and a text; else None."""
    messages = body.get("messages") if version.dialect == "openai" and isinstance(body, dict) else None
    last = messages[-1] if isinstance(messages, list) and messages else None
    asked = isinstance(last, dict) and last.get("role") == "user" and isinstance(last.get("content"), str)
    return last if asked else None


def streams(version: Version) -> bool:
    """Tell whether a version's answer can be shown as it is made: a chat of the OpenAI protocol."""
    return _last_message(version, SampleCall.model_validate(version.sample).body) is not None


def _first_input(body: dict[str, Any]) -> dict[str, Any]:
    inputs = body.get("input")
    first = inputs[0] if isinstance(inputs, list) and inputs else {}
    return first if isinstance(first, dict) else {}


def _input(name: str, value: Any) -> Control:
    if isinstance(value, str):
        return Control(f"input.{name}", _label(name), "textarea", value)
    if isinstance(value, dict) and "content" in value:
        accept = "image/*" if name == "image" else "audio/*" if name == "audio" else ""
        return Control(f"input.{name}", _file_label(name), "file", accept=accept)
    return Control(f"input.{name}", name, "")


def _label(name: str) -> str:
    return gettext(_LABELS[name]) if name in _LABELS else name.replace("_", " ").capitalize()


def _file_label(name: str) -> str:
    return gettext(_FILES[name]) if name in _FILES else _("%(name)s: a file", name=_label(name))


def _language_text(tag: str) -> str:
    name = language_names.language(tag)
    return name.own if name.own == name.name else f"{name.own} ({name.name})"


def _pair_text(pair: str) -> str:
    return " → ".join(_language_text(tag) for tag in pair.split(">"))


async def body_of(visit: Visit, version: Version, sample: SampleCall, own: bool) -> bytes | None:
    """Return the body to send: the sample with what was typed and chosen in its places.

    At the operator's cost, not the visitor's ``own``, nobody writes raw requests, and a chat's answer stays short.
    """
    body = copy.deepcopy(sample.body)
    if (asked := _last_message(version, body)) is not None:
        asked["content"] = visit.text(MESSAGE) or asked["content"]
        if not own:
            body.setdefault("max_tokens", _VISITORS_TOKENS)
        return json.dumps(body, ensure_ascii=False).encode()
    if version.dialect not in TASK_DIALECTS or not isinstance(sample.body, dict):
        if body is None:
            return None
        return visit.secret("body").encode() if own else json.dumps(body, ensure_ascii=False).encode()
    first, config = _first_input(body), body.setdefault("config", {})
    body["input"] = [first]
    for control in controls_of(version):
        where, _, name = control.place.partition(".")
        if control.kind == "file":
            content, filename = await visit.upload(control.place)
            if content:
                kind = PurePath(filename).suffix.lstrip(".").lower()
                before = first[name].get("format")
                first[name] = {"content": base64.b64encode(content).decode()}
                if before:
                    first[name]["format"] = {"jpg": "jpeg", "": before}.get(kind, kind)
        elif control.place not in visit.form:
            continue
        elif where == "input":
            first[name] = visit.text(control.place)
        elif where == "pair" and ">" in visit.text("pair"):
            config["source"], config["target"] = visit.text("pair").split(">", 1)
        elif where == "config":
            config[name] = _typed(visit.text(control.place), config.get(name))
    return json.dumps(body, ensure_ascii=False).encode()


def _typed(text: str, before: Any) -> Any:
    """Return a number where the sample has one; what is none goes to the service, which says so."""
    if isinstance(before, int | float):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


# --- the answer -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing to show: a text in its language, a sound, or named values."""

    text: str = ""
    language: LanguageName | None = None
    sound: str = ""
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a try. ``cost`` is at list price, in rupees; ``problem`` is why it was refused."""

    ok: bool
    status: int
    milliseconds: float
    request_id: str
    units: tuple[tuple[str, Decimal], ...]
    cost: Decimal | None
    pieces: tuple[Piece, ...]
    raw: str
    title: str = ""
    detail: str = ""
    code: str = ""
    corrections: tuple[tuple[str, str], ...] = ()
    """What to correct: field and message, where the refusal names fields."""
    own: bool = True
    """Whether it is a call of the visitor's own organisation, whose story can be read."""


def read_units(header: str) -> tuple[tuple[str, Decimal], ...]:
    """Return the units in ``X-Haat-Units: characters=120; requests=1``; what is no number is left out."""
    found = []
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        try:
            found.append((name, Decimal(value)))
        except InvalidOperation:
            continue
    return tuple(found)


def _pieces(answer: Any, target: str) -> tuple[Piece, ...]:
    if isinstance(answer, dict) and (said := _said(answer)):
        return (Piece(said),)
    outputs = answer.get("output") if isinstance(answer, dict) else None
    found = []
    for output in outputs if isinstance(outputs, list) else []:
        if not isinstance(output, dict):
            continue
        sound, facts, text = "", [], ""
        for name, value in output.items():
            if isinstance(value, dict) and isinstance(value.get("content"), str):
                kind = _SOUND.get(str(value.get("format", "wav")), "application/octet-stream")
                sound = f"data:{kind};base64,{value['content']}" if kind.startswith("audio/") else ""
            elif name == "text" and isinstance(value, str):
                text = value
            elif isinstance(value, str | int | float | bool):
                facts.append((_label(name), _fact(name, value)))
        tag = target or str(output.get("language", ""))
        found.append(Piece(text, language_names.language(tag) if tag and text else None, sound, tuple(facts)))
    return tuple(found)


def _said(answer: dict[str, Any]) -> str:
    """Return the text of a chat's answer, empty for any other."""
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _fact(name: str, value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if name == "language":
        return _language_text(str(value))
    return value if isinstance(value, str) else formats.number(value)


def read_answer(response: httpx.Response, listing: Listing, seconds: float, target: str) -> Trial:
    """Turn the gateway's answer into what the page shows."""
    try:
        answer = response.json()
        raw = json.dumps(_cut(answer), ensure_ascii=False, indent=2)
    except ValueError:
        answer, raw = None, response.text[:4000]
    units = read_units(response.headers.get("x-haat-units", ""))
    sold = dict(units).get(listing.unit)
    problem = answer if response.status_code >= 400 and isinstance(answer, dict) else {}
    return Trial(
        ok=response.status_code < 400,
        status=response.status_code,
        milliseconds=seconds * 1000,
        request_id=response.headers.get("x-request-id", ""),
        units=units,
        cost=None
        if sold is None or listing.unit_price is None or listing.components
        else multiply(sold, listing.unit_price),
        pieces=_pieces(answer, target),
        raw=raw,
        title=str(problem.get("title", "")) or _("The service refused the call"),
        detail=str(problem.get("detail", "")),
        code=str(problem.get("code", "")),
        corrections=_corrections(problem),
    )


def _corrections(problem: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    errors = problem.get("errors")
    found = [one for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    return tuple((str(one.get("field", "")), str(one.get("message", ""))) for one in found)


def _cut(value: Any) -> Any:
    """Shorten encoded sounds and pictures in what is shown as text."""
    if isinstance(value, dict):
        return {name: _cut(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_cut(one) for one in value]
    if isinstance(value, str) and len(value) > 4000:
        left = {"start": value[:60], "shown": formats.number(len(value))}
        return _n("%(start)s… (%(shown)s letter)", "%(start)s… (%(shown)s letters)", len(value), **left)
    return value


# --- the call ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrialKey:
    """What a call is made with. ``own``: it is a key of the visitor's organisation, which the call is charged to."""

    text: str
    own: bool


@dataclass(slots=True)
class Trials:
    """Makes the calls, and remembers the short-lived keys they are made with."""

    _keys: dict[tuple[UUID | None, UUID], tuple[str, datetime]] = field(default_factory=dict)

    async def call(self, visit: Visit, listing: Listing, version: Version, key: TrialKey) -> Trial:
        """Call the service through the gateway; a gateway that can't be reached is an answer, too."""
        call = await call_of(visit, listing, version, key)
        deadline = time.monotonic() + FEED_SECONDS
        async with httpx.AsyncClient(trust_env=False, timeout=call.timeout) as client:
            while True:
                begun = time.perf_counter()
                try:
                    response = await client.request(call.method, call.url, content=call.content, headers=call.headers)
                except httpx.HTTPError as error:
                    return unreachable(error)
                trial = read_answer(response, listing, time.perf_counter() - begun, call.target)
                if trial.code not in NEWS or time.monotonic() > deadline:
                    return replace(trial, own=key.own)
                await asyncio.sleep(FEED_PAUSE)  # the change feed is still carrying the news to the gateway

    async def key(self, visit: Visit, actor: Actor, application: UUID) -> str:
        """Return a short-lived key of an application, made for ``actor`` and used again while it lives."""
        now = visit.platform.clock.now()
        self._keys = {place: kept for place, kept in self._keys.items() if kept[1] > now + _SPARE}
        kept = self._keys.get((actor.user_id, application))
        if kept:
            return kept[0]
        issued = await visit.platform.identity.create_key(
            actor, application, name=gettext(KEY_NAME), expires_at=now + KEY_LIFE
        )
        self._keys[actor.user_id, application] = issued.key, now + KEY_LIFE
        return issued.key


@dataclass(frozen=True, slots=True)
class GatewayCall:
    """A call as it goes to the gateway; ``timeout`` in seconds, ``target`` the language of what comes back."""

    method: str
    url: str
    content: bytes | None
    headers: dict[str, str]
    target: str
    timeout: float


async def call_of(visit: Visit, listing: Listing, version: Version, key: TrialKey) -> GatewayCall:
    """Return the call that the form asks for. What is typed here is kept by no cache on its way."""
    sample = SampleCall.model_validate(version.sample)
    content = await body_of(visit, version, sample, key.own)
    headers = {
        "Authorization": f"Bearer {key.text}",
        "Accept": "application/json",
        "X-Haat-Tags": "from=portal",
        "Cache-Control": "no-store",
    }
    if content is not None:
        headers["Content-Type"] = "application/json"
    target = visit.text("pair").partition(">")[2] or visit.text("config.target")
    url = call_url(visit.platform.settings.gateway_address, listing, sample)
    return GatewayCall(sample.method, url, content, headers, target, version.timeout_ms / 1000 + 5)


def refused_trial(error: HaatError) -> Trial:
    """Return a refusal of ours as what came of a try."""
    return Trial(
        ok=False,
        status=error.status,
        milliseconds=0,
        request_id="",
        units=(),
        cost=None,
        pieces=(),
        raw="",
        title=error.title,
        detail=error.detail,
        code=error.code,
        corrections=_corrections(error.extensions),
        own=False,
    )


def unreachable(error: httpx.HTTPError) -> Trial:
    return Trial(
        ok=False,
        status=503,
        milliseconds=0,
        request_id="",
        units=(),
        cost=None,
        pieces=(),
        raw="",
        title=_("The gateway did not answer"),
        detail=_("Nothing was billed. Try again in a moment; if it stays so, tell the operator."),
        code=type(error).__name__,
    )
