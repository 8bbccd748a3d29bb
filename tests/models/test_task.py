from __future__ import annotations

import base64
import dataclasses
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.errors import HaatError, InputTooLong, MalformedJson, UnsupportedLanguage, ValidationFailed
from haat.models.hosted import HostedService, Item, Option
from haat.models.task import parse_call
from haat.plugins.manager import hosted_services

SERVICES = hosted_services()
TRANSLITERATE = SERVICES["akshara/transliterate"]
SPEAK = SERVICES["vani/text-to-speech"]
READ = SERVICES["vani/ocr"]
SIMILARITY = SERVICES["akshara/text-similarity"]
COMMAND = SERVICES["vani/spoken-command"]


def parse(service: HostedService, call: Any) -> tuple[list[Item], dict[str, Any]]:
    return parse_call(service, json.dumps(call).encode())


def fields(service: HostedService, call: Any) -> list[str]:
    with pytest.raises(ValidationFailed) as refusal:
        parse(service, call)
    return [error["field"] for error in refusal.value.extensions["errors"]]


@pytest.mark.parametrize("path", SERVICES)
def test_every_sample_is_a_proper_call(path: str) -> None:
    service = SERVICES[path]
    items, config = parse(service, dict(service.sample))
    assert len(items) == len(service.sample["input"])
    assert {option.name for option in service.options} <= config.keys()


def test_languages_become_tags_and_options_get_their_defaults() -> None:
    items, config = parse(TRANSLITERATE, {"input": [{"text": "नमस्ते"}], "config": {"source": "hi", "target": "TE_telu"}})
    assert items == [Item(text="नमस्ते")]
    assert config == {"source": "hi-Deva", "target": "te-Telu", "scheme": "iso"}


def test_the_only_language_need_not_be_named() -> None:
    assert parse(SERVICES["akshara/sentiment"], {"input": [{"text": "fine"}]})[1] == {"language": "en-Latn"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"{'input': 1}", b'{"input": NaN}', b"[" * 100_000, b'"\\ud800"']
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse_call(SPEAK, body)


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        ([], [""]),
        ({}, ["config.language", "input"]),
        ({"input": [], "config": {"language": "hi"}}, ["input"]),
        ({"input": "text", "config": []}, ["config", "input"]),
        ({"input": [{"text": "a"}], "config": {"language": "hi"}, "extra": 1}, ["extra"]),
        ({"input": ["a", {"text": 5}, {"text": "  "}, {}], "config": {"language": "hi"}},
         ["input[0]", "input[1].text", "input[2].text", "input[3].text"]),
        ({"input": [{"text": "a", "lang": "hi"}], "config": {"language": "hi"}}, ["input[0].lang"]),
        ({"input": [{"text": "a\x00"}], "config": {"language": "hi"}}, ["input[0].text"]),
        ({"input": [{"text": "a"}] * 5, "config": {"language": "hi"}}, ["input"]),
        ({"input": [{"text": "a"}], "config": {"language": 7}}, ["config.language"]),
        ({"input": [{"text": "a"}], "config": {"language": "hi", "rate": 79}}, ["config.rate"]),
        ({"input": [{"text": "a"}], "config": {"language": "hi", "rate": True}}, ["config.rate"]),
        ({"input": [{"text": "a"}], "config": {"language": "hi", "rate": 160.5}}, ["config.rate"]),
        ({"input": [{"text": "a"}], "config": {"language": "hi", "voice": "whisper"}}, ["config.voice"]),
        ({"input": [{"text": "a"}], "config": {"language": "hi", "voice": ["male"]}}, ["config.voice"]),
        ({"input": [{"text": "a"}], "config": {"language": "hi", "speed": 1}}, ["config.speed"]),
    ],
)  # fmt: skip
def test_every_wrong_field_is_named(call: Any, wrong: list[str]) -> None:
    assert fields(SPEAK, call) == wrong


@pytest.mark.parametrize(
    ("image", "wrong"),
    [
        ({"content": "not base64!"}, "input[0].image.content"),
        ({"content": "नमस्ते"}, "input[0].image.content"),
        ({"content": ""}, "input[0].image.content"),
        ({"content": None}, "input[0].image.content"),
        ({}, "input[0].image.content"),
        ({"content": "aGk=", "format": "gif"}, "input[0].image.format"),
        ({"content": "aGk=", "format": {}}, "input[0].image.format"),
        ({"content": "aGk=", "url": "http://127.0.0.1"}, "input[0].image.url"),
        ("aGk=", "input[0].image"),
    ],
)
def test_content_must_be_base64_of_a_known_format(image: Any, wrong: str) -> None:
    assert fields(READ, {"input": [{"image": image}], "config": {"language": "en"}}) == [wrong]


def test_content_is_decoded_and_the_format_has_a_default() -> None:
    content = base64.b64encode(b"picture").decode()
    items, _ = parse(READ, {"input": [{"image": {"content": content}}], "config": {"language": "bn"}})
    assert items == [Item(content=b"picture", format="png")]


def test_a_pair_needs_both_texts() -> None:
    assert fields(SIMILARITY, {"input": [{"text": "a"}]}) == ["input[0].other"]


@pytest.mark.parametrize("commands", [[], ["x"] * 51, "stop", [1], [""], ["x" * 201]])
def test_a_list_of_texts_is_bounded(commands: Any) -> None:
    call = {"input": [{"audio": {"content": "aGk="}}], "config": {"commands": commands}}
    assert fields(COMMAND, call) == ["config.commands"]


def test_an_option_of_text_or_number_is_bounded() -> None:
    options = (Option("name", "text", "", "x", least=1, most=3), Option("share", "number", "", 0.5, least=0, most=1))
    service = dataclasses.replace(SIMILARITY, options=options)
    call = {"input": [{"text": "a", "other": "b"}], "config": {"name": "long one", "share": 1.5}}
    assert fields(service, call) == ["config.name", "config.share"]
    call["config"] = {"name": "abc", "share": 1}
    assert parse(service, call)[1] == {"name": "abc", "share": 1}


@pytest.mark.parametrize(
    ("service", "config"),
    [
        (SPEAK, {"language": "kok"}),
        (SPEAK, {"language": "sd-Deva"}),
        (SPEAK, {"language": "klingon"}),
        (TRANSLITERATE, {"source": "bn", "target": "hi"}),
        (TRANSLITERATE, {"source": "hi", "target": "mr"}),
    ],
)
def test_an_unsupported_language_is_refused_with_those_that_are(service: HostedService, config: dict[str, str]) -> None:
    with pytest.raises(UnsupportedLanguage) as refusal:
        parse(service, {"input": [{"text": "a"}], "config": config})
    assert refusal.value.extensions["supported"] == list(service.languages or service.language_pairs)


def test_a_plugin_may_offer_languages_beyond_ours() -> None:
    service = dataclasses.replace(SPEAK, languages=("fr-Latn", "hi-Deva"))
    assert parse(service, {"input": [{"text": "a"}], "config": {"language": "fr-Latn"}})[1]["language"] == "fr-Latn"


@pytest.mark.parametrize(
    ("service", "call", "extensions"),
    [
        (
            SPEAK,
            {"input": [{"text": "a"}, {"text": "अ" * 401}], "config": {"language": "hi"}},
            {"limit": 400, "unit": "characters", "input": 1},
        ),
        (
            SIMILARITY,
            {"input": [{"text": "a", "other": "b" * 2001}]},
            {"limit": 2000, "unit": "characters", "input": 0},
        ),
        (
            READ,
            {
                "input": [{"image": {"content": base64.b64encode(bytes(2_000_001)).decode()}}],
                "config": {"language": "en"},
            },
            {"limit": 2_000_000, "unit": "bytes", "input": 0},
        ),
    ],
)
def test_a_long_input_is_refused_with_the_limit(service: HostedService, call: Any, extensions: dict[str, Any]) -> None:
    with pytest.raises(InputTooLong) as refusal:
        parse(service, call)
    assert refusal.value.extensions == extensions


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["input", "config", "text", "other", "image", "content", "language", "rate"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from(sorted(SERVICES)))
def test_any_json_is_a_call_or_a_refusal(call: Any, path: str) -> None:
    try:
        items, _ = parse(SERVICES[path], call)
    except HaatError as refusal:
        assert refusal.status in (400, 422)
        return
    assert 1 <= len(items) <= SERVICES[path].max_inputs


@pytest.mark.parametrize("path", SERVICES)
def test_the_largest_proper_call_fits_the_body_limit(path: str) -> None:
    service = SERVICES[path]
    assert service.max_body_bytes <= 10 * 1024 * 1024  # what the gateway takes
    if service.max_bytes:
        largest: Any = {service.kind: {"content": "A" * (-(-service.max_bytes // 3) * 4), "format": service.formats[0]}}
    else:
        largest = {"text": "😀" * service.max_characters} | (
            {"other": "😀" * service.max_characters} if service.kind == "text_pair" else {}
        )
    assert len(json.dumps({"input": [largest] * service.max_inputs})) <= service.max_body_bytes


@pytest.mark.parametrize(
    "changes",
    [{"max_inputs": 0}, {"max_inputs": 101}, {"unit_price": Decimal(-1)}, {"unit_price": 0.1}, {"kind": "image"}],
)
def test_a_service_that_contradicts_itself_can_not_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="akshara/text-similarity"):
        dataclasses.replace(SIMILARITY, **changes)
