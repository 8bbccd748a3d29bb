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


_decode = msgspec.json.Decoder(Plain).decode


def read_plain(body: bytes) -> Plain | None:
    """Return the request in a body; None for one that has anything else in it, or is wrong."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
