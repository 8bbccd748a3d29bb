"""What the small recogniser makes of recordings: rough words, at their times, and nothing where nobody speaks."""

from __future__ import annotations

from array import array
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest

from haat.kernel.errors import InputTooLong
from haat.models.hosted import Item
from haat.providers.vani import dictation, sound, speak
from haat.providers.vani.wav import read_wav

SAMPLES = resources.files("haat.providers.vani").joinpath("samples")
MOTHER = read_wav(SAMPLES.joinpath("call-my-mother.wav").read_bytes()).samples
STOP = read_wav(SAMPLES.joinpath("stop.wav").read_bytes()).samples
PAUSE = bytes(2 * 16_000)


def wav(samples: bytes) -> bytes:
    return sound.wav_of(samples, 16_000)


def dictate(content: bytes) -> dict[str, Any]:
    [output], units = dictation.invoke([Item(content=content)], {"language": "en-Latn"})
    assert units == {"audio_seconds": output["seconds"]}
    return output


def test_words_are_written_down() -> None:
    output = dictate(wav(MOTHER))
    assert output["text"] == "all my mother"  # said was: call my mother
    assert output["seconds"] == Decimal("1.150")


def test_what_is_said_after_a_pause_is_a_segment_of_its_own() -> None:
    output = dictate(wav(MOTHER + PAUSE + STOP + PAUSE))
    first, second = output["segments"]
    assert output["text"] == f"{first['text']} {second['text']}"
    assert (first["start"], first["end"]) == (pytest.approx(0.03, abs=0.1), pytest.approx(1.15, abs=0.2))
    assert (second["start"], second["end"]) == (pytest.approx(2.15, abs=0.2), pytest.approx(2.8, abs=0.3))


def test_where_nobody_speaks_there_are_no_words() -> None:
    hum = array("h", (300 if at // 160 % 2 else -300 for at in range(32_000))).tobytes()  # 50 Hz
    for samples in (PAUSE, hum):
        output = dictate(wav(samples))
        assert (output["text"], output["segments"]) == ("", [])


def test_a_call_does_not_depend_on_the_one_before() -> None:
    before = dictate(wav(MOTHER))
    dictate(wav(STOP * 3))
    assert dictate(wav(MOTHER)) == before


@pytest.mark.parametrize("form", ["flac", "mp3", "opus"])
def test_an_encoded_recording_is_heard_as_well(form: str) -> None:
    content, _ = sound.encode(MOTHER, 16_000, form)
    output = dictate(content)
    assert "mother" in output["text"]
    assert float(output["seconds"]) == pytest.approx(1.15, abs=0.15)


def test_sentences_of_a_synthetic_voice_give_some_of_their_words() -> None:
    said = "my brother works at the post office and the train was two hours late"
    heard = dictate(speak.speak(said, "en-Latn", "standard", 150, 50))["text"]
    assert len(set(said.split()) & set(heard.split())) >= 4


def test_a_recording_of_more_than_a_minute_is_refused() -> None:
    with pytest.raises(InputTooLong) as raised:
        dictate(wav(bytes(2 * 16_000 * 61)))
    assert raised.value.extensions == {"limit": 60, "unit": "seconds", "input": 0}
