import io
import math
import struct
import wave
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.errors import ValidationFailed
from haat.models.hosted import Item
from haat.providers.vani import activity
from haat.providers.vani.wav import read_wav

SAMPLES = Path(__file__).parents[2] / "src" / "haat" / "providers" / "vani" / "samples"
SPOKEN = (SAMPLES / "turn-on-the-light.wav").read_bytes()
CONFIG = {"mode": 2, "least_silence": 0.3, "least_speech": 0.09}


def wav(samples: bytes, rate: int = 16_000, channels: int = 1, width: int = 2) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(samples)
    return out.getvalue()


def segments(content: bytes, **config: float) -> list[tuple[float, float]]:
    [output], _ = activity.invoke([Item(content=content, format="wav")], {**CONFIG, **config})
    return [(one["start"], one["end"]) for one in output["segments"]]


def spoken() -> bytes:
    return read_wav(SPOKEN).samples


def silence(seconds: float, rate: int = 16_000) -> bytes:
    return bytes(2 * round(seconds * rate))


def test_two_sentences_with_a_pause_are_two_segments() -> None:
    length = len(spoken()) / 32_000
    both = wav(silence(1) + spoken() + silence(1) + spoken() + silence(1))
    first, second = segments(both)
    for (start, end), begins in ((first, 1), (second, 2 + length)):
        assert start == pytest.approx(begins, abs=0.15)
        assert end == pytest.approx(begins + length, abs=0.15)
    assert len(segments(both, least_silence=5)) == 1
    assert segments(both, least_speech=5) == []


def test_silence_and_a_hum_are_no_speech() -> None:
    assert segments(wav(silence(2))) == []
    hum = b"".join(struct.pack("<h", round(300 * math.sin(2 * math.pi * 50 * at / 16_000))) for at in range(32_000))
    assert segments(wav(hum), mode=3) == []


@pytest.mark.parametrize("factor", [2, 3])
def test_other_rates_are_taken(factor: int) -> None:
    raw = spoken()
    stretched = b"".join(raw[at : at + 2] * factor for at in range(0, len(raw), 2))
    [output], units = activity.invoke([Item(content=wav(stretched, 16_000 * factor), format="wav")], CONFIG)
    assert output["segments"] and units["audio_seconds"] == output["seconds"]
    assert float(output["seconds"]) == pytest.approx(len(raw) / 32_000, abs=0.001)


def test_a_segment_ends_with_the_recording() -> None:
    [(_, end)] = segments(wav(spoken()[:30_000]), least_silence=2)
    assert end <= round(30_000 / 32_000, 3)


def test_a_call_does_not_depend_on_the_one_before() -> None:
    content = wav(silence(0.3) + spoken())
    before = segments(content)
    segments(wav(spoken() * 3))
    assert segments(content) == before


def lying(at: int, change: int) -> bytes:
    """Return a good file with one of its declared lengths changed."""
    content = bytearray(wav(spoken()))
    (length,) = struct.unpack_from("<I", content, at)
    struct.pack_into("<I", content, at, (length + change) % 2**32)
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF",
        b"ID3" + bytes(100),
        lying(4, 2),
        lying(4, -2),
        lying(40, 2),
        lying(40, 1000),
        lying(40, -1001),
        lying(40, -len(spoken())),
        lying(16, 4),
        lying(24, 8_000),
        lying(28, 2),
        wav(spoken())[:-100],
        wav(spoken()) + b"more",
        wav(b""),
        wav(spoken(), 44_100),
        wav(spoken(), channels=2),
        wav(spoken(), width=1),
        wav(spoken(), width=4),
    ],
)
def test_what_is_not_as_it_says_is_refused_with_its_place(content: bytes) -> None:
    items = [Item(content=SPOKEN, format="wav"), Item(content=content, format="wav")]
    with pytest.raises(ValidationFailed) as refusal:
        activity.invoke(items, CONFIG)
    assert refusal.value.status == 422
    [error] = refusal.value.extensions["errors"]
    assert error["field"] == "input[1].audio.content" and error["message"]


@given(st.binary(max_size=200) | st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=8)))
def test_no_bytes_are_too_odd_to_be_refused(given_: bytes | tuple[int, bytes]) -> None:
    if isinstance(given_, bytes):
        content = given_
    else:
        at, patch = given_
        good = wav(spoken()[:2_000])
        content = good[:at] + patch + good[at + len(patch) :]
    try:
        sound = read_wav(content)
    except ValueError as error:
        assert str(error)
    else:
        assert sound.samples and sound.seconds > 0
