"""``POST /services/feedback/submit``: what callers say of answers, kept as JSON lines beside the gateway's files.

What was sent and what was answered are not kept: only the opinion, the tasks it is about and the texts
that the caller would rather have seen.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from haat.gateway import relay
from haat.gateway.doors.bodies import read_body, wrong_field
from haat.gateway.doors.ulca.protocol import UlcaOperation, encode
from haat.gateway.doors.ulca.shapes import Task
from haat.gateway.doors.visit import Visit
from haat.kernel.errors import Overloaded
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

log = logging.getLogger(__name__)

MOST_BYTES = 16 * 1024
"""Of one opinion as it is kept."""
FILE_BYTES = 8 * 1024 * 1024
"""A worker has two files of this size at most: when the first is full it takes the place of the second."""
_one_at_a_time = threading.Lock()
_LATEST = 9_999_999_999
"""Unix time in seconds, not in milliseconds."""
_FORMS = Literal["rating", "comment", "thumbs", "rating-list", "comment-list", "thumbs-list", "checkbox-list"]


class _Opinion(msgspec.Struct, rename="camel", omit_defaults=True):
    question: str
    feedback_type: _FORMS
    comment: str | None = None
    is_liked: bool | None = None
    rating: int | None = None
    checkbox_list: list[dict[str, str | bool]] | None = None
    rating_list: list[dict[str, str | int]] | None = None
    comment_list: list[dict[str, str]] | None = None
    thumbs_list: list[dict[str, str | bool]] | None = None


class _OfPipeline(msgspec.Struct, rename="camel"):
    common_feedback: list[_Opinion]


class _OfTask(msgspec.Struct, rename="camel", omit_defaults=True):
    task_type: str
    common_feedback: list[_Opinion]
    granular_feedback: list[_Opinion] | None = None


class _Input(msgspec.Struct, rename="camel"):
    pipeline_tasks: list[Task]


class _Text(msgspec.Struct, omit_defaults=True):
    source: str | None = None
    target: str | list[str] | None = None


class _Part(msgspec.Struct, rename="camel", omit_defaults=True):
    task_type: str
    output: list[_Text] | None = None


class _Suggested(msgspec.Struct, rename="camel"):
    pipeline_response: list[_Part]


class _Body(msgspec.Struct, rename="camel"):
    feedback_language: str
    pipeline_input: _Input
    feedback_time_stamp: int | None = None
    suggested_pipeline_output: _Suggested | None = None
    pipeline_feedback: _OfPipeline | None = None
    task_feedback: list[_OfTask] | None = None


class Feedback(UlcaOperation):
    """Takes an opinion, and answers when it is on the disk."""

    name = "ulca feedback"
    _decoder = msgspec.json.Decoder(_Body)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _Body = read_body(self._decoder, call)
        if asked.feedback_time_stamp is not None and not 0 <= asked.feedback_time_stamp <= _LATEST:
            raise wrong_field("feedbackTimeStamp", "must be Unix time in seconds")
        if not (asked.pipeline_feedback or asked.task_feedback or asked.suggested_pipeline_output):
            raise wrong_field("pipelineFeedback", "must be given, or `taskFeedback`, or `suggestedPipelineOutput`")
        line = encode(_record(call, asked)) + b"\n"
        if len(line) > MOST_BYTES:
            raise wrong_field("taskFeedback", f"and all beside it must be at most {MOST_BYTES} bytes")
        path = gateway.settings.data_dir / "gateway" / "feedback" / f"{gateway.meter.worker}.jsonl"
        _Keeping(call, visit).begin(path, line)
        return False


def _record(call: Call, asked: _Body) -> dict[str, Any]:
    credential = call.credential
    assert credential is not None
    tasks = [
        {"taskType": task.task_type, "serviceId": task.config.service_id if task.config else None}
        for task in asked.pipeline_input.pipeline_tasks
    ]
    kept = {
        "id": call.id,
        "at": call.started // 1000,
        "application": credential.application,
        "said_at": asked.feedback_time_stamp,
        "language": asked.feedback_language,
        "tasks": tasks,
        "pipeline": asked.pipeline_feedback,
        "by_task": asked.task_feedback,
        "suggested": asked.suggested_pipeline_output,
    }
    return {name: value for name, value in kept.items() if value is not None}


class _Keeping:
    """Writes one opinion, beside the event loop, and then answers its call."""

    def __init__(self, call: Call, visit: Visit) -> None:
        self._call, self._visit = call, visit

    def begin(self, path: Path, line: bytes) -> None:
        written = asyncio.get_running_loop().run_in_executor(None, append, path, line)
        written.add_done_callback(self._written)

    def _written(self, written: asyncio.Future[None]) -> None:
        call = self._call
        error = None if written.cancelled() else written.exception()
        if call.answered:
            return  # who gave it has left
        if error is not None or written.cancelled():
            log.error("feedback is not kept: %s", error)
            relay.refuse(call, Overloaded("Feedback can't be kept right now: try again later."), Outcome.REFUSED)
            return
        self._visit.answer(call, encode({"id": call.id, "message": "Feedback is kept."}), status=201)


def append(path: Path, line: bytes) -> None:
    """Append a line to a file for good; a file that is full takes the place of the one before it. Raise OSError."""
    with _one_at_a_time:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size + len(line) > FILE_BYTES:
            path.replace(path.with_suffix(".old.jsonl"))
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):  # the disk is full
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, "there is no space left")
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
