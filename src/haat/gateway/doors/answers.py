"""What a provider has answered at a native address, on its way into a door's own shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.http.headers import value_of
from haat.kernel.errors import HaatError, ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.http.answers import Whole


class Refused(HaatError):
    """What a provider answered instead of a result, on its way into a door's own shape."""

    def __init__(self, status: int, code: str, title: str, detail: str, **extensions: Any) -> None:
        super().__init__(detail, **extensions)
        self.status, self.code, self.title = status, code, title  # type: ignore[misc]  # of this one answer


class _Problem(msgspec.Struct):
    code: str = ""
    title: str = ""
    detail: str = ""
    errors: list[dict[str, str]] = []


_problem = msgspec.json.Decoder(_Problem)


def refusal_in(answer: Whole) -> HaatError:
    """Read a provider's refusal: a problem of ours (RFC 9457), or whatever it is."""
    try:
        said = _problem.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        said = _Problem()
    detail = said.detail or answer.body[:500].decode("utf-8", "replace").strip() or "The provider gave no reason."
    code = said.code or ("PROVIDER_FAILED" if answer.status >= 500 else "PROVIDER_REFUSED")
    fields = [one for one in said.errors if one.keys() >= {"field", "message"}]
    extensions: dict[str, Any] = {"errors": fields} if fields else {}
    if answer.status in (429, 503) and (pause := retry_after(answer.lines)):
        extensions["reset_seconds"] = pause
    return Refused(answer.status, code, said.title or "The provider refused the call", detail, **extensions)


def retry_after(lines: list[bytes]) -> int:
    """Return the seconds that an answer's ``Retry-After`` asks to wait for; 0 when it says none, or a date."""
    said = value_of(lines, b"retry-after")
    return min(int(said[:9]), 86_400) if said.isdigit() else 0


class _TaskAnswer(msgspec.Struct):
    output: list[dict[str, Any]]
    usage: dict[str, float] = {}


_task_answer = msgspec.json.Decoder(_TaskAnswer)


def read_task_answer(answer: Whole) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return the outputs and the usage in the answer of a task service; raise ProviderFailed for anything else."""
    try:
        found = _task_answer.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable() from error
    return found.output, found.usage


def read_outputs(body: bytes) -> list[dict[str, Any]]:
    """Return the outputs in one part of such an answer; raise ProviderFailed for anything else."""
    try:
        return _task_answer.decode(body).output
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable() from error


def _unreadable() -> ProviderFailed:
    return ProviderFailed("The provider's answer is not of the task schema; the call is not billed.")
