"""What a provider says a call has used, in the words of OpenAI's and Anthropic's protocols. Pure.

    chat, completions, embeddings   ``{"prompt_tokens", "completion_tokens", "total_tokens", "…_details": {…}}``
    responses, transcriptions       ``{"input_tokens", "output_tokens", "total_tokens", "…_details": {…}}``
    transcriptions                  ``{"type": "duration", "seconds"}``
    messages                        ``{"input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens",
                                    "output_tokens"}``: what came out of their cache is not in the first

Where nobody reports anything, a token is taken for four bytes: of the request's body, and of the text in the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BYTES_A_TOKEN = 4
_MOST = 10**12
_TEXTS = ("content", "text", "thinking", "reasoning", "reasoning_content", "refusal", "arguments", "partial_json")
_INSIDE = (
    "choices",
    "content",
    "content_block",
    "delta",
    "function",
    "message",
    "output",
    "response",
    "tool_calls",
)
_DEEPEST = 8


def report_of(usage: Mapping[str, Any]) -> dict[str, str]:
    """Return units by name, ``{"tokens": "30", "input_tokens": "10", …}``; empty when a usage block holds none."""
    taken = _count(usage, "prompt_tokens", "input_tokens")
    given = _count(usage, "completion_tokens", "output_tokens")
    whole = _count(usage, "total_tokens")
    if taken is None and given is None and whole is None:
        seconds = usage.get("seconds")
        return {"audio_seconds": f"{seconds:.6f}".rstrip("0").rstrip(".")} if _is_amount(seconds) else {}
    cached = _detail(usage, "cached_tokens", "prompt_tokens_details", "input_tokens_details")
    kept = [_count(usage, name) for name in ("cache_read_input_tokens", "cache_creation_input_tokens")]
    if kept != [None, None]:
        taken = (taken or 0) + sum(one or 0 for one in kept)
        cached = kept[0]
    found = {
        "tokens": (taken or 0) + (given or 0) if whole is None else whole,
        "input_tokens": taken,
        "output_tokens": given,
        "cached_tokens": cached,
        "cache_write_tokens": kept[1],
        "reasoning_tokens": _detail(usage, "reasoning_tokens", "completion_tokens_details", "output_tokens_details"),
        "input_audio_tokens": _detail(usage, "audio_tokens", "prompt_tokens_details", "input_tokens_details"),
        "output_audio_tokens": _detail(usage, "audio_tokens", "completion_tokens_details", "output_tokens_details"),
    }
    sometimes = found.keys() - {"tokens", "input_tokens", "output_tokens"}
    return {name: str(count) for name, count in found.items() if count or (count == 0 and name not in sometimes)}


def spell(report: Mapping[str, str]) -> str:
    """Return a report as `X-Haat-Usage` has it: ``tokens=30; input_tokens=10``."""
    return "; ".join(f"{name}={quantity}" for name, quantity in report.items())


def estimate(asked_bytes: int, answer_bytes: int, taken: int | None = None) -> dict[str, str]:
    """Return what a call is taken to have used; ``taken`` are the tokens of its request where those are known."""
    if taken is None:
        taken = -(-asked_bytes // BYTES_A_TOKEN)
    given = -(-answer_bytes // BYTES_A_TOKEN)
    return {"tokens": str(taken + given), "input_tokens": str(taken), "output_tokens": str(given)}


def text_bytes(document: object, depth: int = 0) -> int:
    """Return the bytes of the text that an answer, or one event of it, holds."""
    if depth > _DEEPEST:
        return 0
    if isinstance(document, list):
        return sum(text_bytes(part, depth + 1) for part in document)
    if not isinstance(document, dict):
        return 0
    size = 0
    for name in _TEXTS:
        text = document.get(name)
        if isinstance(text, str):
            size += len(text.encode("utf-8", "replace"))
    delta = document.get("delta")
    if isinstance(delta, str):  # an event of responses or transcriptions
        return size + len(delta.encode("utf-8", "replace"))
    if document.get("type") in _AGAIN:
        return 0
    return size + sum(text_bytes(document[name], depth + 1) for name in _INSIDE if name in document)


_AGAIN = frozenset(
    {
        "response.completed",
        "response.content_part.done",
        "response.incomplete",
        "response.output_item.done",
        "response.output_text.done",
        "response.function_call_arguments.done",
        "transcript.text.done",
    }
)
"""Events that say again what others before them have said."""


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and _is_amount(value):
            return value
    return None


def _detail(usage: Mapping[str, Any], name: str, *details: str) -> int | None:
    for one in details:
        inside = usage.get(one)
        if isinstance(inside, dict):
            return _count(inside, name)
    return None


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MOST
