"""``POST /v1/embeddings``: vectors of texts."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

import msgspec

from haat.gateway.doors.bodies import read_body
from haat.gateway.doors.openai.protocol import DIALECT, OpenAIOperation, encode, pass_on, wrong_field, wrong_service
from haat.gateway.doors.openai.vectors import (
    Embedding,
    EmbeddingsList,
    EmbeddingsRequest,
    Usage,
    decode_vectors,
    request_decoder,
)
from haat.gateway.doors.visit import Visit, reply
from haat.kernel.errors import HaatError, InvalidRequest, ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole


_decode_numbers = msgspec.json.Decoder(list[float]).decode
_OF_NUMBERS = b"0123456789eE+-., \t\r\n"
"""What an array of nothing but numbers has between its brackets."""


class Embeddings(OpenAIOperation):
    """``POST /v1/embeddings``. A task service takes texts; token numbers are for providers who speak this protocol."""

    name = "openai embeddings"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: EmbeddingsRequest = read_body(request_decoder, call, wrong_field)
        visit.asked = asked
        route = gateway.names.find(gateway, call, asked.model)
        if route.executing.dialect in (DIALECT, "http"):
            pass_on(call, visit, route, b"/embeddings")
            return True
        if not route.executing.takes_tasks:
            raise wrong_service(route, "embeddings")
        items = []
        for text in [asked.input] if isinstance(asked.input, str) else asked.input:
            if not isinstance(text, str):
                raise _no_texts()
            items.append({"text": text})
        if not items:
            raise _no_texts()
        if asked.dimensions is not None:
            raise InvalidRequest("`dimensions` can't be chosen: this model has a fixed size.", field="dimensions")
        visit.languages = ""
        visit.become(call, route, b"/invoke", encode({"input": items}))
        return True

    def leave(self, call: Call, visit: Visit, answer: Whole) -> None:
        wanted: EmbeddingsRequest = visit.asked
        try:
            found = decode_vectors(answer.body)
            data = [
                Embedding(index, _shown(output.embedding, wanted.encoding_format))
                for index, output in enumerate(found.output)
            ]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise ProviderFailed("The provider's answer holds no embeddings; the call is not billed.") from error
        tokens = tokens_of(found.usage)
        reply(answer, encode(EmbeddingsList(data, wanted.model, Usage(tokens, tokens))))


def _no_texts() -> HaatError:
    return InvalidRequest(
        "`input` must be a text or a list of texts: this model takes no token numbers.", field="input"
    )


def _shown(vector: msgspec.Raw, encoding: str | None) -> msgspec.Raw | str:
    """Return a vector as it came, or as little-endian float32 in base64; raise msgspec.MsgspecError for none."""
    if encoding != "base64" and bytes(vector).translate(None, _OF_NUMBERS) == b"[]":
        return vector
    numbers = _decode_numbers(vector)
    if encoding != "base64":
        return msgspec.Raw(encode(numbers))
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode("ascii")


def tokens_of(usage: dict[str, float]) -> int:
    """Return how many tokens a call took; a service that counts otherwise has none."""
    return int(usage.get("tokens", 0))
