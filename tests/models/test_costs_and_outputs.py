"""What inputs cost, what calls are charged for, and what outputs may be."""

from __future__ import annotations

import io
import math
import wave
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.errors import EngineFailed, InputTooLong
from haat.models import costs, wire
from haat.models.hosted import Unit
from haat.models.manifest import Batching, Listing, Manifest
from haat.models.outputs import problem_of
from haat.models.runtimes.port import Input


def sound(seconds: float, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(b"\0\0" * int(seconds * rate))
    return file.getvalue()


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_a_wav_says_how_long_it_is(rate: int) -> None:
    assert costs.audio_seconds(sound(2.5, rate)) == pytest.approx(2.5, abs=0.001)


def test_of_other_sounds_the_size_tells() -> None:
    assert costs.audio_seconds(b"ID3" + bytes(31_997)) == 2.0


@given(st.binary(max_size=200), st.booleans())
def test_no_content_is_too_strange_to_have_a_length(content: bytes, as_wav: bool) -> None:
    given = (b"RIFF\0\0\0\0WAVE" if as_wav else b"") + content
    assert 0 <= costs.audio_seconds(given) < math.inf


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("requests", "1"),
        ("characters", "7"),
        ("graphemes", "6"),
        ("bytes", "15"),
        ("images", "2"),
        ("pages", "2"),
        ("tokens", "12"),
        ("compute_seconds", "0.25"),
    ],
)
def test_a_call_is_charged_in_the_unit_of_its_listing(unit: Unit, expected: str) -> None:
    manifest = Manifest(name="m", runtime="python", entry="m:M", listing=Listing(unit=unit))
    inputs = [Input("नमस्"), Input("abc")]
    outputs = [{"text": "a", "tokens": 5}, {"text": "b", "tokens": 7}]
    assert costs.used(manifest, inputs, outputs, 0.25)[unit] == Decimal(expected)


def test_seconds_are_those_of_the_sound_given_or_made() -> None:
    manifest = Manifest(name="m", runtime="python", entry="m:M", listing=Listing(unit="audio_seconds"))
    heard = costs.used(manifest, [Input(content=sound(1.5))], [{"text": "a"}], 0)
    assert heard == {"audio_seconds": Decimal("1.5")}
    spoken = costs.used(manifest, [Input("a")], [{"audio": {}, "audio_seconds": 2.25}], 0)
    assert spoken == {"audio_seconds": Decimal("2.25")}


def test_costs_and_groups_are_as_the_manifest_says() -> None:
    text = Input("abc", "de", config={"language": "hi-Deva"})
    assert costs.cost(Batching(), text) == 1
    assert costs.cost(Batching(cost="characters"), text) == 5
    assert costs.cost(Batching(cost="audio_seconds"), Input(content=sound(2))) == pytest.approx(2)
    by_language = Batching(group_by=("language",))
    assert costs.group(by_language, text) == costs.group(by_language, Input("x", config={"language": "hi-Deva"}))
    assert costs.group(by_language, text) != costs.group(by_language, Input("x", config={"language": "ta-Taml"}))
    by_length = Batching(group_by=("length",))
    assert costs.group(by_length, Input("a" * 5)) != costs.group(by_length, Input("a" * 100))


@pytest.mark.parametrize(
    ("output", "part"),
    [
        (7, "not an object"),
        (None, "not an object"),
        ({"a": math.nan}, "output.a is nan"),
        ({"a": [1.0, -math.inf]}, "output.a[1] is -inf"),
        ({"a": [0.0, {"b": math.inf}]}, "output.a[1].b is inf"),
        ({"a": "\ud800"}, "surrogate"),
        ({1: "a"}, "not a text"),
        ({"\ud800": "a"}, "not a text"),
        ({"a": object()}, "output.a is of the type object"),
        ({"a": {1, 2}}, "set"),
        ({"a": 1 << 70}, "64 bits"),
        ({"a": 1j}, "complex"),
    ],
)
def test_what_json_can_not_say_is_named(output: Any, part: str) -> None:
    assert part in problem_of(output)


def test_what_is_nested_without_end_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    assert "too deeply" in problem_of(endless)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=5), plain, max_size=4))
def test_what_is_let_through_arrives_and_can_be_written(output: dict[str, Any]) -> None:
    assert problem_of(output) == ""
    message = wire.frame(["outputs", [output], {}, 0.5])
    assert msgspec.msgpack.decode(message[wire.HEADER.size :])[1] == [output]
    msgspec.json.encode(output)


@given(st.lists(st.floats(), min_size=1))
def test_a_vector_is_let_through_if_all_of_it_are_numbers(vector: list[float]) -> None:
    assert (problem_of({"vector": vector}) == "") == all(map(math.isfinite, vector))


def test_errors_arrive_as_what_they_were() -> None:
    error = wire.read_error(wire.error_fields(InputTooLong("Too long.", limit=3)))
    assert (type(error), error.detail, error.extensions) == (InputTooLong, "Too long.", {"limit": 3})
    assert type(wire.read_error(["NOBODY_KNOWS", "x", {}])) is EngineFailed
    told = {"status": 200, "title": "Fine", "detail": "Fine", "self": 1, "limit": 3}
    assert wire.read_error(["INPUT_TOO_LONG", "x", told]).extensions == {"limit": 3}
    for unsayable in ({None: 1}, {"x": {None: 1}}, {"x": math.nan}, {"x": "\ud800"}, [], 7, None):
        assert wire.read_error(["INPUT_TOO_LONG", "x", unsayable]).extensions == {}


def test_a_message_that_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="too many"):
        wire.frame([bytes(101)])
