"""OpenAI's batches: a file of requests for one endpoint, worked on as a job, answered in two files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from haat.infra.postgres import Connection
from haat.jobs import files, store
from haat.jobs.lines import lines_of, read_object
from haat.jobs.model import Entry, Job, Options, Result, wrong_line
from haat.kernel.errors import InvalidRequest

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/moderations", "/v1/responses")
WINDOW = "24h"
_MODEL = re.compile(r"([a-z0-9-]{1,63})/([a-z0-9-]{1,63})(@[A-Za-z0-9._-]{1,64})?")
_STATUSES = {"waiting": "in_progress", "running": "in_progress"}
_encode = msgspec.json.Encoder().encode


def options_of(metadata: Mapping[str, str] | None) -> Options:
    """Return how a batch is to be done."""
    return Options(metadata=metadata or {}, due=timedelta(hours=24)).check()


def check_request(endpoint: str, window: str) -> None:
    """Raise InvalidRequest for an endpoint that takes no batches, or another completion window."""
    if endpoint not in ENDPOINTS:
        raise InvalidRequest(f"endpoint: is one of {', '.join(ENDPOINTS)}", field="endpoint")
    if window != WINDOW:
        raise InvalidRequest(f"completion_window: is {WINDOW}", field="completion_window")


async def entries(content: AsyncIterable[bytes], endpoint: str) -> AsyncIterator[Entry]:
    """Yield the requests in a file; raise InvalidRequest that names the line which isn't one."""
    known: set[str] = set()
    async for number, line in lines_of(content):
        said = read_object(number, line)
        custom_id, body = said.get("custom_id"), said.get("body")
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= 256 or "\0" in custom_id:
            raise wrong_line(number, "needs a `custom_id` of 1 to 256 characters")
        if custom_id in known:
            raise wrong_line(number, "has a `custom_id` that an earlier line has")
        if said.get("method") != "POST":
            raise wrong_line(number, "needs `method`: POST")
        if said.get("url") != endpoint:
            raise wrong_line(number, f"needs `url`: {endpoint}, the batch's endpoint")
        if not isinstance(body, dict):
            raise wrong_line(number, "needs a `body` that is an object")
        if body.get("stream"):
            raise wrong_line(number, "asks for a stream, which a batch does not give")
        known.add(custom_id)
        model = body.get("model")
        named = _MODEL.fullmatch(model) if isinstance(model, str) else None
        yield Entry(_encode(body), custom_id, (named[1], named[2]) if named else None)


async def write_files(connection: Connection, identifier: UUID, at: datetime) -> None:
    """Make the files of a batch that has ended, within the transaction that ends it."""
    job = await store.job(connection, identifier)
    assert job is not None
    name = f"batch_{identifier.hex}"

    async def lines(succeeded: bool) -> AsyncIterator[bytes]:
        after = -1
        while found := await store.results(connection, identifier, after=after, limit=100):
            for result in found:
                if (result.status == "succeeded") == succeeded:
                    yield _encode(line_of(identifier, result)) + b"\n"
            after = found[-1].place

    owner = job.org_id, job.application_id
    output = await files.make(connection, *owner, f"{name}_output.jsonl", lines(True), at)
    errors = await files.make(connection, *owner, f"{name}_error.jsonl", lines(False), at)
    await store.set_files(connection, identifier, output, errors)


def line_of(job: UUID, result: Result) -> dict[str, Any]:
    """Return a request's line in the output or the error file."""
    line: dict[str, Any] = {
        "id": f"batch_req_{job.hex}_{result.place}",
        "custom_id": result.custom_id,
        "response": None,
        "error": None,
    }
    if result.http_status is not None:
        line["response"] = {
            "status_code": result.http_status,
            "request_id": result.request_id,
            "body": _body(result.answer),
        }
    elif result.status in ("cancelled", "expired"):
        said = {"cancelled": "The batch was cancelled before this request was executed.",
                "expired": "The batch's window was over before this request was executed."}  # fmt: skip
        line["error"] = {"code": f"batch_{result.status}", "message": said[result.status]}
    else:
        line["error"] = {"code": result.error_code, "message": "The request was given up after its last attempt."}
    return line


def _body(answer: bytes | None) -> Any:
    """Return an answer as it goes into a line: JSON as it is, anything else as text."""
    try:
        msgspec.json.decode(answer or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return (answer or b"").decode("utf-8", "replace")
    return msgspec.Raw(b" ".join((answer or b"").splitlines()))


def shown(job: Job) -> dict[str, Any]:
    """Return a batch as the protocol shows it."""
    ended = _seconds(job.ended_at)

    def at(status: str) -> int | None:
        return ended if job.status == status else None

    return {
        "id": f"batch_{job.id.hex}",
        "object": "batch",
        "endpoint": job.target,
        "errors": {"object": "list", "data": [{"code": "failed", "message": job.reason}]} if job.reason else None,
        "input_file_id": f"file-{job.input_file.hex}" if job.input_file else None,
        "completion_window": WINDOW,
        "status": _STATUSES.get(job.status, job.status),
        "output_file_id": f"file-{job.output_file.hex}" if job.output_file else None,
        "error_file_id": f"file-{job.error_file.hex}" if job.error_file else None,
        "created_at": _seconds(job.created_at),
        "in_progress_at": _seconds(job.started_at),
        "expires_at": _seconds(job.due_until),
        "finalizing_at": at("completed"),
        "completed_at": at("completed"),
        "failed_at": at("failed"),
        "expired_at": at("expired"),
        "cancelling_at": _seconds(job.cancel_asked_at),
        "cancelled_at": at("cancelled"),
        "request_counts": {"total": job.total, "completed": job.succeeded, "failed": job.failed},
        "metadata": dict(job.metadata) or None,
    }


def _seconds(at: datetime | None) -> int | None:
    return int(at.timestamp()) if at else None
