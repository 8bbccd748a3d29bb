from __future__ import annotations

import base64
import io
import math
import struct
import wave
import zlib
from array import array
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.cli.sentences import HINDI, SENTENCES, URDU
from haat.kernel.errors import EngineFailed, EngineTimeout, InputTooLong, ValidationFailed
from haat.models.hosted import Item
from haat.providers.vani import command, read, speak, translate

SAMPLES = Path(read.__file__).parent / "samples"


# --- translation ------------------------------------------------------------------------------


def hindi_to_urdu(*texts: str) -> list[str]:
    return [output["text"] for output in translate.translate(texts, "hi-Deva", "ur-Arab")]


def test_hindi_becomes_urdu_and_urdu_hindi() -> None:
    assert hindi_to_urdu("आज मौसम बहुत अच्छा है।", "आपका नाम क्या है?") == [
        "آج موسم بہت اچھا ہے۔",
        "آپ کا نام کیا ہے؟",
    ]
    back = translate.translate(["میرا بھائی لاہور میں رہتا ہے۔"], "ur-Arab", "hi-Deva")
    assert back == [{"text": "मेरा भाई लाहौर में रहता है।", "unknown": []}]


def test_unknown_words_stay_and_are_listed() -> None:
    (output,) = translate.translate(["मेरी बहन डॉक्टर है।"], "hi-Deva", "ur-Arab")
    assert output == {"text": "میری بہن डॉक्टर ہے۔", "unknown": ["डॉक्टर"]}


def test_what_is_not_language_comes_back_as_it_was() -> None:
    assert hindi_to_urdu("यह @ [1] {2} <b> \\ ^x$ * 3*4 / 5/6 है\n\nऔर") == [
        "یہ @ [1] {2} <b> \\ ^x$ * 3*4 / 5/6 ہے\n\nاور"
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), min_size=1, max_size=5
    )
)
def test_each_text_gets_its_own_answer(texts: list[str]) -> None:
    # What stands around a text must not depend on what is in it.
    outputs = hindi_to_urdu("पानी ठंडा है।", *texts, "पानी ठंडा है।")
    assert len(outputs) == len(texts) + 2
    assert outputs[0] == outputs[-1] == "پانی ٹھنڈا ہے۔"


def test_no_mark_of_the_engine_is_left_in_the_tours_sentences() -> None:
    for texts, source, target in ((HINDI, "hi-Deva", "ur-Arab"), (URDU, "ur-Arab", "hi-Deva")):
        for output in translate.translate(texts, source, target):
            assert not set(output["text"]) & set("*/#@\\^$")


# --- speech -----------------------------------------------------------------------------------


def loudness(wav: bytes) -> float:
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 22_050)
        samples = array("h", file.readframes(file.getnframes()))
    return math.sqrt(sum(sample * sample for sample in samples) / len(samples))


@pytest.mark.parametrize("tag", [tag for tag in speak.VOICES if tag in SENTENCES])
def test_every_language_is_spoken_aloud(tag: str) -> None:
    wav = speak.speak(SENTENCES[tag][0], tag, "standard", 160, 50)
    assert loudness(wav) > 300
    assert len(wav) > 22_050  # more than half a second


def test_the_wav_header_tells_the_true_length() -> None:
    wav = speak.speak("नमस्ते", "hi-Deva", "standard", 160, 50)
    assert int.from_bytes(wav[4:8], "little") == len(wav) - 8


def test_voice_rate_and_pitch_change_the_sound() -> None:
    plain = speak.speak("नमस्ते, आप कैसे हैं?", "hi-Deva", "standard", 160, 50)
    assert len(speak.speak("नमस्ते, आप कैसे हैं?", "hi-Deva", "standard", 320, 50)) < 0.8 * len(plain)
    assert speak.speak("नमस्ते, आप कैसे हैं?", "hi-Deva", "female", 160, 50) != plain
    assert speak.speak("नमस्ते, आप कैसे हैं?", "hi-Deva", "standard", 160, 90) != plain


def test_a_text_of_options_and_phonemes_is_only_spoken() -> None:
    assert loudness(speak.speak("--version -w /tmp/x [[h@loU]] <b>", "en-Latn", "standard", 160, 50)) > 300


def test_a_text_without_a_sound_is_its_senders_mistake() -> None:
    config = {"language": "hi-Deva", "voice": "standard", "rate": 160, "pitch": 50, "format": "wav"}
    with pytest.raises(ValidationFailed) as raised:
        speak.invoke([Item(text="क"), Item(text="\u200d\u200c")], config)
    assert raised.value.extensions["errors"] == [
        {"field": "input[1].text", "message": "holds nothing that can be spoken"}
    ]


def test_speech_names_its_length_and_is_metered_in_characters() -> None:
    config = {"language": "ta-Taml", "voice": "male", "rate": 160, "pitch": 50, "format": "wav"}
    outputs, units = speak.invoke([Item(text="வணக்கம்"), Item(text="நன்றி")], config)
    assert units == {"characters": Decimal(12)}
    for output in outputs:
        wav = base64.b64decode(output["audio"]["content"])
        assert output["audio"]["seconds"] == pytest.approx((len(wav) - 44) / 44_100, abs=0.001)


# --- text in images ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tag", "text"),
    [
        ("notice-en.png", "en-Latn", "The market opens at six\nevery morning."),
        ("notice-hi.png", "hi-Deva", "आज बाज़ार बंद है।\nकल सुबह आइए।"),
        ("notice-ta.png", "ta-Taml", "கடை காலை ஆறு மணிக்கு\nதிறக்கும்."),
        ("notice-bn.png", "bn-Beng", "আজ দোকান বন্ধ।\nকাল সকালে আসুন।"),
    ],
)
def test_printed_text_is_read(name: str, tag: str, text: str) -> None:
    outputs, units = read.invoke([Item(content=(SAMPLES / name).read_bytes())], {"language": tag, "layout": "block"})
    assert outputs == [{"text": text, "lines": text.splitlines()}]
    assert units == {"images": Decimal(1)}


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


CONFIG = {"language": "en-Latn", "layout": "block"}


def test_a_blank_image_has_no_text() -> None:
    blank = png(200, 80, zlib.compress((b"\0" + b"\xff" * 200) * 80))
    assert read.invoke([Item(content=blank)], CONFIG)[0] == [{"text": "", "lines": []}]


def test_a_small_file_that_would_be_a_huge_image_is_refused() -> None:
    with pytest.raises(InputTooLong) as refusal:
        read.invoke([Item(content=png(60_000, 60_000))], CONFIG)
    assert refusal.value.extensions == {"limit": 12_000_000, "unit": "pixels"}


@pytest.mark.parametrize("content", [b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", png(0, 5), b"/etc/passwd\n"])
def test_what_is_no_image_is_refused_before_the_engine(content: bytes) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        read.invoke([Item(content=content)], CONFIG)
    assert refusal.value.extensions["errors"][0]["field"] == "input[0].image.content"


def test_an_image_that_breaks_off_is_the_engines_failure() -> None:
    with pytest.raises(EngineFailed):
        read.invoke([Item(content=png(100, 100, b"not deflated"))], CONFIG)


def test_the_size_of_a_jpeg_is_read_from_its_frame() -> None:
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc4\x00\x03x\xff\xff\xc2\x00\x0b\x08\x00\x20\x01\x00\x01\x01\x11\x00"
    assert read.image_size(jpeg) == (256, 32)
    assert read.image_size(jpeg[:12]) is None


@given(st.binary(max_size=64))
def test_no_bytes_confuse_the_size_reader(content: bytes) -> None:
    for image in (content, b"\xff\xd8\xff" + content, b"\x89PNG\r\n\x1a\n" + content):
        read.image_size(image)


def test_missing_data_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert read.missing() is None
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    sentence = read.missing()
    assert sentence is not None
    assert "tesseract-ocr-hin" in sentence
    assert "make engines" in sentence


@pytest.mark.parametrize("module", [translate, speak, read])
def test_an_absent_engine_is_missing_with_the_command_that_installs_it(
    module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    sentence = module.missing()  # type: ignore[attr-defined]  # the three modules have it
    assert "make engines" in sentence
    assert "apt-get install" in sentence


def test_a_slow_engine_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "SECONDS", 0.01)
    with pytest.raises(EngineTimeout):
        read.invoke([Item(content=(SAMPLES / "notice-hi.png").read_bytes())], CONFIG)


# --- spoken commands --------------------------------------------------------------------------


def wav(samples: array[int], rate: int = 16_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def clip(phrase: str) -> array[int]:
    with wave.open(str(SAMPLES / f"{phrase.replace(' ', '-')}.wav")) as file:
        return array("h", file.readframes(file.getnframes()))


@pytest.mark.parametrize("phrase", command.DEFAULT_COMMANDS)
def test_a_command_is_recognised(phrase: str) -> None:
    outputs, units = command.invoke([Item(content=wav(clip(phrase)))], {"commands": list(command.DEFAULT_COMMANDS)})
    assert outputs[0]["command"] == phrase
    assert outputs[0]["matched"] is True
    assert units["audio_seconds"] == outputs[0]["seconds"] > Decimal("0.5")


@pytest.mark.parametrize("phrase", ["good morning everybody", "the weather is nice today", "thank you"])
def test_other_speech_is_none_of_the_commands(phrase: str) -> None:
    spoken = speak.speak(phrase, "en-Latn", "standard", 150, 50)
    outputs, _ = command.invoke([Item(content=spoken)], {"commands": list(command.DEFAULT_COMMANDS)})
    assert outputs[0]["command"] is None
    assert outputs[0]["matched"] is False


def test_a_long_silence_makes_nothing_a_command() -> None:
    silence = array("h", [0]) * 48_000
    for sound in (silence, silence + clip("call my mother") + silence):
        command_heard, _ = command.recognise(sound.tobytes(), ["stop", "open the door"])
        assert command_heard is None


def test_stereo_at_another_rate_is_heard_as_well() -> None:
    mono = clip("turn off the light")
    doubled = array("h", (sample for sample in mono for _ in range(4)))  # 32,000 Hz, two channels
    outputs, units = command.invoke(
        [Item(content=wav(doubled, 32_000, 2))], {"commands": ["Turn OFF the light", "stop"]}
    )
    assert outputs[0]["command"] == "turn off the light"
    assert abs(units["audio_seconds"] - Decimal(len(mono)) / 16_000) < Decimal("0.002")


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        (["open; public <x> = stop"], "letters only"),
        (["<NULL>"], "letters only"),
        (["  "], "letters only"),
        (["open the zzyzxq"], "zzyzxq"),
    ],
)
def test_commands_can_not_break_out_of_the_grammar(commands: list[str], message: str) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        command.check_commands(["stop", *commands])
    (error,) = refusal.value.extensions["errors"]
    assert error["field"] == "config.commands[1]"
    assert message in error["message"]


@pytest.mark.parametrize(
    "content", [b"RIFF", b"ID3 not a wav", wav(array("h", [0] * 100), 8_000), wav(array("h", [0] * 90), 16_000, 3)]
)
def test_other_sound_files_are_refused(content: bytes) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        command.invoke([Item(content=content)], {"commands": ["stop"]})
    assert refusal.value.extensions["errors"][0]["field"] == "input[0].audio.content"


def test_a_recording_of_more_than_fifteen_seconds_is_refused() -> None:
    with pytest.raises(InputTooLong) as refusal:
        command.invoke([Item(content=wav(array("h", [0]) * 250_000))], {"commands": ["stop"]})
    assert refusal.value.extensions == {"limit": 15, "unit": "seconds", "input": 0}
