"""One item's call at the gateway, and what its answer means for the item."""

from __future__ import annotations

import random
from typing import Any

import httpx
import msgspec

from haat.jobs.model import Item, Job, Outcome, idempotency_key

MOST_ANSWER_BYTES = 16 * 1024 * 1024
NOT_NOW = frozenset(
    {
        "CONCURRENT",
        "RATE_LIMITED",
        "QUOTA_EXHAUSTED",
        "PROVIDER_BUSY",
        "OVERLOADED",
        "IDEMPOTENCY_IN_PROGRESS",
        "IDEMPOTENCY_UNAVAILABLE",
        "JOURNAL_UNAVAILABLE",
        "JOURNAL_FULL",
        "PLUGIN_FAILED",
    }
)
"""Nothing was executed, and it isn't the item's fault: it waits, and that is no attempt.

``CONCURRENT`` is our own word for a refusal by the limit on calls in flight, which is over as soon as one has ended.
"""
_SAFE_TO_SEND_AGAIN = frozenset({"PROVIDER_UNAVAILABLE", "ENGINE_MISSING"})
"""Nothing was executed either, but it may be so for long: attempts are counted."""
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 300.0
_LONGEST_PAUSE = 3600.0
"""Even where a quota resets later: the plan may have been changed meanwhile."""

_said = msgspec.json.Decoder(dict[str, Any])


async def call(client: httpx.AsyncClient, job: Job, item: Item, key: str) -> Outcome:
    """Make an item's call as the job's application; return what to keep of it.

    The same key number is sent with each repetition, so that what was executed is not executed, or billed, twice.
    """
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Idempotency-Key": idempotency_key(job.id, item),
        "X-Haat-Tags": f"job={job.id}",
    }
    try:
        async with client.stream(
            "POST",
            job.target,
            content=item.body,
            headers=headers,
            timeout=httpx.Timeout(job.timeout_seconds, connect=5),
        ) as response:
            body = await _read(response)
    except httpx.ConnectError:
        return _wait(item, 1, "OVERLOADED")
    except httpx.TimeoutException:
        return _again(job, item, "PROVIDER_TIMEOUT", anew=False)
    except httpx.HTTPError:
        return _again(job, item, "PROVIDER_FAILED", anew=False)
    if body is None:
        return Outcome(item.place, "failed", item.attempts + 1, item.key_number, error_code="ANSWER_TOO_LARGE")
    return judge(job, item, response.status_code, response.headers, body)


async def _read(response: httpx.Response) -> bytes | None:
    """Return the body, None when it is too large to be kept."""
    body = bytearray()
    async for data in response.aiter_bytes():
        body += data
        if len(body) > MOST_ANSWER_BYTES:
            return None
    return bytes(body)


def judge(job: Job, item: Item, status: int, headers: httpx.Headers, body: bytes) -> Outcome:
    """Return what an answer of the gateway means: done, refused for good, again later."""
    content_type = headers.get("content-type", "")
    request_id = headers.get("x-request-id", "")
    if status < 400:
        return Outcome(
            item.place,
            "succeeded",
            item.attempts + 1,
            item.key_number,
            http_status=status,
            content_type=content_type,
            answer=body,
            request_id=request_id,
        )
    code, pause = _refusal(headers, body)
    if code in NOT_NOW:
        return _wait(item, pause, code)
    if code == "INVALID_CREDENTIAL" and job.slices <= 3:
        return _wait(item, 0.3, code)  # the gateway has not heard of the job's key yet
    anew = code not in _SAFE_TO_SEND_AGAIN
    is_ours_to_repeat = status >= 500 or status == 408
    if is_ours_to_repeat and item.attempts + 1 < job.max_attempts:
        return _again(job, item, code, anew=anew)
    return Outcome(
        item.place,
        "failed",
        item.attempts + 1,
        item.key_number,
        http_status=status,
        content_type=content_type,
        answer=body,
        request_id=request_id,
        error_code=code,
    )


def _refusal(headers: httpx.Headers, body: bytes) -> tuple[str, float]:
    """Return a refusal's code, whatever protocol it is told in, and the seconds to wait."""
    try:
        said = _said.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        said = {}
    inner = said.get("error") if isinstance(said.get("error"), dict) else said
    code = inner.get("code") if isinstance(inner, dict) else None
    if code == "RATE_LIMITED" and said.get("limit") == "concurrent":
        return "CONCURRENT", 0.05
    given = headers.get("retry-after", "")
    pause = float(given[:9]) if given.isdecimal() else 0.5
    return (code if isinstance(code, str) and code else "PROVIDER_REFUSED"), min(max(pause, 0.05), _LONGEST_PAUSE)


def _wait(item: Item, seconds: float, code: str) -> Outcome:
    return Outcome(item.place, "waiting", item.attempts, item.key_number, due_in=seconds, error_code=code)


def _again(job: Job, item: Item, code: str, *, anew: bool) -> Outcome:
    """Return the outcome of an attempt that failed: another one later, or the end."""
    attempts = item.attempts + 1
    if attempts >= job.max_attempts:
        return Outcome(item.place, "failed", attempts, item.key_number, error_code=code)
    wait = min(_FIRST_WAIT * 4 ** (attempts - 1), _LONGEST_WAIT) * random.uniform(0.8, 1.2)  # noqa: S311
    return Outcome(item.place, "waiting", attempts, item.key_number + anew, due_in=wait, error_code=code)
