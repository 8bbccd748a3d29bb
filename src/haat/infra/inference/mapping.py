"""Which tensors a task is written in: agreed by default at the door, declared by a version for its own model."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

ITEM_FIELDS = ("text", "other", "audio", "image")
"""Members of a task's items; every other field of a mapping is a member of its ``config``."""
CONTENT_FIELDS = ("audio", "image")
LANGUAGE_FIELDS = ("source", "target", "language")
WHOLE = "*"
"""As an output: the whole item, as JSON."""
SAMPLES = "samples"
"""As an input: how many samples each waveform has, because shorter ones are filled up with silence."""


class TensorMap(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a model is asked a task.

    ``inputs`` are tensors by the field they hold: ``text``, ``other``, ``audio``, ``image`` of an item, or a member of
    ``config``. ``outputs`` are tensors by the member of an output item, ``*`` for one that holds it all as JSON.
    ``datatypes`` are those that aren't BYTES, by tensor; FP32 sound is a waveform of ``sample_rate``. ``defaults``
    are for fields of ``config`` that a caller leaves out, ``parameters`` go with every request. ``rank`` is how many
    dimensions a tensor of n items has: 1 for [n], 2 for [n, 1]. ``most_items`` bounds n, 0 for no bound. ``languages``
    says what the model calls a language that it doesn't call by its short tag. With ``base64`` sounds and images
    are texts in base64. ``decoupled``: it answers in any number of parts, each of which has the ``outputs``.
    """

    model: str = ""
    version: str = ""
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    datatypes: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    languages: dict[str, str] = {}
    rank: int = 2
    most_items: int = 0
    sample_rate: int = 16_000
    base64: bool = False
    decoupled: bool = False

    def datatype(self, tensor: str) -> str:
        """Return the datatype of a tensor by its name."""
        return self.datatypes.get(tensor, "BYTES")

    @property
    def items(self) -> dict[str, str]:
        """The inputs that items are made of."""
        return {field: tensor for field, tensor in self.inputs.items() if field in ITEM_FIELDS}

    @property
    def options(self) -> dict[str, str]:
        """The inputs that ``config`` is made of."""
        return {field: tensor for field, tensor in self.inputs.items() if field not in ITEM_FIELDS and field != SAMPLES}

    @property
    def path(self) -> str:
        """Where the model is asked, below the server's address."""
        version = f"/versions/{quote(self.version, safe='')}" if self.version else ""
        infer = "infer_stream" if self.decoupled else "infer"
        return f"/v2/models/{quote(self.model, safe='')}{version}/{infer}"


_TEXT = {"text": "OUTPUT_TEXT"}
_PAIR = {"text": "INPUT_TEXT", "source": "INPUT_LANGUAGE_ID", "target": "OUTPUT_LANGUAGE_ID"}
_ANY = TensorMap(
    inputs={"text": "INPUT_TEXT", "other": "OTHER_TEXT", "language": "LANGUAGE_ID"}, outputs={WHOLE: "OUTPUT"}
)
_BY_CATEGORY = {
    "translation": TensorMap(inputs=_PAIR, outputs=_TEXT),
    "transliteration": TensorMap(inputs=_PAIR, outputs=_TEXT),
    "speech_to_text": TensorMap(inputs={"audio": "AUDIO", "language": "LANGUAGE_ID"}, outputs={"text": "TRANSCRIPT"}),
    "text_to_speech": TensorMap(inputs={"text": "INPUT_TEXT", "language": "LANGUAGE_ID"}, outputs={"audio": "AUDIO"}),
    "ocr": TensorMap(inputs={"image": "IMAGE", "language": "LANGUAGE_ID"}, outputs=_TEXT),
    "embedding": TensorMap(
        inputs={"text": "INPUT_TEXT"}, outputs={"embedding": "EMBEDDING"}, datatypes={"EMBEDDING": "FP32"}
    ),
}


def tensors_of(category: str) -> TensorMap:
    """Return the tensors in which the services of a category are called here."""
    return _BY_CATEGORY.get(category, _ANY)


_SIGNS = (
    (b"RIFF", "wav"),
    (b"OggS", "ogg"),
    (b"fLaC", "flac"),
    (b"ID3", "mp3"),
    (b"\xff\xfb", "mp3"),
    (b"\x89PNG", "png"),
    (b"\xff\xd8\xff", "jpeg"),
)


def format_of(content: bytes, field: str) -> str:
    """Return the format that a sound or an image begins like; the usual one of its kind when nothing tells."""
    for sign, name in _SIGNS:
        if content.startswith(sign):
            return name
    return "wav" if field == "audio" else "png"
