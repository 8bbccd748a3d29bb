"""Texts, sounds and images as ULCA's clients send them, made the task schema's items; raise ValidationFailed."""

from __future__ import annotations

import base64
import binascii
import io
import re
import wave
from collections.abc import Callable
from typing import Any

from haat.gateway.doors.bodies import wrong_field
from haat.gateway.doors.ulca.shapes import Config, Inputs
from haat.kernel.errors import ProviderFailed

_DATA = re.compile(r"data:(?:audio|image)/[\w.+-]+(?:;[\w=.+-]+)*;base64,", re.ASCII)
_MAGIC = {
    b"RIFF": "wav",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3": "mp3",
    b"\xff\xfb": "mp3",
    b"\xff\xfa": "mp3",
    b"\xff\xf3": "mp3",
    b"\xff\xf2": "mp3",
    b"\xff\xf1": "aac",
    b"\xff\xf9": "aac",
    b"\x1aE\xdf\xa3": "webm",
    b"\x89PNG": "png",
    b"\xff\xd8": "jpeg",
}
"""How the files of a format begin."""
_LEAST_RATE, _MOST_RATE = 4_000, 192_000


def items_of(inputs: Inputs, takes: str, config: Config, place: str, options: str) -> list[dict[str, Any]]:
    """Return a call's items. ``place`` is before the inputs' names in refusals, ``options`` before those of options.

    Clients send placeholders of the kinds that a task doesn't take, so only its own kind is looked at.
    """
    read = {"text": _texts, "audio": _sounds, "image": _images}[takes]
    found = read(inputs, config, place, options)
    if not found:
        name = "input" if takes == "text" else takes
        raise wrong_field(f"{place}{name}", "must be a list with at least one item")
    return found


def _texts(inputs: Inputs, config: Config, place: str, options: str) -> list[dict[str, Any]]:
    for index, text in enumerate(inputs.input or ()):
        if not (text.source or "").strip():
            raise wrong_field(f"{place}input[{index}].source", "must be a text that is not empty")
    return [{"text": text.source} for text in inputs.input or ()]


def _sounds(inputs: Inputs, config: Config, place: str, options: str) -> list[dict[str, Any]]:
    found = []
    for index, sound in enumerate(inputs.audio or ()):
        content, begin = _content(sound.audio_content, sound.audio_uri, f"{place}audio[{index}].audio")
        form = (config.audio_format or _format_of(begin) or "wav").lower()
        if form == "pcm":
            content, form = _wav(content, config, f"{options}.samplingRate"), "wav"
        found.append({"audio": {"content": content, "format": form}})
    return found


def _images(inputs: Inputs, config: Config, place: str, options: str) -> list[dict[str, Any]]:
    found = []
    for index, image in enumerate(inputs.image or ()):
        content, begin = _content(image.image_content, image.image_uri, f"{place}image[{index}].image")
        form = _format_of(begin)
        found.append({"image": {"content": content, "format": form} if form else {"content": content}})
    return found


def _content(content: str | None, uri: str | None, field: str) -> tuple[str, bytes]:
    """Return base64 and the first bytes that are in it; ``field`` is what the names of both begin with."""
    name = f"{field}Content"
    if not content:
        if not uri:
            raise wrong_field(name, "must be base64 that is not empty")
        data = _DATA.match(uri)
        if data is None:
            raise wrong_field(f"{field}Uri", f"is not fetched here: send the content itself, in `{name}`")
        content, name = uri[data.end() :], f"{field}Uri"
    content = "".join(content.split())
    try:
        decoded = base64.b64decode(content.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise wrong_field(name, "must be base64") from error
    if not decoded:
        raise wrong_field(name, "must be base64 that is not empty")
    return content, decoded[:8]


def _format_of(begin: bytes) -> str:
    if begin[4:8] == b"ftyp":
        return "m4a"
    return next((form for magic, form in _MAGIC.items() if begin.startswith(magic)), "")


# --- sound --------------------------------------------------------------------------------------


def _wav(content: str, config: Config, field: str) -> str:
    """Give bare samples (16 bit, one channel) the head of a WAV file."""
    rate = config.sampling_rate or 0
    if not _LEAST_RATE <= rate <= _MOST_RATE or rate != int(rate):
        raise wrong_field(field, f"of pcm must be a whole number from {_LEAST_RATE} to {_MOST_RATE}")
    whole = io.BytesIO()
    with wave.open(whole, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(int(rate))
        file.writeframes(base64.b64decode(content))
    return base64.b64encode(whole.getvalue()).decode("ascii")


def pcm_of(content: str) -> str:
    """Return the samples of a WAV file, base64 as both are; raise ProviderFailed when it is none."""

    def samples(data: bytes) -> bytes:
        with wave.open(io.BytesIO(data), "rb") as file:
            return file.readframes(file.getnframes())

    return base64.b64encode(_decoded(content, samples)).decode("ascii")


def _decoded(content: str, read: Callable[[bytes], bytes]) -> bytes:
    try:
        return read(base64.b64decode(content, validate=True))
    except (ValueError, binascii.Error, wave.Error, EOFError, RuntimeError) as error:
        raise ProviderFailed(
            "The provider's answer is no sound that can be made pcm; the call is not billed."
        ) from error
