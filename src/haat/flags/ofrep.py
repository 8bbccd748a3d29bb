"""Our flags for others: OpenFeature's Remote Evaluation Protocol, with a session's token or an application's key.

A tenant sees flags that are ``exposed``, and its own organisation, application and role are what rules are held
against, whatever its context says of them. The operator sees all flags, for anybody.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from haat.control.context import PlatformOf, bearer_token
from haat.flags.model import ErrorCode, Evaluation, Flag, evaluate, wrong_attribute
from haat.kernel.errors import BodyTooLarge, Unauthenticated
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import is_storable

if TYPE_CHECKING:
    from haat.app import Platform

router = APIRouter(prefix="/ofrep/v1", include_in_schema=False)  # the protocol has a description of its own

MOST_BYTES = 64 * 1024
POLL_MS = 1000
"""Not to be asked more often by one client: a change takes about as long to arrive."""


@dataclass(frozen=True, slots=True)
class _Asker:
    sees_all: bool
    own: Mapping[str, str]
    """What is known of it, and can't be claimed otherwise."""


class _Wrong(Exception):
    """A request that can't be evaluated: an error of the protocol's, with status 400."""

    def __init__(self, code: ErrorCode, details: str) -> None:
        super().__init__(details)
        self.answer = {"errorCode": code.value, "errorDetails": details}


@router.post("/evaluate/flags/{key}")
async def evaluate_one(key: str, request: Request, platform: PlatformOf) -> Response:
    """Evaluate one flag."""
    asker = await _asker(request, platform)
    try:
        context = await _context(request, asker)
    except _Wrong as wrong:
        return JSONResponse({"key": key, **wrong.answer}, 400)
    flags = await platform.switchboard.followed.present()
    evaluation = evaluate(_seen(flags, asker).get(key), key, context)
    status = {None: 200, ErrorCode.FLAG_NOT_FOUND: 404}.get(evaluation.error, 400)
    return JSONResponse(_said(evaluation), status)


@router.post("/evaluate/flags")
async def evaluate_all(request: Request, platform: PlatformOf) -> Response:
    """Evaluate all flags; with `If-None-Match` only if something has changed."""
    asker = await _asker(request, platform)
    try:
        context = await _context(request, asker)
        if wrong := wrong_attribute(context):
            raise _Wrong(ErrorCode.INVALID_CONTEXT, f"The attribute {wrong} must be a text, or a list of texts.")
    except _Wrong as wrong:
        return JSONResponse(wrong.answer, 400)
    flags = _seen(await platform.switchboard.followed.present(), asker)
    return _unless_known(request, {"flags": [_said(evaluate(flag, key, context)) for key, flag in flags.items()]})


@router.get("/configuration")
async def configuration(request: Request, platform: PlatformOf) -> Response:
    """Tell OpenFeature's providers how to ask."""
    await _asker(request, platform)
    return _unless_known(
        request,
        {
            "name": "haat",
            "capabilities": {
                "cacheInvalidation": {"polling": {"enabled": True, "minPollingIntervalMs": POLL_MS}},
                "flagEvaluation": {"supportedTypes": ["int", "float", "string", "boolean", "object"]},
                "caching": {"enabled": True, "ttl": POLL_MS},
            },
        },
    )


async def _asker(request: Request, platform: Platform) -> _Asker:
    """Return who asks; raise Unauthenticated, or what is wrong with the key."""
    token = request.headers.get("x-api-key") or bearer_token(request)
    if token is None:
        raise Unauthenticated("Send a session's token or an API key as `Authorization: Bearer …`.")
    found = await platform.identity.whose(token)
    if not isinstance(found, Actor):
        return _Asker(False, {"organisation": str(found.org_id), "application": str(found.application_id)})
    if found.may(Permission.FLAGS_EDIT):
        return _Asker(True, {})
    return _Asker(False, {"organisation": str(found.org_id), "role": found.role.value})


async def _context(request: Request, asker: _Asker) -> dict[str, Any]:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise BodyTooLarge(limit_bytes=MOST_BYTES)
    try:
        said = json.loads(body) if body else {}
    except (ValueError, RecursionError) as error:
        raise _Wrong(ErrorCode.PARSE_ERROR, "The body is not JSON.") from error
    context = said.get("context", {}) if isinstance(said, dict) else None
    if not isinstance(context, dict) or not is_storable(context):
        raise _Wrong(ErrorCode.INVALID_CONTEXT, "`context` must be an object of texts, numbers and lists of them.")
    return {**context, **asker.own}


def _seen(flags: Mapping[str, Flag], asker: _Asker) -> dict[str, Flag]:
    return {key: flag for key, flag in flags.items() if asker.sees_all or flag.exposed}


def _said(evaluation: Evaluation) -> dict[str, Any]:
    if evaluation.error is not None:
        return {"key": evaluation.key, "errorCode": evaluation.error.value, "errorDetails": evaluation.message}
    return {
        "key": evaluation.key,
        "value": evaluation.value,
        "reason": evaluation.reason.value,
        "variant": evaluation.variant,
        "metadata": {"version": evaluation.version},
    }


def _unless_known(request: Request, answer: Any) -> Response:
    """Return an answer with its ETag, or 304 for who has it."""
    body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if known & {etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
