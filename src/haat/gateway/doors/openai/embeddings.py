"""``POST /v1/embeddings``: vectors of texts."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from haat.gateway.doors.openai.protocol import DIALECT, OpenAIOperation, encode, pass_on, wrong_field, wrong_service
from haat.gateway.doors.visit import Visit, read_body, read_task_answer, reply
from haat.kernel.errors import InvalidRequest, ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole


class _Embeddings(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


class Embeddings(OpenAIOperation):
    """``POST /v1/embeddings``. A task service takes texts; token numbers are for providers who speak this protocol."""

    name = "openai embeddings"
    _decoder = msgspec.json.Decoder(_Embeddings)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _Embeddings = read_body(self._decoder, call, wrong_field)
        visit.asked = asked
        route = gateway.names.find(gateway, call, asked.model)
        if route.executing.dialect in (DIALECT, "http"):
            pass_on(call, visit, route, b"/embeddings")
            return True
        if not route.executing.takes_tasks:
            raise wrong_service(route, "embeddings")
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InvalidRequest(
                "`input` must be a text or a list of texts: this model takes no token numbers.", field="input"
            )
        if asked.dimensions is not None:
            raise InvalidRequest("`dimensions` can't be chosen: this model has a fixed size.", field="dimensions")
        visit.become(call, route, b"/invoke", encode({"input": [{"text": text} for text in texts]}))
        return True

    def leave(self, call: Call, visit: Visit, answer: Whole) -> None:
        outputs, usage = read_task_answer(answer)
        wanted: _Embeddings = visit.asked
        data = []
        for index, output in enumerate(outputs):
            vector = output.get("embedding")
            if not isinstance(vector, list):
                raise ProviderFailed("The provider's answer holds no embeddings; the call is not billed.")
            shown: Any = vector
            if wanted.encoding_format == "base64":
                try:
                    shown = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
                except (struct.error, OverflowError) as error:
                    raise ProviderFailed("The provider's vectors are of no numbers; the call is not billed.") from error
            data.append({"object": "embedding", "index": index, "embedding": shown})
        tokens = tokens_of(usage)
        reply(
            answer,
            encode(
                {
                    "object": "list",
                    "data": data,
                    "model": wanted.model,
                    "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
                }
            ),
        )


def tokens_of(usage: dict[str, float]) -> int:
    """Return how many tokens a call took; a service that counts otherwise has none."""
    return int(usage.get("tokens", 0))
