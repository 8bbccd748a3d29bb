"""The infer request that most clients send: texts in JSON, and nothing else said of them."""

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


decode_plain = msgspec.json.Decoder(Plain).decode
"""Raises msgspec.MsgspecError for a request that has anything else in it, or is wrong."""
