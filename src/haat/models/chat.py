"""OpenAI's chat completions as a hosted model takes and gives them: the request checked, the answer's shapes.

Fields that would change the answer and can't be honoured here are refused; those that only say who asks, or
that ask for what is given anyway, are taken and have no effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from haat.kernel.errors import HaatError, InputTooLong, InvalidRequest, MalformedJson
from haat.kernel.text import is_storable
from haat.models.hosted import HostedChat, Turn

USUAL_TOKENS = 256
MOST_STOPS = 4
_LONGEST_STOP = 64
_FAMILIES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_FIELD = re.compile(r"field `([^`]*)`")

_encode = msgspec.json.Encoder().encode


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = False


class _Request(msgspec.Struct):
    messages: list[_Message]
    model: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    n: int | None = 1
    frequency_penalty: float | None = 0
    presence_penalty: float | None = 0
    logprobs: bool | None = False
    logit_bias: dict[str, float] | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None


_decoder = msgspec.json.Decoder(_Request)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that can be answered: ``model`` as the caller wrote it, ``tokens`` of its messages."""

    turn: Turn
    model: str
    tokens: int
    stream: bool
    usage_by_itself: bool
    """A stream ends with a chunk that has nothing but the usage; else it is in the last one with a choice."""


def read_request(chat: HostedChat, body: bytes) -> Asked:
    """Return what is asked for; raise MalformedJson, InputTooLong, or InvalidRequest with the ``field``."""
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError as error:
        sentence, _, place = str(error).partition(" - at `$")
        missing = _FIELD.search(sentence)
        field = f"{place.rstrip('`')}.{missing[1]}" if missing else place.rstrip("`")
        raise _wrong(field.lstrip("."), sentence) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson from error
    _check_what_it_cannot(request)
    messages = _messages(chat, request.messages)
    turn = Turn(
        messages,
        most=_most(chat, request),
        temperature=_within("temperature", request.temperature, 2.0),
        top_p=_within("top_p", request.top_p, 1.0),
        seed=request.seed,
        stop=_stops(request.stop),
    )
    return Asked(
        turn,
        request.model or chat.path,
        sum(chat.count(text) for _, text in messages),
        bool(request.stream),
        bool(request.stream_options and request.stream_options.include_usage),
    )


def _wrong(field: str, message: str) -> HaatError:
    return InvalidRequest(f"{field}: {message}" if field else message, field=field)


def _check_what_it_cannot(request: _Request) -> None:
    kind = (request.response_format or {}).get("type", "text")
    for field, fine, message in (
        ("n", request.n in (None, 1), "this model gives one answer a call"),
        ("frequency_penalty", not request.frequency_penalty, "this model has no penalties"),
        ("presence_penalty", not request.presence_penalty, "this model has no penalties"),
        ("logprobs", not request.logprobs, "this model tells no probabilities"),
        ("logit_bias", not request.logit_bias, "this model takes no biases"),
        ("tools", not request.tools, "this model can't use tools"),
        ("functions", not request.functions, "this model can't call functions"),
        ("response_format", kind == "text", "this model writes plain text only"),
        ("modalities", request.modalities in (None, [], ["text"]), "this model writes text only"),
    ):
        if not fine:
            raise _wrong(field, message)


def _messages(chat: HostedChat, given: list[_Message]) -> tuple[tuple[str, str], ...]:
    if not given:
        raise _wrong("messages", "must hold at least one message")
    if len(given) > chat.max_messages:
        raise _wrong("messages", f"holds {len(given)} messages; this model takes {chat.max_messages}")
    messages = tuple((message.role, _text(message, index)) for index, message in enumerate(given))
    length = sum(len(text) for _, text in messages)
    if length > chat.max_characters:
        raise InputTooLong(
            f"The messages have {length} characters; this model takes {chat.max_characters}.",
            limit=chat.max_characters,
            unit="characters",
        )
    return messages


def _text(message: _Message, index: int) -> str:
    content, at = message.content, f"messages[{index}].content"
    if content is None:
        if message.role == "assistant":
            return ""  # it called a tool elsewhere
        raise _wrong(at, "must be a text")
    if isinstance(content, list):
        for place, part in enumerate(content):
            if part.type != "text" or part.text is None:
                raise _wrong(f"{at}[{place}]", "this model takes parts of type `text` only")
        content = "\n".join(part.text for part in content if part.text is not None)
    if not is_storable(content):
        raise _wrong(at, "holds characters that are no text")
    return content


def _most(chat: HostedChat, request: _Request) -> int:
    field = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    wanted = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    if wanted is None:
        return min(USUAL_TOKENS, chat.max_tokens)
    if not 1 <= wanted <= chat.max_tokens:
        raise _wrong(field, f"must be 1 to {chat.max_tokens}")
    return wanted


def _within(field: str, value: float | None, most: float) -> float:
    if value is None:
        return 1.0
    if not 0 <= value <= most:
        raise _wrong(field, f"must be 0 to {most:g}")
    return value


def _stops(given: str | list[str] | None) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given or []
    if len(stops) > MOST_STOPS:
        raise _wrong("stop", f"must hold at most {MOST_STOPS} texts")
    if not all(0 < len(stop) <= _LONGEST_STOP for stop in stops):
        raise _wrong("stop", f"must hold texts of 1 to {_LONGEST_STOP} characters")
    return tuple(stops)


# --- the answer ---------------------------------------------------------------------------------


class Reply:
    """An answer as it grows: cut off before a stop text, counted, and ended for a reason."""

    def __init__(self, chat: HostedChat, asked: Asked, tokens: Iterator[str]) -> None:
        self._chat, self._asked, self._tokens = chat, asked, tokens
        self.text = ""
        self.reason = "stop"

    def pieces(self) -> Iterator[str]:
        """Yield the text in small parts, empty ones too; what may be the beginning of a stop text is held back."""
        stops, held = self._asked.turn.stop, ""
        for given, token in enumerate(self._tokens, 1):
            held += token
            found = [at for stop in stops if (at := held.find(stop)) >= 0]
            if found:
                yield self._give(held[: min(found)])
                return
            kept = max((_overlap(held, stop) for stop in stops), default=0)
            yield self._give(held[: len(held) - kept])
            held = held[len(held) - kept :]
            if given >= self._asked.turn.most:
                self.reason = "length"
                break
        yield self._give(held)

    def _give(self, piece: str) -> str:
        self.text += piece
        return piece

    @property
    def usage(self) -> dict[str, int]:
        """What the call used so far, as the protocol says it."""
        prompt, answer = self._asked.tokens, self._chat.count(self.text)
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _overlap(text: str, stop: str) -> int:
    """Return how much of a text's end may be the beginning of a stop text."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


def completion(identifier: str, created: int, model: str, reply: Reply) -> dict[str, Any]:
    """Return a whole answer."""
    message = {"role": "assistant", "content": reply.text, "refusal": None}
    return {
        "id": identifier,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reply.reason}],
        "usage": reply.usage,
    }


class Chunks:
    """The events of a streamed answer."""

    def __init__(self, identifier: str, created: int, asked: Asked) -> None:
        self._common = {
            "id": identifier,
            "object": "chat.completion.chunk",
            "created": created,
            "model": asked.model,
        }
        self._by_itself = asked.usage_by_itself

    def first(self) -> bytes:
        """Return the event that says who speaks."""
        return self._choice({"role": "assistant", "content": ""})

    def piece(self, text: str) -> bytes:
        """Return the event of a part of the text."""
        return self._choice({"content": text})

    def last(self, reply: Reply) -> bytes:
        """Return the events that say why the answer ends, and what it used."""
        if not self._by_itself:
            return self._choice({}, reply.reason, usage=reply.usage) + DONE
        usage = event({**self._common, "choices": [], "usage": reply.usage})
        return self._choice({}, reply.reason) + usage + DONE

    def _choice(self, delta: dict[str, str], reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**self._common, "choices": [choice], **more})


DONE = b"data: [DONE]\n\n"


def event(data: Any) -> bytes:
    """Return a server-sent event that holds JSON."""
    return b"data: %b\n\n" % _encode(data)


def problem(error: HaatError) -> dict[str, Any]:
    """Return a refusal as the protocol writes it."""
    kind = _FAMILIES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    field = error.extensions.get("field")
    return {"error": {"message": error.detail, "type": kind, "param": field, "code": error.code}}
