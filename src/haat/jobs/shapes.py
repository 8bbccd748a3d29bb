"""How a job and its results look to callers."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

import msgspec
from pydantic import BaseModel

from haat.jobs.model import Job, Result

encode = msgspec.json.Encoder().encode


class ItemCounts(BaseModel):
    """Of a job's items. ``cancelled`` counts those that expired as well."""

    total: int
    waiting: int
    succeeded: int
    failed: int
    cancelled: int


class JobView(BaseModel):
    """A job. ``note`` says what it waits for, ``reason`` why it ended early; ``progress`` goes from 0 to 1."""

    id: str
    object: str
    status: str
    kind: str
    mode: str
    name: str
    target: str
    application_id: str
    priority: int
    items: ItemCounts
    progress: float
    note: str
    reason: str
    metadata: dict[str, str]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    due_until: datetime
    kept_until: datetime | None


class JobPage(BaseModel):
    items: list[JobView]
    next: str | None


def job_view(job: Job) -> JobView:
    """Return a job as callers see it."""
    return JobView(
        id=str(job.id),
        object="job",
        status=job.status,
        kind=job.kind,
        mode=job.mode,
        name=job.name,
        target=job.target,
        application_id=str(job.application_id),
        priority=job.priority,
        items=ItemCounts(
            total=job.total,
            waiting=job.waiting,
            succeeded=job.succeeded,
            failed=job.failed,
            cancelled=job.cancelled,
        ),
        progress=round(job.progress, 4),
        note=job.note,
        reason=job.reason,
        metadata=dict(job.metadata),
        created_at=job.created_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        due_until=job.due_until,
        kept_until=job.kept_until,
    )


def result_line(result: Result) -> bytes:
    """Return one line of a job's results, line end included."""
    return (
        encode(
            {
                "index": result.place,
                "status": result.status,
                "attempts": result.attempts,
                "http_status": result.http_status,
                "request_id": result.request_id or None,
                "error_code": result.error_code or None,
                "answer": _answer(result),
            }
        )
        + b"\n"
    )


def _answer(result: Result) -> Any:
    """Return an answer as it goes into a line: JSON as it is, anything else as base64."""
    if result.answer is None:
        return None
    try:
        msgspec.json.decode(result.answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        content = base64.b64encode(result.answer).decode()
        return {"content_type": result.content_type, "content": content}
    return msgspec.Raw(b" ".join(result.answer.splitlines()))
