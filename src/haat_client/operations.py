"""Every operation that this client performs: where it is, and what it takes. A test holds it against the market.

``query`` are the parameters of the address, ``body`` the members of the JSON; both are named as in the
market's own description, and as the arguments of the method that performs the operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Side = Literal["gateway", "control"]
Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Operation:
    """``{…}`` in ``path`` are filled in; those of the control API are below ``/api/v1``.

    ``keyed``: an Idempotency-Key makes sending it again safe. ``signed``: it needs a session token.
    """

    side: Side
    method: str
    path: str
    query: tuple[str, ...] = ()
    body: tuple[str, ...] = ()
    keyed: bool = False
    signed: bool = False


INVOKE = Operation("gateway", "POST", "/v1/services/{service}/invoke", body=("input", "config"), keyed=True)
REQUEST = Operation("gateway", "POST", "/v1/services/{service}{path}", keyed=True)
TRANSLATE = Operation(
    "gateway", "POST", "/v1/translate", body=("text", "target", "source", "policy", "pivot", "via", "timeout_ms"),
    keyed=True,
)  # fmt: skip
PIPELINE = Operation("gateway", "POST", "/v1/pipelines", body=("stages", "input", "timeout_ms"), keyed=True)
PIPELINE_STREAM = Operation(
    "gateway", "POST", "/v1/pipelines", body=("stages", "input", "timeout_ms", "split"), keyed=True
)
MODELS = Operation("gateway", "GET", "/v1/models")
MODEL = Operation("gateway", "GET", "/v1/models/{name}")
FEEDBACK = Operation(
    "gateway", "POST", "/v1/feedback", body=("request_id", "thumbs", "rating", "corrected", "answered", "comment")
)
JOB_SUBMIT = Operation(
    "gateway", "POST", "/v1/jobs",
    body=("service", "inputs", "path", "name", "priority", "timeout_seconds", "max_attempts", "mail", "metadata"),
)  # fmt: skip
JOBS = Operation("gateway", "GET", "/v1/jobs", query=("status", "cursor", "limit"))
JOB = Operation("gateway", "GET", "/v1/jobs/{job_id}")
JOB_RESULTS = Operation("gateway", "GET", "/v1/jobs/{job_id}/results", query=("status",))
JOB_CANCEL = Operation("gateway", "POST", "/v1/jobs/{job_id}/cancel")
JOB_RETRY = Operation("gateway", "POST", "/v1/jobs/{job_id}/retry")
SEARCH = Operation(
    "control",
    "GET",
    "/listings",
    query=("q", "category", "language", "provider", "max_price", "cursor", "limit", "sort", "exact"),
)
COMPLETE = Operation("control", "GET", "/autocomplete", query=("prefix",))
LISTING = Operation("control", "GET", "/listings/{provider}/{service}")
USAGE = Operation("control", "GET", "/usage", query=("month",), signed=True)
HOURS = Operation("control", "GET", "/usage/hours", query=("month", "service_id"), signed=True)
CALLS = Operation(
    "control",
    "GET",
    "/usage/calls",
    query=("start", "end", "service_id", "application_id", "outcome", "status_class", "user", "mode", "tag", "cursor",
           "limit"),
    signed=True,
)  # fmt: skip
CALL = Operation("control", "GET", "/usage/calls/{request_id}", signed=True)


def performs(operation: Operation) -> Callable[[Method], Method]:
    """Say which operation a method performs."""

    def say(method: Method) -> Method:
        method.operation = operation  # type: ignore[attr-defined]  # read by the test that holds both together
        return method

    return say
