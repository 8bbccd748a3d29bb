"""What callers ask for at the gateway's doors, as the process answers that keeps their jobs.

The gateway introduces each caller; nobody else is listened to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response, StreamingResponse

from haat.control.context import IntroducedOf, PlatformOf, checked, json_of
from haat.jobs import batches, model
from haat.jobs.lines import lines_of, read_object
from haat.jobs.model import Caller, Entry, File, Job, Options, check_target, parse_id
from haat.jobs.shapes import JobPage, JobView, encode, job_view, result_line
from haat.kernel.errors import InvalidRequest, MalformedJson, NotFound, ValidationFailed

if TYPE_CHECKING:
    pass

LOOK_SECONDS, SIGN_OF_LIFE_SECONDS = 1.0, 15.0
JSONL = ("application/jsonl", "application/x-ndjson", "application/x-jsonlines", "application/json-lines")
router = APIRouter()


def caller_of(who: IntroducedOf) -> Caller:
    return Caller(UUID(who.org), UUID(who.application), UUID(who.credential), who.test, who.request)


CallerOf = Annotated[Caller, Depends(caller_of)]


class How(BaseModel):
    """How a job is to be done."""

    model_config = ConfigDict(extra="forbid")

    service: str
    """``provider/service``, or ``provider/service@version``."""
    path: str = "/invoke"
    """Below the service, as in a call of it."""
    name: str = ""
    priority: int = model.DEFAULT_PRIORITY
    timeout_seconds: int = model.DEFAULT_TIMEOUT
    max_attempts: int = model.DEFAULT_ATTEMPTS
    mail: bool = False
    """Mail the members of the organisation when it has ended."""

    def options(self, metadata: dict[str, str] | None = None) -> Options:
        return Options(
            name=self.name,
            priority=self.priority,
            timeout_seconds=self.timeout_seconds,
            max_attempts=self.max_attempts,
            mail=self.mail,
            metadata=metadata or {},
        ).check()


class Submission(How):
    """A job in one JSON: ``input`` is the body of one call, ``inputs`` those of several."""

    input: dict[str, Any] | None = None
    inputs: Annotated[list[dict[str, Any]] | None, Field(min_length=1)] = None
    metadata: dict[str, str] = {}


# --- jobs -----------------------------------------------------------------------------------------


async def _bodies(content: AsyncIterable[bytes]) -> AsyncIterator[Entry]:
    async for number, line in lines_of(content):
        read_object(number, line)
        yield Entry(line)


async def _given(bodies: list[dict[str, Any]]) -> AsyncIterator[Entry]:
    for body in bodies:
        yield Entry(encode(body))


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=JobView,
    openapi_extra={
        "requestBody": {
            "content": {
                "application/json": {"schema": Submission.model_json_schema()},
                "application/jsonl": {"schema": {"type": "string", "description": "the options are in the query"}},
            }
        }
    },
)
async def submit(request: Request, caller: CallerOf, platform: PlatformOf) -> Response:
    """Take a job: JSON, or lines of JSON with the options in the query."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    entries: AsyncIterator[Entry]
    how: How
    if kind in JSONL:
        how, metadata = checked(How, dict(request.query_params)), {}
        entries = _bodies(request.stream())
    else:
        asked: Submission = checked(Submission, await json_of(request))
        if (asked.input is None) == (asked.inputs is None):
            message = "send either `input` or `inputs`"
            raise ValidationFailed(errors=[{"field": "input", "message": message}])
        how, metadata = asked, asked.metadata
        entries = _given([asked.input] if asked.input is not None else asked.inputs or [])
    job = await platform.caller_jobs.submit(
        caller,
        entries,
        kind="native",
        target=check_target(how.service, how.path),
        options=how.options(metadata),
    )
    return _job(job, 202, {"Location": f"/v1/jobs/{job.id}"})


def _job(job: Job, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(job_view(job).model_dump_json(), status, headers, "application/json")


@router.get("/v1/jobs", response_model=JobPage)
async def list_jobs(
    caller: CallerOf,
    platform: PlatformOf,
    status: Literal["waiting", "running", "cancelling", "completed", "cancelled", "expired", "failed"] | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> JobPage:
    """Return the application's jobs, newest first, batches and ULCA's among them."""
    page = await platform.caller_jobs.find(caller, kind=None, status=status, cursor=cursor, limit=limit)
    return JobPage(items=[job_view(job) for job in page.items], next=page.next)


@router.get("/v1/jobs/{job_id}", response_model=JobView)
async def get_job(caller: CallerOf, platform: PlatformOf, job_id: str) -> JobView:
    return job_view(await platform.caller_jobs.get(caller, parse_id(job_id)))


@router.get("/v1/jobs/{job_id}/results", response_class=StreamingResponse)
async def get_results(
    caller: CallerOf,
    platform: PlatformOf,
    job_id: str,
    status: Literal["succeeded", "failed", "cancelled", "expired"] | None = None,
) -> StreamingResponse:
    """Return the items that have ended so far as lines of JSON, in their order."""
    job = await platform.caller_jobs.get(caller, parse_id(job_id))

    async def lines() -> AsyncIterator[bytes]:
        async for result in platform.caller_jobs.results(caller.org_id, job.id, status):
            yield result_line(result)

    return StreamingResponse(lines(), media_type="application/jsonl")


@router.get("/v1/jobs/{job_id}/events", response_class=StreamingResponse)
async def get_events(caller: CallerOf, platform: PlatformOf, job_id: str) -> StreamingResponse:
    """Say how far a job is each time that it has got further, until it has ended."""
    first = await platform.caller_jobs.get(caller, parse_id(job_id))

    async def events() -> AsyncIterator[bytes]:
        job, said, silent = first, b"", 0.0
        while True:
            view = job_view(job).model_dump_json().encode()
            if view != said:
                yield b"event: %b\ndata: %b\n\n" % (b"end" if job.is_over else b"progress", view)
                said, silent = view, 0.0
            elif silent >= SIGN_OF_LIFE_SECONDS:
                yield b": still here\n\n"
                silent = 0.0
            if job.is_over:
                return
            await asyncio.sleep(LOOK_SECONDS)
            silent += LOOK_SECONDS
            job = await platform.caller_jobs.get(caller, first.id)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.post("/v1/jobs/{job_id}/cancel", response_model=JobView)
async def cancel_job(caller: CallerOf, platform: PlatformOf, job_id: str) -> JobView:
    return job_view(await _cancelled(platform, caller, parse_id(job_id)))


@router.post("/v1/jobs/{job_id}/retry", response_model=JobView)
async def retry_job(caller: CallerOf, platform: PlatformOf, job_id: str) -> JobView:
    return job_view(await platform.caller_jobs.retry_by(caller, parse_id(job_id)))


async def _cancelled(platform: Any, caller: Caller, identifier: UUID) -> Job:
    by = f"credential/{caller.credential_id}"
    job: Job = await platform.caller_jobs.cancel(caller.org_id, caller.application_id, identifier, by)
    return job


# --- OpenAI's files and batches -------------------------------------------------------------------


@router.post("/v1/files")
async def add_file(request: Request, caller: CallerOf, platform: PlatformOf) -> dict[str, Any]:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InvalidRequest("file: send multipart/form-data with `file` and `purpose`", field="file")
    async with request.form(max_files=1, max_fields=20, max_part_size=64 * 1024) as form:
        file, purpose = form.get("file"), form.get("purpose")
        if file is None or isinstance(file, str):
            raise InvalidRequest("file: is missing from the form", field="file")
        if not isinstance(purpose, str):
            raise InvalidRequest("purpose: is missing from the form", field="purpose")
        upload = file

        async def content() -> AsyncIterator[bytes]:
            while data := await upload.read(1024 * 1024):
                yield data

        return _file(await platform.files.add(caller, upload.filename or "", purpose, content()))


def _file(file: File) -> dict[str, Any]:
    return {
        "id": f"file-{file.id.hex}",
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": int(file.expires_at.timestamp()),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _list(data: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}


Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("/v1/files")
async def list_files(
    caller: CallerOf, platform: PlatformOf, purpose: str | None = None, after: str | None = None, limit: Limit = 100
) -> dict[str, Any]:
    found, more = await platform.files.find(caller, purpose, _file_id(after) if after else None, limit)
    return _list([_file(file) for file in found], more)


def _file_id(text: str) -> UUID:
    return parse_id(text, "file-", "file")


@router.get("/v1/files/{file_id}")
async def get_file(caller: CallerOf, platform: PlatformOf, file_id: str) -> dict[str, Any]:
    return _file(await platform.files.get(caller, _file_id(file_id)))


@router.delete("/v1/files/{file_id}")
async def delete_file(caller: CallerOf, platform: PlatformOf, file_id: str) -> dict[str, Any]:
    await platform.files.delete(caller, _file_id(file_id))
    return {"id": file_id, "object": "file", "deleted": True}


@router.get("/v1/files/{file_id}/content")
async def get_content(caller: CallerOf, platform: PlatformOf, file_id: str) -> StreamingResponse:
    file = await platform.files.get(caller, _file_id(file_id))
    return StreamingResponse(
        platform.files.content(file),
        media_type="application/octet-stream",
        headers={"Content-Length": str(file.bytes), "Content-Disposition": "attachment"},
    )


class NewBatch(BaseModel):
    """What a batch is created with. Members that the protocol has beside these change nothing here."""

    input_file_id: str
    endpoint: str
    completion_window: str = batches.WINDOW
    metadata: dict[str, str] | None = None


@router.post("/v1/batches")
async def add_batch(request: Request, caller: CallerOf, platform: PlatformOf) -> dict[str, Any]:
    asked: NewBatch = checked(NewBatch, await json_of(request))
    batches.check_request(asked.endpoint, asked.completion_window)
    try:
        file = await platform.files.get(caller, _file_id(asked.input_file_id))
    except NotFound as error:
        raise InvalidRequest(f"input_file_id: {error.detail}", field="input_file_id") from error
    if file.purpose != "batch":
        raise InvalidRequest("input_file_id: is a file whose purpose is not `batch`", field="input_file_id")
    job = await platform.caller_jobs.submit(
        caller,
        batches.entries(platform.files.content(file), asked.endpoint),
        kind="openai",
        target=asked.endpoint,
        options=batches.options_of(asked.metadata),
        input_file=file.id,
    )
    return batches.shown(job)


@router.get("/v1/batches")
async def list_batches(
    caller: CallerOf, platform: PlatformOf, after: str | None = None, limit: Limit = 20
) -> dict[str, Any]:
    found, more = await platform.caller_jobs.batches(caller, _batch_id(after) if after else None, limit)
    return _list([batches.shown(job) for job in found], more)


def _batch_id(text: str) -> UUID:
    return parse_id(text, "batch_", "batch")


@router.get("/v1/batches/{batch_id}")
async def get_batch(caller: CallerOf, platform: PlatformOf, batch_id: str) -> dict[str, Any]:
    return batches.shown(await _batch(platform, caller, batch_id))


@router.post("/v1/batches/{batch_id}/cancel")
async def cancel_batch(caller: CallerOf, platform: PlatformOf, batch_id: str) -> dict[str, Any]:
    job = await _batch(platform, caller, batch_id)
    return batches.shown(await _cancelled(platform, caller, job.id))


async def _batch(platform: Any, caller: Caller, text: str) -> Job:
    job: Job = await platform.caller_jobs.get(caller, _batch_id(text))
    if job.kind != "openai":
        raise NotFound("There is no such batch.")
    return job


# --- ULCA's asynchronous form ---------------------------------------------------------------------


@router.get("/services/inference/poll/{request_id}")
async def poll(caller: CallerOf, platform: PlatformOf, request_id: str) -> Response:
    """Return the answer of a request that was to be answered later, or that it is not here yet."""
    return await _polled(platform, caller, request_id)


@router.post("/services/inference/poll")
async def poll_with_body(request: Request, caller: CallerOf, platform: PlatformOf) -> Response:
    """The same, asked for as ULCA has it: with ``{"requestId": …}``."""
    said = await json_of(request)
    request_id = said.get("requestId") if isinstance(said, dict) else None
    if not isinstance(request_id, str):
        raise ValidationFailed(
            errors=[{"field": "requestId", "message": "is the id that the request was answered with"}]
        )
    return await _polled(platform, caller, request_id)


async def _polled(platform: Any, caller: Caller, request_id: str) -> Response:
    job: Job = await platform.caller_jobs.get(caller, parse_id(request_id, what="request"))
    if job.kind != "ulca":
        raise NotFound("There is no such request.")
    if not job.is_over:
        return JSONResponse({"requestId": request_id, "status": "IN_PROGRESS"}, 202, {"Retry-After": "1"})
    async for result in platform.caller_jobs.results(caller.org_id, job.id):
        if result.answer is not None:
            return Response(result.answer, result.http_status or 200, media_type=result.content_type or None)
        return JSONResponse(
            {"requestId": request_id, "status": "FAILED", "message": job.reason or f"It was {result.status}.",
             "code": result.error_code or job.status.upper()},
            409,
        )  # fmt: skip
    raise NotFound("There is no such request.")


@router.post("/services/inference/{task}", status_code=202)
async def answer_later(request: Request, caller: CallerOf, platform: PlatformOf, task: str) -> dict[str, Any]:
    """Take a request of ULCA's that is to be answered later."""
    said = await json_of(request)
    if not isinstance(said, dict):
        raise MalformedJson
    said.pop("modelProcessingType", None)
    control = said.get("controlConfig")
    if isinstance(control, dict):
        said["controlConfig"] = {name: value for name, value in control.items() if name != "isSyncApi"}
    query = urlencode(parse_qsl(request.url.query))
    target = f"/services/inference/{task}" + (f"?{query}" if query else "")
    job = await platform.caller_jobs.submit(caller, _given([said]), kind="ulca", target=target, options=Options())
    gateway = platform.settings.gateway_address
    return {
        "requestId": str(job.id),
        "pollingUrl": f"{gateway}/services/inference/poll/{job.id}",
        "pollInterval": 1000,
        "status": "IN_PROGRESS",
    }
