"""What each method of the clients asks for: written once, for the one that waits and the one that is awaited.

`haat_client.blocking` and `haat_client.aio` make their methods of these: the arguments, their types and the
sentence about them are the same, and the result is what the request's ``read`` makes of the answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import update_wrapper
from typing import Any, Literal, TypeVar

from haat_client import operations as to
from haat_client.asking import Asking, Input, Simulate, call_headers, inputs, members, part, service_path
from haat_client.operations import performs
from haat_client.reading import answer_of, invocation_of, items_of, lines_of, models_of, pipeline_of, translation_of
from haat_client.results import Answer, Invocation, Items, PipelineRun, Translation
from haat_client.retries import Retries

Method = TypeVar("Method", bound=Callable[..., Any])


def as_method(method: Method, say: Callable[..., Any]) -> Method:
    """Give a method made of one of these functions its name, sentence and signature, with ``self`` before it."""
    update_wrapper(method, say)
    said = inspect.signature(say)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__signature__ = said.replace(parameters=[own, *said.parameters.values()])  # type: ignore[attr-defined]
    return method


# --- the gateway ----------------------------------------------------------------------------------


@performs(to.TRANSLATE)
def translate(
    text: str | Sequence[str],
    target: str,
    *,
    source: str | None = None,
    policy: Literal["price", "latency", "quality"] | None = None,
    pivot: Literal["never", "allow"] | None = None,
    via: str | None = None,
    timeout_ms: int | None = None,
    user: str | None = None,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    simulate: Simulate | None = None,
) -> Asking[Translation]:
    """Translate texts of one language with the service that suits best; without ``source`` it is told from them."""
    texts = text if isinstance(text, str) else list(text)
    body = members(text=texts, target=target, source=source, policy=policy, pivot=pivot, via=via, timeout_ms=timeout_ms)
    headers = call_headers(user, tags, idempotency_key, simulate, None)
    return Asking(to.TRANSLATE, translation_of, to.TRANSLATE.path, body=body, headers=headers)


@performs(to.INVOKE)
def invoke(
    service: str,
    input: Input | str,
    config: Mapping[str, Any] | None = None,
    *,
    user: str | None = None,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    simulate: Simulate | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    retries: Retries | None = None,
) -> Asking[Invocation]:
    """Call a service of the task schema. A text alone stands for ``{"text": …}``."""
    return Asking(
        to.INVOKE,
        invocation_of,
        service_path(service) + "/invoke",
        body={"input": inputs(input), "config": dict(config or {})},
        headers=call_headers(user, tags, idempotency_key, simulate, headers),
        timeout=timeout,
        retries=retries,
    )


@performs(to.INVOKE)
def stream(
    service: str,
    input: Input | str,
    config: Mapping[str, Any] | None = None,
    *,
    user: str | None = None,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    simulate: Simulate | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    retries: Retries | None = None,
) -> Asking[Any]:
    """Call a service and take its answer event by event; what has begun is not sent again."""
    made = call_headers(user, tags, idempotency_key, simulate, headers)
    return Asking(
        to.INVOKE,
        answer_of,
        service_path(service) + "/invoke",
        body={"input": inputs(input), "config": dict(config or {})},
        headers={"Accept": "text/event-stream", **made},
        timeout=timeout,
        retries=retries,
    )


@performs(to.REQUEST)
def request(
    service: str,
    path: str = "",
    *,
    method: str = "POST",
    query: Mapping[str, Any] | None = None,
    json: Any = None,
    content: bytes | None = None,
    user: str | None = None,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    simulate: Simulate | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    retries: Retries | None = None,
) -> Asking[Answer]:
    """Call a service with an API of its own; ``path`` is below the service and begins with a slash."""
    return Asking(
        to.REQUEST,
        answer_of,
        service_path(service) + path,
        method.upper(),
        query or {},
        json,
        content,
        call_headers(user, tags, idempotency_key, simulate, headers),
        timeout,
        retries,
    )


@performs(to.PIPELINE)
def run_pipeline(
    stages: Sequence[Mapping[str, Any]],
    input: Input | str,
    *,
    timeout_ms: int | None = None,
    user: str | None = None,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    simulate: Simulate | None = None,
) -> Asking[PipelineRun]:
    """Run stages, each ``{"service", "config"?, "name"?}``. Sent again, it goes on where it stopped."""
    body = members(stages=[dict(one) for one in stages], input=inputs(input), timeout_ms=timeout_ms)
    headers = call_headers(user, tags, idempotency_key, simulate, None)
    return Asking(to.PIPELINE, pipeline_of, to.PIPELINE.path, body=body, headers=headers)


@performs(to.PIPELINE_STREAM)
def stream_pipeline(
    stages: Sequence[Mapping[str, Any]],
    input: Input | str,
    *,
    timeout_ms: int | None = None,
    split: Literal["none", "sentences"] | None = None,
    user: str | None = None,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    simulate: Simulate | None = None,
) -> Asking[Any]:
    """Run stages item by item, and take what each makes of each item as soon as it is there."""
    body = members(stages=[dict(one) for one in stages], input=inputs(input), timeout_ms=timeout_ms, split=split)
    headers = call_headers(user, tags, idempotency_key, simulate, {"Accept": "text/event-stream"})
    return Asking(to.PIPELINE_STREAM, answer_of, to.PIPELINE_STREAM.path, body=body, headers=headers)


@performs(to.MODELS)
def list_models() -> Asking[Items]:
    """Return what the application may call, under all its names."""
    return Asking(to.MODELS, models_of, to.MODELS.path)


@performs(to.MODEL)
def get_model(name: str) -> Asking[Answer]:
    """Return one of them."""
    path = "/".join(part(one) for one in name.split("/"))
    return Asking(to.MODEL, answer_of, f"/v1/models/{path}")


@performs(to.FEEDBACK)
def feedback(
    request_id: str,
    *,
    thumbs: Literal["up", "down"] | None = None,
    rating: int | None = None,
    corrected: str | None = None,
    answered: str | None = None,
    comment: str | None = None,
) -> Asking[Answer]:
    """Say what the answer to one of the application's own requests was worth; said again, it replaces what was said."""
    body = members(
        request_id=request_id, thumbs=thumbs, rating=rating, corrected=corrected, answered=answered, comment=comment
    )
    return Asking(to.FEEDBACK, answer_of, to.FEEDBACK.path, body=body)


@performs(to.JOB_SUBMIT)
def submit_job(
    service: str,
    inputs: Sequence[Mapping[str, Any]],
    *,
    path: str | None = None,
    name: str | None = None,
    priority: int | None = None,
    timeout_seconds: int | None = None,
    max_attempts: int | None = None,
    mail: bool | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Asking[Answer]:
    """Hand in a job: ``inputs`` are the bodies of its calls. Its id is in ``data["id"]``."""
    body = members(
        service=service, inputs=[dict(one) for one in inputs], path=path, name=name, priority=priority,
        timeout_seconds=timeout_seconds, max_attempts=max_attempts, mail=mail,
        metadata=dict(metadata) if metadata is not None else None,
    )  # fmt: skip
    return Asking(to.JOB_SUBMIT, answer_of, to.JOB_SUBMIT.path, body=body)


@performs(to.JOBS)
def list_jobs(*, status: str | None = None, cursor: str | None = None, limit: int | None = None) -> Asking[Items]:
    """Return the application's jobs, newest first."""
    return Asking(to.JOBS, items_of, to.JOBS.path, query={"status": status, "cursor": cursor, "limit": limit})


@performs(to.JOB)
def get_job(job_id: str) -> Asking[Answer]:
    """Return a job as it stands."""
    return Asking(to.JOB, answer_of, f"/v1/jobs/{part(job_id)}")


@performs(to.JOB_RESULTS)
def job_results(job_id: str, *, status: str | None = None) -> Asking[Items]:
    """Return the items that have ended so far, in their order."""
    return Asking(to.JOB_RESULTS, lines_of, f"/v1/jobs/{part(job_id)}/results", query={"status": status})


@performs(to.JOB_CANCEL)
def cancel_job(job_id: str) -> Asking[Answer]:
    """Stop a job; calls that run are carried to their end."""
    return Asking(to.JOB_CANCEL, answer_of, f"/v1/jobs/{part(job_id)}/cancel")


@performs(to.JOB_RETRY)
def retry_job(job_id: str) -> Asking[Answer]:
    """Execute the items of an ended job anew that did not succeed."""
    return Asking(to.JOB_RETRY, answer_of, f"/v1/jobs/{part(job_id)}/retry")


JOB_ENDS = frozenset({"completed", "cancelled", "expired", "failed"})
JOB_LOOK_SECONDS = 1.0


# --- the control API ------------------------------------------------------------------------------


@performs(to.SEARCH)
def search_catalog(
    q: str | None = None,
    *,
    category: str | None = None,
    language: str | None = None,
    provider: str | None = None,
    max_price: Decimal | None = None,
    sort: str | None = None,
    exact: bool | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Asking[Items]:
    """Search in any script; ``next`` of the answer is the cursor of the page behind it.

    ``sort`` is best, cheapest, fastest or newest. A word that stands nowhere is replaced by the nearest one unless
    ``exact``.
    """
    query = {"q": q, "category": category, "language": language, "provider": provider, "max_price": max_price,
             "sort": sort, "exact": exact, "cursor": cursor, "limit": limit}  # fmt: skip
    return Asking(to.SEARCH, items_of, to.SEARCH.path, query=query)


@performs(to.COMPLETE)
def autocomplete(prefix: str) -> Asking[Items]:
    """Complete the last word that is being typed."""
    return Asking(to.COMPLETE, items_of, to.COMPLETE.path, query={"prefix": prefix})


@performs(to.LISTING)
def get_listing(provider: str, service: str) -> Asking[Answer]:
    """Return a listing with its versions and prices."""
    return Asking(to.LISTING, answer_of, f"/listings/{part(provider)}/{part(service)}")


@performs(to.USAGE)
def usage_summary(month: str | None = None) -> Asking[Items]:
    """Return a month by service, the running one if none is named."""
    return Asking(to.USAGE, items_of, to.USAGE.path, query={"month": month})


@performs(to.HOURS)
def usage_hours(month: str | None = None, service_id: str | None = None) -> Asking[Items]:
    """Return the hours of a month that had calls."""
    return Asking(to.HOURS, items_of, to.HOURS.path, query={"month": month, "service_id": service_id})


@performs(to.CALLS)
def usage_calls(
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    service_id: str | None = None,
    application_id: str | None = None,
    outcome: str | None = None,
    status_class: int | None = None,
    user: str | None = None,
    mode: Literal["live", "test"] | None = None,
    tag: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Asking[Items]:
    """Return calls, newest first; ``tag`` is ``name=value``."""
    query = {"start": start, "end": end, "service_id": service_id, "application_id": application_id,
             "outcome": outcome, "status_class": status_class, "user": user, "mode": mode, "tag": tag,
             "cursor": cursor, "limit": limit}  # fmt: skip
    return Asking(to.CALLS, items_of, to.CALLS.path, query=query)


@performs(to.CALL)
def usage_call(request_id: str) -> Asking[Answer]:
    """Return one call's story by its request id: its units, its price, the lines it lies on."""
    return Asking(to.CALL, answer_of, f"/usage/calls/{part(request_id)}")
