"""Recordings of every format in, sounds of every format out, and whatever is neither."""

from __future__ import annotations

import io
import math
import subprocess
import wave
from array import array
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.kernel.errors import EngineMissing, InputTooLong, ValidationFailed
from haat.models.hosted import Item
from haat.providers.vani import sound
from haat.providers.vani.wav import Wav, read_wav

RATE = 16_000
MOST = 20
KINDS = {"mp3": "mp3", "opus": "ogg", "aac": "aac", "flac": "flac"}
"""What each encoded format is, seen from its first bytes."""


def tone(seconds: float, rate: int = RATE, pitch: float = 440.0) -> bytes:
    """Return samples that are loud for the whole time."""
    return array(
        "h", (round(9000 * math.sin(math.tau * pitch * at / rate)) for at in range(int(seconds * rate)))
    ).tobytes()


def wav(samples: bytes, rate: int = RATE, channels: int = 1, width: int = 2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(channels)
        made.setsampwidth(width)
        made.setframerate(rate)
        made.writeframes(samples)
    return file.getvalue()


def heard(content: bytes, rate: int = RATE) -> Wav:
    [found] = sound.recordings([Item(content=content)], rate, MOST, lambda given: sound.mono(given, rate))
    return found


def refusal(content: bytes) -> str:
    with pytest.raises(ValidationFailed) as raised:
        heard(content)
    [error] = raised.value.extensions["errors"]
    assert error["field"] == "input[0].audio.content"
    return str(error["message"])


def made_by_ffmpeg(*arguments: str, seconds: float = 1.0) -> bytes:
    """Return a file as another program makes it."""
    source = ["-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}:sample_rate=44100"]
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", *source, *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout


def pitch_of(found: Wav) -> float:
    samples = array("h", found.samples)
    rising = sum(before < 0 <= after for before, after in pairwise(samples))
    return rising / found.seconds


# --- there and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", KINDS)
def test_what_is_encoded_can_be_heard_again(form: str) -> None:
    content, rate = sound.encode(tone(1.0, 22_050), 22_050, form)
    assert (sound.kind_of(content), rate) == (KINDS[form], 24_000 if form == "opus" else 22_050)
    assert len(content) < 33_000
    found = heard(content)
    assert found.seconds == pytest.approx(1.0, abs=0.12)  # MP3 and AAC have frames, and begin with silence
    assert pitch_of(found) == pytest.approx(440, rel=0.15)


def test_bare_samples_come_at_the_rate_that_programs_expect() -> None:
    content, rate = sound.encode(tone(1.0, 22_050), 22_050, "pcm")
    assert (len(content), rate) == (pytest.approx(48_000, abs=200), 24_000)


@pytest.mark.parametrize("form", [*KINDS, "pcm"])
def test_the_same_sound_is_encoded_the_same_every_time(form: str) -> None:
    assert sound.encode(tone(0.3), RATE, form) == sound.encode(tone(0.3), RATE, form)


def test_the_length_of_an_encoded_file_is_in_its_head() -> None:
    content, _ = sound.encode(tone(1.0, 22_050), 22_050, "flac")
    total = int.from_bytes(content[21:26], "big") & 0xFFFFFFFFF  # STREAMINFO: 36 bits
    assert total == 22_050


MADE = {
    "an MP3 file of two channels at 44,100 Hz": ["-ac", "2", "-f", "mp3", "-"],
    "an MP3 stream without a head": ["-write_xing", "0", "-id3v2_version", "0", "-f", "mp3", "-"],
    "Vorbis in Ogg": ["-c:a", "libvorbis", "-f", "ogg", "-"],
    "Opus in WebM, as browsers record": ["-c:a", "libopus", "-f", "webm", "-"],
    "FLAC in Ogg": ["-c:a", "flac", "-f", "ogg", "-"],
    "AAC in fragments of MP4": ["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov", "-f", "mp4", "-"],
}


@pytest.mark.parametrize("arguments", MADE.values(), ids=MADE)
def test_what_other_programs_record_is_heard(arguments: list[str]) -> None:
    found = heard(made_by_ffmpeg(*arguments))
    assert found.seconds == pytest.approx(1.0, abs=0.12)
    assert pitch_of(found) == pytest.approx(440, rel=0.15)


def test_an_mp4_file_with_its_index_at_the_end_is_heard(tmp_path: Path) -> None:
    file = tmp_path / "voice.m4a"
    made_by_ffmpeg("-c:a", "aac", str(file))
    content = file.read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")
    assert heard(content).seconds == pytest.approx(1.0, abs=0.12)


# --- WAV files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
def test_wav_files_of_every_kind_become_one_channel(width: int, channels: int, rate: int) -> None:
    values = array("h", tone(0.5, rate))
    high = [(value >> 8 & 0xFF, value & 0xFF) for value in values for _ in range(channels)]
    frame = {
        1: lambda upper, lower: bytes([upper ^ 0x80]),
        2: lambda upper, lower: bytes([lower, upper]),
        3: lambda upper, lower: bytes([0, lower, upper]),
        4: lambda upper, lower: bytes([0, 0, lower, upper]),
    }[width]
    found = heard(wav(b"".join(frame(*one) for one in high), rate, channels, width))
    assert (found.rate, found.channels, found.width) == (RATE, 1, 2)
    assert found.seconds == pytest.approx(0.5, abs=0.001)
    assert pitch_of(found) == pytest.approx(440, rel=0.02)
    assert max(array("h", found.samples)) == pytest.approx(9000, rel=0.1)


@given(
    st.lists(st.integers(-32768, 32767), min_size=2, max_size=200),
    st.integers(sound.LEAST_RATE, sound.MOST_RATE),
    st.integers(1, 2),
)
def test_resampling_keeps_length_and_bounds(values: list[int], rate: int, channels: int) -> None:
    whole = values[: len(values) // channels * channels]
    given = read_wav(wav(array("h", whole).tobytes(), rate, channels))
    found = sound.mono(given, RATE)
    assert abs(len(found.samples) / 2 - given.seconds * RATE) <= 1
    assert all(min(whole) - 1 <= value <= max(whole) + 1 for value in array("h", found.samples))


# --- what is none -------------------------------------------------------------------------------

GOOD = wav(tone(0.5))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x", "known format"),
        (bytes(5000), "known format"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n/etc/passwd\n", "known format"),
        (GOOD[:-100], "has"),
        (GOOD[:4] + b"\xff\xff\xff\x7f" + GOOD[8:], "says that it has"),
        (GOOD[:40] + b"\xff\xff\xff\x7f" + GOOD[44:], "chunk"),
        (wav(tone(0.1, 4000), 4000), "samples a second"),
        (b"ID3" + bytes(5000), "mp3"),
        (b"\xff\xfb" + bytes(5000), "mp3"),
        (b"OggS" + bytes(5000), "ogg"),
        (b"fLaC" + bytes(5000), "flac"),
        (b"\0\0\0\x20ftypM4A " + bytes(5000), "m4a"),
        (b"\x1aE\xdf\xa3" + bytes(5000), "webm"),
        (b"\0\0\0\x20ftypM4A file:/etc/passwd", "m4a"),
    ],
)
def test_what_is_no_recording_is_refused_by_its_field(content: bytes, words: str) -> None:
    assert words in refusal(content)


@pytest.mark.parametrize("form", KINDS)
def test_a_file_that_is_cut_off_is_refused(form: str) -> None:
    content, _ = sound.encode(tone(3.0), RATE, form)
    assert "cut off" in refusal(content[: len(content) * 2 // 3])


@pytest.mark.parametrize("flags", [[], ["-movflags", "faststart"]], ids=["index at the end", "index first"])
def test_an_mp4_file_that_is_cut_off_is_refused(flags: list[str], tmp_path: Path) -> None:
    file = tmp_path / "voice.m4a"
    made_by_ffmpeg("-c:a", "aac", *flags, str(file), seconds=3)
    content = file.read_bytes()
    assert heard(content).seconds == pytest.approx(3.0, abs=0.12)
    assert "cut off" in refusal(content[: len(content) * 2 // 3])


def test_every_item_that_is_wrong_is_named() -> None:
    items = [Item(content=content) for content in (b"x", GOOD, b"OggS")]
    with pytest.raises(ValidationFailed) as raised:
        sound.recordings(items, RATE, MOST, lambda given: given)
    fields = [error["field"] for error in raised.value.extensions["errors"]]
    assert fields == ["input[0].audio.content", "input[2].audio.content"]


@pytest.mark.parametrize("form", ["flac", "opus", "mp3"])
def test_a_small_file_that_would_be_a_long_recording_is_refused(form: str) -> None:
    content, _ = sound.encode(bytes(2 * 8_000 * 200), 8_000, form)
    assert len(content) < 10_000_000
    with pytest.raises(InputTooLong) as raised:
        heard(content)
    assert raised.value.extensions == {"limit": MOST, "unit": "seconds", "input": 0}


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([b"ID3", b"OggS", b"fLaC", b"\xff\xf1", b"\x1aE\xdf\xa3", b"\0\0\0\x20ftypM4A "]),
    st.binary(max_size=300),
)
def test_no_bytes_are_anything_but_refused(begin: bytes, rest: bytes) -> None:
    with pytest.raises((ValidationFailed, InputTooLong)):
        heard(begin + rest)


def test_without_the_program_wav_files_are_heard_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    content, _ = sound.encode(tone(0.5), RATE, "flac")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "make engines" in (sound.missing() or "")
    assert heard(GOOD).seconds == 0.5
    for act in (lambda: heard(content), lambda: sound.encode(tone(0.1), RATE, "mp3")):
        with pytest.raises(EngineMissing, match=r"ffmpeg .*make engines"):
            act()
