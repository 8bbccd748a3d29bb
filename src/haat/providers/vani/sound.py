"""Sounds as callers send them and want them: WAV files are read here, all others by ffmpeg, a program of its own.

What a recording is, its first bytes say, whatever its name says: browsers and telephones name them as they like. The
program is told which one of a few formats to expect, so that no playlist or image is ever looked for in a
caller's bytes; it stops at the longest recording that is taken, however much a small file would become.
"""

from __future__ import annotations

import io
import wave
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from haat.kernel.errors import EngineFailed, InputTooLong, ValidationFailed
from haat.models.hosted import Item
from haat.providers.programs import missing_program, run_program
from haat.providers.vani.endings import CHECKS
from haat.providers.vani.wav import Wav, read_wav

PROGRAM = "ffmpeg"
FORMATS = ("wav", "mp3", "mpga", "mpeg", "ogg", "oga", "opus", "flac", "m4a", "mp4", "aac", "webm")
"""Names under which a recording may come."""
SECONDS = 10.0
"""How long reading or writing a sound may take."""
LEAST_RATE, MOST_RATE = 8_000, 192_000
_DEMUXERS = {"mp3": "mp3", "ogg": "ogg", "flac": "flac", "m4a": "mov", "aac": "aac", "webm": "matroska"}
_PIECES = ["-nostdin", "-hide_banner", "-loglevel", "quiet", "-protocol_whitelist", "file", "-threads", "1"]
_SAME_EVERY_TIME = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact"]
_ENCODERS = {
    "mp3": (22_050, ["-c:a", "libmp3lame", "-b:a", "64k", "-f", "mp3"]),
    "opus": (24_000, ["-c:a", "libopus", "-b:a", "32k", "-application", "voip", "-f", "ogg"]),
    "aac": (22_050, ["-c:a", "aac", "-b:a", "64k", "-f", "adts"]),
    "flac": (22_050, ["-c:a", "flac", "-f", "flac"]),
    "pcm": (24_000, ["-c:a", "pcm_s16le", "-f", "s16le"]),
}
"""Their sample rates and how the program writes them. Programs that play bare samples take 24,000 Hz for granted."""
ENCODED = tuple(_ENCODERS)


def missing() -> str | None:
    """Return the sentence that says that the program is not installed and how to install it, or None."""
    return missing_program(PROGRAM, PROGRAM)


def encode(samples: bytes, rate: int, form: str) -> tuple[bytes, int]:
    """Return 16-bit samples of one channel in a format of `ENCODED`, and the rate that they have there."""
    new_rate, how = _ENCODERS[form]
    source = ["-f", "s16le", "-ar", str(rate), "-ac", "1", "-i", "file:/dev/stdin"]
    target = [*_SAME_EVERY_TIME, "-ar", str(new_rate), *how, "-y", "file:/dev/stdout"]
    return run_program([PROGRAM, *_PIECES, *source, *target], samples, seconds=SECONDS, seekable=True), new_rate


def wav_of(samples: bytes, rate: int) -> bytes:
    """Return a WAV file of 16-bit samples of one channel."""
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(rate)
        made.writeframes(samples)
    return file.getvalue()


# --- recordings ---------------------------------------------------------------------------------


def kind_of(content: bytes) -> str:
    """Return what a file is by its first bytes: ``wav`` or what the program is told; empty for anything else."""
    begin = content[:12]
    if begin[:4] == b"RIFF" and begin[8:] == b"WAVE":
        return "wav"
    if begin[4:8] == b"ftyp":
        return "m4a"
    for magic, kind in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3"), (b"\x1aE\xdf\xa3", "webm")):
        if begin.startswith(magic):
            return kind
    if len(begin) >= 2 and begin[0] == 0xFF and begin[1] & 0xE0 == 0xE0:  # a frame of MPEG audio
        return "mp3" if begin[1] & 0x06 else "aac"
    return ""


def recordings(items: Sequence[Item], rate: int, most_seconds: int, take: Callable[[Wav], Wav]) -> list[Wav]:
    """Return the sounds of a call's items, one channel of 16 bit: WAV files as ``take`` makes them, others at ``rate``.

    Raises ValidationFailed with every item that is none, InputTooLong for one that lasts longer; EngineMissing
    where the program isn't installed.
    """
    sounds, errors = [], []
    for index, item in enumerate(items):
        try:
            kind = kind_of(item.content)
            is_wav = kind == "wav"
            sound = read_wav(item.content) if is_wav else _decode(item.content, kind, rate, most_seconds)
            if sound.seconds > most_seconds:
                raise InputTooLong(
                    f"Recording {index} lasts longer than {most_seconds} s; send it in parts.",
                    limit=most_seconds,
                    unit="seconds",
                    input=index,
                )
            sounds.append(take(sound) if is_wav else sound)
        except ValueError as error:
            errors.append({"field": f"input[{index}].audio.content", "message": str(error)})
    if errors:
        raise ValidationFailed(errors=errors)
    return sounds


def _decode(content: bytes, kind: str, rate: int, most_seconds: int) -> Wav:
    if not kind:
        raise ValueError("is no recording of a known format: send WAV, MP3, Ogg, FLAC, M4A, AAC or WebM")
    if kind in CHECKS:
        CHECKS[kind](content)
    seconds = most_seconds + 1
    source = ["-xerror", "-err_detect", "explode", "-t", str(seconds), "-f", _DEMUXERS[kind], "-i", "file:/dev/stdin"]
    target = ["-map", "0:a:0", "-ac", "1", "-ar", str(rate), "-c:a", "pcm_s16le", "-f", "s16le"]
    target += ["-fs", str(2 * rate * seconds), "-y", "file:/dev/stdout"]
    try:
        samples = run_program([PROGRAM, *_PIECES, *source, *target], content, seconds=SECONDS, seekable=True)
    except EngineFailed:
        raise ValueError(f"can't be read as {kind}: it is damaged or cut off") from None
    if len(samples) < 2:
        raise ValueError("holds no sound")
    return Wav(rate, 1, 2, samples[: len(samples) // 2 * 2])


# --- WAV files ----------------------------------------------------------------------------------


def mono(wav: Wav, rate: int) -> Wav:
    """Return a sound in one channel of 16 bit at ``rate``; raise ValueError for what can't be that.

    Each new sample is the mean of the old ones that it covers, a low-pass filter good enough for speech.
    """
    if not LEAST_RATE <= wav.rate <= MOST_RATE:
        raise ValueError(f"must have {LEAST_RATE:,} to {MOST_RATE:,} samples a second")
    samples = _sixteen_bit(wav)
    if wav.channels > 1:
        parts = [samples[channel :: wav.channels] for channel in range(wav.channels)]
        samples = array("h", (sum(at) // wav.channels for at in zip(*parts, strict=True)))
    if wav.rate != rate:
        samples = _resample(samples, wav.rate / rate)
    return Wav(rate, 1, 2, samples.tobytes())


def _sixteen_bit(wav: Wav) -> array[int]:
    """Return samples of any width in 16 bit: of wider ones the upper half, of 8 bit (which have no sign) all."""
    width, whole = wav.width, wav.samples
    if width == 2:
        return array("h", whole)
    made = bytearray(len(whole) // width * 2)
    if width == 1:
        made[1::2] = bytes(value ^ 0x80 for value in whole)
    else:
        made[0::2], made[1::2] = whole[width - 2 :: width], whole[width - 1 :: width]
    return array("h", bytes(made))


def _resample(samples: array[int], step: float) -> array[int]:
    sums = [0, *accumulate(samples)]

    def area(at: float) -> float:
        whole = min(int(at), len(samples) - 1)
        return sums[whole] + (at - whole) * samples[whole]

    edges = [area(index * step) for index in range(int(len(samples) / step) + 1)]
    return array("h", (round((end - start) / step) for start, end in pairwise(edges)))
