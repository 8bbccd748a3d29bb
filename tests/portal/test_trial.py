"""The try-it form is made from the sample, and its answer is read without trust."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from haat.catalog.model import Version
from haat.kernel.ids import new_id
from haat.portal import snippets
from haat.portal.trial import controls_of, read_answer, read_units

from .street import Street


def version(body: Any, **changes: Any) -> Version:
    given: dict[str, Any] = {
        "id": new_id(), "version": "1", "endpoint": "https://api.example.in", "dialect": "task", "languages": (),
        "language_pairs": (), "sample": {"method": "POST", "path": "/invoke", "body": body}, "openapi": None,
        "timeout_ms": 1000, "warm_up_seconds": 1, "health_path": "", "max_body_bytes": 1000, "is_default": True,
        "accepted_at": None, "retired_at": None, "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return Version(**{**given, **changes})


def test_a_text_service_with_directions_gets_a_text_and_one_choice() -> None:
    controls = controls_of(
        version(
            {"input": [{"text": "नमस्ते"}], "config": {"source": "hi-Deva", "target": "ur-Arab"}},
            language_pairs=("hi-Deva>ur-Arab", "ur-Arab>hi-Deva"),
        )
    )
    assert [(control.place, control.kind) for control in controls] == [("input.text", "textarea"), ("pair", "select")]
    assert controls[1].value == "hi-Deva>ur-Arab"
    assert controls[1].options[0][1] == "हिन्दी (Hindi) → اردو (Urdu)"


def test_sound_and_pictures_are_files_and_options_keep_their_kind() -> None:
    controls = controls_of(
        version(
            {"input": [{"image": {"content": "aGk="}}], "config": {"language": "hi-Deva", "dpi": 300, "mode": "fast"}},
            languages=("hi-Deva", "ta-Taml"),
        )
    )
    assert [(control.place, control.kind) for control in controls] == [
        ("input.image", "file"), ("config.language", "select"), ("config.dpi", "number"), ("config.mode", "text"),
    ]  # fmt: skip


def test_a_service_with_its_own_protocol_is_tried_with_its_own_body() -> None:
    controls = controls_of(version({"q": 1}, dialect="http"))
    assert [(control.place, control.kind, json.loads(control.value)) for control in controls] == [
        ("body", "code", {"q": 1})
    ]


@pytest.mark.parametrize(
    ("header", "units"),
    [
        ("characters=120", (("characters", Decimal(120)),)),
        ("characters=120; requests=1", (("characters", Decimal(120)), ("requests", Decimal(1)))),
        ("", ()),
        ("characters=many", ()),
    ],
)
def test_units_are_read_and_nonsense_is_left_out(header: str, units: object) -> None:
    assert read_units(header) == units


async def test_an_answer_shows_its_text_in_its_language_and_its_price(street: Street) -> None:
    listing = street.listings[0]
    answer = httpx.Response(
        200,
        json={"output": [{"text": "آپ کیسے ہیں؟", "score": 0.5}]},
        headers={"X-Haat-Units": "characters=12", "X-Request-ID": "abc"},
    )
    trial = read_answer(answer, listing, 0.02, "ur-Arab")
    assert trial.ok and trial.cost == Decimal("0.0024")
    piece = trial.pieces[0]
    assert piece.text == "آپ کیسے ہیں؟" and piece.language is not None and piece.language.direction == "rtl"
    assert piece.facts == (("Score", "0.5"),)


async def test_only_sound_becomes_a_player_and_a_strange_answer_is_shown_as_it_is(street: Street) -> None:
    listing = street.listings[0]
    sound = read_answer(
        httpx.Response(200, json={"output": [{"audio": {"content": "UklG", "format": "wav"}}]}), listing, 0.1, ""
    )
    page = read_answer(
        httpx.Response(200, json={"output": [{"audio": {"content": "PGI+", "format": "html"}}]}), listing, 0.1, ""
    )
    strange = read_answer(httpx.Response(200, text="<b>no json</b>"), listing, 0.1, "")
    assert sound.pieces[0].sound == "data:audio/wav;base64,UklG"
    assert page.pieces[0].sound == ""
    assert strange.pieces == () and strange.raw == "<b>no json</b>"


async def test_a_refusal_keeps_the_gateways_own_words(street: Street) -> None:
    problem = {"title": "Too many requests", "detail": "Wait for the seconds in Retry-After.", "code": "RATE_LIMITED"}
    trial = read_answer(httpx.Response(429, json=problem), street.listings[0], 0.1, "")
    assert (trial.ok, trial.title, trial.code) == (False, "Too many requests", "RATE_LIMITED")


async def test_snippets_quote_whatever_a_provider_wrote(street: Street) -> None:
    hostile = version({"input": [{"text": "it's $HOME `id`"}]})
    texts = {one.name: one.text for one in snippets.all_of("http://gw", street.listings[0], hostile)}
    assert "'\"'\"'" in texts["curl"]
    compile(texts["python"], "snippet", "exec")
    assert '"it\'s $HOME `id`"' in texts["javascript"]


async def test_a_refusal_that_names_fields_says_which(street: Street) -> None:
    problem = {"title": "Some fields need correcting", "errors": [{"field": "input[0].text", "message": "is empty"}]}
    trial = read_answer(httpx.Response(422, json=problem), street.listings[0], 0.1, "")
    assert trial.corrections == (("input[0].text", "is empty"),)
    nonsense = read_answer(httpx.Response(422, json={"errors": ["x", 1]}), street.listings[0], 0.1, "")
    assert nonsense.corrections == ()
