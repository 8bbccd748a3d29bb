"""What a request in OpenAI's or Anthropic's protocol asks for, as far as it is metered and limited by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from haat.gateway.call import Call

DEFAULT_ANSWER_TOKENS = 4096
"""What a call reserves for its answer when neither its caller nor the version says how long that may be."""
_MOST_TOKENS = 10**9
_MOST_ANSWERS = 128
GENERATED = (b"/chat/completions", b"/completions", b"/responses", b"/messages")
"""Addresses below an endpoint at which text is generated."""


class Asked(msgspec.Struct):
    """Fields that matter here; whatever is in them, because it is the provider who judges requests."""

    stream: Any = None
    stream_options: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None
    input: Any = None

    @property
    def streams(self) -> bool:
        return self.stream is True

    @property
    def reports_usage(self) -> bool:
        """Whether the caller wants the chunk that says what a stream has used."""
        return isinstance(self.stream_options, dict) and self.stream_options.get("include_usage") is True

    @property
    def answer_tokens(self) -> int:
        """The most tokens that all answers together may have."""
        said = (self.max_completion_tokens, self.max_output_tokens, self.max_tokens)
        most = next((one for one in said if _is_count(one)), DEFAULT_ANSWER_TOKENS)
        answers = self.n if _is_count(self.n) else 1
        return int(min(most, _MOST_TOKENS) * min(answers, _MOST_ANSWERS))


NOTHING = Asked()
_decode = msgspec.json.Decoder(Asked).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def path_of(tail: bytes) -> bytes:
    """Return the address below an endpoint, the same whether that ends with ``/v1`` or its callers add it."""
    return tail.partition(b"?")[0].removeprefix(b"/v1")


def read(body: bytes) -> Asked:
    """Return what a JSON body asks for; nothing of a body that can't be read."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return NOTHING


def asked_tokens(call: Call, tail: bytes) -> int:
    """Return how many tokens the answer to a call may have; 0 while its body, which says so, isn't here."""
    if not call.body_complete or path_of(tail) not in GENERATED:
        return 0
    return read(b"".join(call.body)).answer_tokens


def with_usage(body: bytes, asked: Asked) -> bytes:
    """Return a body that asks for the chunk with the usage as well, everything else in it as it was spelt."""
    members: dict[str, Any] = {**_members.decode(body)}
    options = asked.stream_options if isinstance(asked.stream_options, dict) else {}
    members["stream_options"] = {**options, "include_usage": True}
    return _encode(members)


def with_model(body: bytes, model: str) -> bytes:
    """Return a body that names another model, everything else in it as it was spelt."""
    return _encode({**_members.decode(body), "model": model})
