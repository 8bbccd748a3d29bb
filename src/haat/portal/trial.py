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
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import PurePath
from typing import Any
from uuid import UUID

import httpx

from haat.catalog.drafts import SampleCall
from haat.catalog.model import TASK_DIALECTS, Listing, Version
from haat.kernel.money import multiply
from haat.portal import formats
from haat.portal.snippets import call_url
from haat.portal.visit import Visit
from haat.subscriptions.model import Subscription

KEY_LIFE = timedelta(minutes=15)
KEY_NAME = "Try-it form"
_SPARE = timedelta(minutes=1)
_FEED_SECONDS = 4.0  # how long a new key or subscription may take to reach the gateway
_FEED_PAUSE = 0.1
_NEWS = {"INVALID_CREDENTIAL", "NOT_SUBSCRIBED"}
_LANGUAGE_MEMBERS = ("source", "target", "language")
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
    if version.dialect not in TASK_DIALECTS or not isinstance(sample.body, dict):
        body = "" if sample.body is None else json.dumps(sample.body, ensure_ascii=False, indent=2)
        return [Control("body", f"{sample.method} {sample.path}", "code", body)]
    controls = [_input(name, value) for name, value in _first_input(sample.body).items()]
    config = sample.body.get("config") or {}
    if version.language_pairs:
        pair = f"{config.get('source')}>{config.get('target')}"
        options = tuple((one, _pair_text(one)) for one in version.language_pairs)
        controls.append(Control("pair", "From and into", "select", pair, options))
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


def _first_input(body: dict[str, Any]) -> dict[str, Any]:
    inputs = body.get("input")
    first = inputs[0] if isinstance(inputs, list) and inputs else {}
    return first if isinstance(first, dict) else {}


def _input(name: str, value: Any) -> Control:
    if isinstance(value, str):
        return Control(f"input.{name}", _label(name), "textarea", value)
    if isinstance(value, dict) and "content" in value:
        accept = "image/*" if name == "image" else "audio/*" if name == "audio" else ""
        return Control(f"input.{name}", f"{_label(name)} file", "file", accept=accept)
    return Control(f"input.{name}", name, "")


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _language_text(tag: str) -> str:
    name = formats.language(tag)
    return name.own if name.own == name.english else f"{name.own} ({name.english})"


def _pair_text(pair: str) -> str:
    return " → ".join(_language_text(tag) for tag in pair.split(">"))


async def body_of(visit: Visit, version: Version, sample: SampleCall) -> bytes | None:
    """Return the body to send: the sample with what was typed and chosen in its places."""
    if version.dialect not in TASK_DIALECTS or not isinstance(sample.body, dict):
        return visit.secret("body").encode() if sample.body is not None else None
    body = copy.deepcopy(sample.body)
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
    language: formats.LanguageName | None = None
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
        found.append(Piece(text, formats.language(tag) if tag and text else None, sound, tuple(facts)))
    return tuple(found)


def _fact(name: str, value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
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
        title=str(problem.get("title", "The service refused the call")),
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
    return (
        f"{value[:60]}… ({formats.number(len(value))} letters)"
        if isinstance(value, str) and len(value) > 4000
        else value
    )


# --- the call ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Trials:
    """Makes the calls, and remembers the short-lived keys they are made with."""

    _keys: dict[tuple[UUID | None, UUID], tuple[str, datetime]] = field(default_factory=dict)

    async def call(self, visit: Visit, listing: Listing, version: Version, subscription: Subscription) -> Trial:
        """Call the service through the gateway; a gateway that can't be reached is an answer, too."""
        sample = SampleCall.model_validate(version.sample)
        content = await body_of(visit, version, sample)
        key = await self._key(visit, subscription.application_id)
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json", "X-Haat-Tags": "from=portal"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        url = call_url(visit.platform.settings.gateway_address, listing, sample)
        target = visit.text("pair").partition(">")[2] or visit.text("config.target")
        deadline = time.monotonic() + _FEED_SECONDS
        async with httpx.AsyncClient(trust_env=False, timeout=version.timeout_ms / 1000 + 5) as client:
            while True:
                begun = time.perf_counter()
                try:
                    response = await client.request(sample.method, url, content=content, headers=headers)
                except httpx.HTTPError as error:
                    return _unreachable(error)
                seconds = time.perf_counter() - begun
                trial = read_answer(response, listing, seconds, target)
                if trial.code not in _NEWS or time.monotonic() > deadline:
                    return trial
                await asyncio.sleep(_FEED_PAUSE)  # the change feed is still carrying the news to the gateway

    async def _key(self, visit: Visit, application: UUID) -> str:
        actor, now = visit.require_actor(), visit.platform.clock.now()
        self._keys = {place: kept for place, kept in self._keys.items() if kept[1] > now + _SPARE}
        kept = self._keys.get((actor.user_id, application))
        if kept:
            return kept[0]
        issued = await visit.platform.identity.create_key(actor, application, name=KEY_NAME, expires_at=now + KEY_LIFE)
        self._keys[actor.user_id, application] = issued.key, now + KEY_LIFE
        return issued.key


def _unreachable(error: httpx.HTTPError) -> Trial:
    return Trial(
        ok=False,
        status=503,
        milliseconds=0,
        request_id="",
        units=(),
        cost=None,
        pieces=(),
        raw="",
        title="The gateway did not answer",
        detail="Nothing was billed. Try again in a moment; if it stays so, tell the operator.",
        code=type(error).__name__,
    )
