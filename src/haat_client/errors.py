"""What can go wrong, as types: by the stable ``code`` of the problem that the market answers with (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class HaatError(Exception):
    """Whatever this client raises."""


class NotConfigured(HaatError):
    """A key, a token or an address is missing, or no address at all."""


class ConnectionFailed(HaatError):
    """The market can't be reached, or the connection broke before an answer came."""


class TimedOut(ConnectionFailed):
    """No answer within the client's own timeout. The call may have been executed."""


class UnreadableAnswer(HaatError):
    """An answer that is good by its status and not of the shape it must have. ``request_id`` names the call."""

    def __init__(self, sentence: str, request_id: str) -> None:
        super().__init__(sentence)
        self.request_id = request_id


class ApiError(HaatError):
    """A refusal. ``code`` is stable, ``detail`` says what to do, ``request_id`` is what to quote."""

    def __init__(self, status: int, problem: Mapping[str, Any], request_id: str = "", retry_after: float | None = None):
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code") or "")
        self.title = str(problem.get("title") or "")
        self.detail = str(problem.get("detail") or "")
        self.request_id = request_id or str(problem.get("request_id") or "")
        self.retry_after = retry_after
        """Seconds after which it is worth trying again; None when that isn't said."""
        fields = self.errors
        said = "; ".join(f"{one['field']}: {one['message']}" for one in fields) if fields else self.detail or self.title
        super().__init__(f"{status} {self.code}: {said} (request {self.request_id or 'without an id'})")

    @property
    def errors(self) -> list[dict[str, str]]:
        """The wrong fields: ``field`` and ``message`` each."""
        given = self.problem.get("errors")
        known = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
        return [{"field": str(one.get("field", "")), "message": str(one.get("message", ""))} for one in known]


class Rejected(ApiError):
    """The request is wrong as it is: sending it again helps nobody."""


class Unauthenticated(ApiError):
    """The key or the session is missing, unknown, expired or revoked."""


class PermissionDenied(ApiError):
    """Known, and not allowed to."""


class NotSubscribed(PermissionDenied):
    """The application is not subscribed to the service."""


class NotFound(ApiError):
    """There is no such thing, or no more."""


class IdempotencyConflict(ApiError):
    """The Idempotency-Key was used already: for another request, or for one whose outcome can't be given again."""


class RateLimited(ApiError):
    """More calls than the plan allows: `retry_after` says how long to wait."""


class QuotaExhausted(RateLimited):
    """The plan's quota is used up: waiting a moment does not help."""


class Overloaded(ApiError):
    """Too much is going on; nothing was executed."""


class ProviderError(ApiError):
    """The provider failed, was too slow, or can't be reached; the call is not billed."""


class StreamBroken(ApiError):
    """A stream of events ended with an error, or without its end; what came until then has been given."""


_BY_CODE: dict[str, type[ApiError]] = {
    "QUOTA_EXHAUSTED": QuotaExhausted,
    "RATE_LIMITED": RateLimited,
    "NOT_SUBSCRIBED": NotSubscribed,
    "IDEMPOTENCY_MISMATCH": IdempotencyConflict,
    "IDEMPOTENCY_IN_PROGRESS": IdempotencyConflict,
    "IDEMPOTENCY_UNKNOWN": IdempotencyConflict,
    "IDEMPOTENCY_NOT_KEPT": IdempotencyConflict,
    "PROVIDER_UNAVAILABLE": ProviderError,
    "PROVIDER_BUSY": Overloaded,
    "PROVIDER_FAILED": ProviderError,
    "PROVIDER_TIMEOUT": ProviderError,
    "ENGINE_FAILED": ProviderError,
    "ENGINE_MISSING": ProviderError,
    "ENGINE_TIMEOUT": ProviderError,
}
_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    410: NotFound,
    429: RateLimited,
    502: ProviderError,
    503: Overloaded,
    504: ProviderError,
}


def type_of(code: str, status: int) -> type[ApiError]:
    """Return the type of a refusal: by its code where one stands for it, else by its status."""
    found = _BY_CODE.get(code) or _BY_STATUS.get(status)
    return found if found is not None else Rejected if status < 500 else ApiError


def error_of(status: int, body: bytes, request_id: str, retry_after: float | None) -> ApiError:
    """Return the error that an answer is."""
    problem = read_problem(body)
    return type_of(str(problem.get("code") or ""), status)(status, problem, request_id, retry_after)


def read_problem(body: bytes) -> dict[str, Any]:
    """Read a problem, or an error in the shape of OpenAI's protocol; of anything else the text is the detail."""
    try:
        read = json.loads(body)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        return {"detail": body[:500].decode("utf-8", "replace").strip()}
    inner = read.get("error")
    if isinstance(inner, dict):
        return {**inner, "detail": inner.get("message", "")}
    return read
