"""An embeddings request, the answer of a task service to it, and what the client gets."""

from __future__ import annotations

from typing import Literal

import msgspec


class EmbeddingsRequest(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


class _Vector(msgspec.Struct):
    embedding: msgspec.Raw
    """Not looked into: there may be thousands of numbers, and they leave as they came."""


class Vectors(msgspec.Struct):
    output: list[_Vector]
    usage: dict[str, float] = {}


class Embedding(msgspec.Struct, tag_field="object", tag="embedding"):
    index: int
    embedding: msgspec.Raw | str


class Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsList(msgspec.Struct, tag_field="object", tag="list"):
    data: list[Embedding]
    model: str
    usage: Usage


request_decoder = msgspec.json.Decoder(EmbeddingsRequest)
decode_vectors = msgspec.json.Decoder(Vectors).decode
"""Raises msgspec.MsgspecError for an answer without embeddings."""
