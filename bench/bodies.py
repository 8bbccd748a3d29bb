"""What is sent and answered: JSON of the same size whatever the format, so that all rows carry equally much."""

from __future__ import annotations

import json
from collections.abc import Mapping

REQUEST_BYTES, ANSWER_BYTES = 185, 290


def padded(content: Mapping[str, object], size: int) -> bytes:
    """Return JSON of exactly ``size`` bytes: peers that speak different formats carry equally much."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > size:
        raise ValueError(f"{len(text)} bytes don't fit into {size}")
    return text[:-1] + b" " * (size - len(text)) + text[-1:]


TASK = padded(
    {"input": [{"text": "भारत एक विशाल देश है"}], "config": {"source": "hi-Deva", "target": "ur-Arab"}}, REQUEST_BYTES
)
CHAT = padded(
    {
        "model": "bench",
        "messages": [{"role": "user", "content": "भारत एक विशाल देश है। Say that in Urdu."}],
    },
    REQUEST_BYTES,
)
TASK_ANSWER = padded({"output": [{"text": "x" * 220}], "usage": {"characters": 20}}, ANSWER_BYTES)
CHAT_ANSWER = padded(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "bench",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "jawab"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50},
    },
    ANSWER_BYTES,
)
