"""Answers in the protocols of language models, for services whose endpoint speaks one of them."""

from __future__ import annotations

import base64
import re
import struct
from typing import Any

from haat.gateway.simulator.marks import encode, mark, marked, tone, vector
from haat.gateway.simulator.shapes import EVENTS, JSON, Simulated, read_object
from haat.kernel.errors import InvalidRequest

_WORDS = re.compile(r"\S+\s*")
CREATED = 1_700_000_000
"""Seconds since the epoch that every answer says it was made at: the same each time."""


def answer(dialect: str, path: bytes, body: bytes, unit: str) -> Simulated | None:
    """Return the answer of one of these endpoints; None for a path that none of them has."""
    if path.endswith(b"/messages"):
        return _messages(read_object(body), unit)
    if path.endswith(b"/chat/completions"):
        return _completion(read_object(body), unit)
    if path.endswith(b"/completions"):
        return _text_completion(read_object(body), unit)
    if path.endswith(b"/embeddings"):
        return _embeddings(read_object(body), unit)
    if path.endswith(b"/audio/speech"):
        return Simulated(b"audio/wav", _usage(unit, 1), (tone(body),))
    if path.endswith((b"/audio/transcriptions", b"/audio/translations")):
        return Simulated(JSON, _usage(unit, 1), (encode({"text": marked("what was spoken", body)}),))
    return None


def _usage(unit: str, tokens: int) -> bytes:
    return b"" if unit == "bytes" else f"{unit}={1 if unit == 'requests' else tokens}".encode("ascii")


def text_of(content: Any) -> str:
    """Return the text of a message's content: a text, or a list of parts some of which hold text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict)).strip()


def _said(asked: dict[str, Any]) -> tuple[str, int]:
    """Return the reply to the last message, and how many words were sent; raise InvalidRequest without messages."""
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise InvalidRequest("messages: must be a list with at least one message", field="messages")
    texts = [text_of(message.get("content")) for message in messages]
    return marked(texts[-1], [asked.get("model"), texts]), sum(len(text.split()) for text in texts)


def _completion(asked: dict[str, Any], unit: str) -> Simulated:
    reply, sent = _said(asked)
    identifier = f"chatcmpl-test-{mark(asked.get('messages'))}"
    words = _WORDS.findall(reply)
    usage = {"prompt_tokens": sent, "completion_tokens": len(words), "total_tokens": sent + len(words)}
    reported = _usage(unit, sent + len(words))
    model = str(asked.get("model", ""))
    if not asked.get("stream"):
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        body = {"id": identifier, "object": "chat.completion", "created": CREATED, "model": model,
                "choices": [choice], "usage": usage}  # fmt: skip
        return Simulated(JSON, reported, (encode(body),))

    def chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
        body = {"id": identifier, "object": "chat.completion.chunk", "created": CREATED, "model": model,
                "choices": choices, **more}  # fmt: skip
        return b"data: %b\n\n" % encode(body)

    def delta(members: dict[str, Any], reason: str | None = None) -> bytes:
        return chunk([{"index": 0, "delta": members, "finish_reason": reason}])

    events = [delta({"role": "assistant", "content": ""})]
    events += [delta({"content": word}) for word in words]
    events.append(delta({}, "stop"))
    options = asked.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        events.append(chunk([], usage=usage))
    return Simulated(EVENTS, reported, (*events, b"data: [DONE]\n\n"))


def _text_completion(asked: dict[str, Any], unit: str) -> Simulated:
    prompt = asked.get("prompt")
    given = prompt if isinstance(prompt, list) else [prompt]
    prompts = [one for one in given if isinstance(one, str)]
    if not prompts or len(prompts) < len(given):
        raise InvalidRequest("prompt: must be a text, or a list of texts", field="prompt")
    replies = [marked(one, [asked.get("model"), one]) for one in prompts]
    sent, said = (sum(len(text.split()) for text in texts) for texts in (prompts, replies))
    usage = {"prompt_tokens": sent, "completion_tokens": said, "total_tokens": sent + said}

    def whole(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return encode({"id": f"cmpl-test-{mark(prompts)}", "object": "text_completion", "created": CREATED,
                       "model": str(asked.get("model", "")), "choices": choices, **more})  # fmt: skip

    def choice(at: int, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": at, "text": text, "finish_reason": reason, "logprobs": None}

    reported = _usage(unit, sent + said)
    if not asked.get("stream"):
        choices = [choice(at, reply, "stop") for at, reply in enumerate(replies)]
        return Simulated(JSON, reported, (whole(choices, usage=usage),))
    events = [whole([choice(at, word, None)]) for at, reply in enumerate(replies) for word in _WORDS.findall(reply)]
    events += [whole([choice(at, "", "stop")]) for at in range(len(replies))]
    options = asked.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        events.append(whole([], usage=usage))
    return Simulated(EVENTS, reported, (*[b"data: %b\n\n" % event for event in events], b"data: [DONE]\n\n"))


def _embeddings(asked: dict[str, Any], unit: str) -> Simulated:
    given = asked.get("input")
    inputs = given if isinstance(given, list) else [given]
    packed = asked.get("encoding_format") == "base64"
    data = [{"object": "embedding", "index": at, "embedding": _vector(one, packed)} for at, one in enumerate(inputs)]
    tokens = sum(len(str(one).split()) for one in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"object": "list", "data": data, "model": str(asked.get("model", "")), "usage": usage}
    return Simulated(JSON, _usage(unit, tokens), (encode(body),))


def _vector(value: Any, packed: bool) -> Any:
    numbers = vector(value)
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode("ascii") if packed else numbers


def _messages(asked: dict[str, Any], unit: str) -> Simulated:
    reply, sent = _said(asked)
    words = _WORDS.findall(reply)
    message: dict[str, Any] = {
        "id": f"msg_test_{mark(asked.get('messages'))}",
        "type": "message",
        "role": "assistant",
        "model": str(asked.get("model", "")),
        "content": [{"type": "text", "text": reply}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": sent, "output_tokens": len(words)},
    }
    reported = _usage(unit, sent + len(words))
    if not asked.get("stream"):
        return Simulated(JSON, reported, (encode(message),))

    def event(kind: str, **members: Any) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode("ascii"), encode({"type": kind, **members}))

    begun = {**message, "content": [], "stop_reason": None, "usage": {"input_tokens": sent, "output_tokens": 0}}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    return Simulated(
        EVENTS,
        reported,
        (
            event("message_start", message=begun),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            *[event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in words],
            event("content_block_stop", index=0),
            event("message_delta", delta=ended, usage={"output_tokens": len(words)}),
            event("message_stop"),
        ),
    )
