"""The infer request that most clients send: texts in JSON, and nothing else said of them. And the answer to it."""

from __future__ import annotations

from typing import Literal

import msgspec


class PlainTensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    datatype: Literal["BYTES"]
    data: list[str]


class Plain(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[PlainTensor]
    id: str = ""


class _Text(msgspec.Struct):
    text: str


class Texts(msgspec.Struct):
    output: list[_Text]


decode_plain = msgspec.json.Decoder(Plain).decode
"""Raises msgspec.MsgspecError for a request that has anything else in it, or is wrong."""
decode_texts = msgspec.json.Decoder(Texts).decode
"""Raises msgspec.MsgspecError for an answer of the task schema that is anything but texts."""
