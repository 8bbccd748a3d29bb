"""The process that speaks Socket.IO: ``haat speech``.

``start`` agrees on the tasks, ``data`` brings sound; ``response`` answers, on the way with the first tasks and at
the end of a segment with all; ``abort`` says why an answer failed, ``terminate`` ends. Each answer is a compute call
at the gateway's Bhashini door with the speaker's key, admitted, metered and charged like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import httpx
import socketio  # type: ignore[import-untyped]
import uvicorn

from haat.infra.rendezvous import SPEECH, Rendezvous
from haat.settings import Settings
from haat.speech.speaker import NotUnderstood, Speaker

log = logging.getLogger(__name__)

COMPUTE = "/services/inference/pipeline"
MOST_MESSAGE_BYTES = 1024 * 1024
CALL_SECONDS = 60.0


class Speech:
    """All who speak at this machine's gateway."""

    def __init__(self, gateway: httpx.AsyncClient) -> None:
        self._gateway = gateway
        self.server = socketio.AsyncServer(
            async_mode="asgi",
            cors_allowed_origins="*",  # who may speak is said by a key in the handshake, never by a cookie
            max_http_buffer_size=MOST_MESSAGE_BYTES,
            logger=False,
            engineio_logger=False,
        )
        self._keys: dict[str, str] = {}
        self._speakers: dict[str, Speaker] = {}
        self._answering: dict[str, asyncio.Lock] = {}
        self.server.on("connect", self._connect)
        self.server.on("start", self._start)
        self.server.on("data", self._data)
        self.server.on("disconnect", self._disconnect)

    async def _connect(self, sid: str, environ: Any, auth: Any) -> None:
        given = auth.get("authorization") if isinstance(auth, dict) else None
        if not isinstance(given, str) or not given:
            raise socketio.exceptions.ConnectionRefusedError("Send your API key as `authorization` in `auth`.")
        key = given.removeprefix("Bearer ").strip()
        answer = await self._gateway.get("/v1/models", headers={"X-API-Key": key})
        if answer.status_code != httpx.codes.OK:
            raise socketio.exceptions.ConnectionRefusedError(_reason(answer))
        self._keys[sid] = key
        self._answering[sid] = asyncio.Lock()

    async def _start(self, sid: str, tasks: Any = None, config: Any = None) -> None:
        try:
            self._speakers[sid] = Speaker(tasks, config)
        except NotUnderstood as error:
            await self.server.emit("abort", str(error), to=sid)
            return
        await self.server.emit("ready", to=sid)

    async def _data(
        self, sid: str, data: Any = None, config: Any = None, clear: bool = False, disconnect: bool = False
    ) -> None:
        speaker = self._speakers.get(sid)
        if speaker is None:
            await self.server.emit("abort", "Send `start` first, and wait for `ready`.", to=sid)
            return
        try:
            speaker.hear(data)
        except NotUnderstood as error:
            await self.server.emit("abort", str(error), to=sid)
            return
        if clear or disconnect or speaker.is_full:
            await self._answer(sid, speaker.take(whole=True), whole=True)
        elif speaker.is_due and not self._answering[sid].locked():
            await self._answer(sid, speaker.take(whole=False), whole=False)
        if disconnect:
            await self.server.emit("terminate", to=sid)
            await self.server.disconnect(sid)

    async def _answer(self, sid: str, asked: dict[str, Any] | None, *, whole: bool) -> None:
        """Have what was said answered, one call after the other for each who speaks."""
        key, lock = self._keys.get(sid), self._answering.get(sid)
        if asked is None or key is None or lock is None:
            return
        async with lock:
            try:
                answer = await self._gateway.post(COMPUTE, json=asked, headers={"Authorization": key})
                reason = "" if answer.is_success else _reason(answer)
                said = answer.json()["pipelineResponse"] if not reason else None
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                log.warning("an answer to speech failed: %r", error)
                reason, said = "The gateway gave no usable answer: try again shortly.", None
        if sid not in self._keys:
            return  # gone meanwhile
        if reason:
            await self.server.emit("abort", reason, to=sid)
        else:
            await self.server.emit("response", (said, {"isIntermediateResult": not whole}), to=sid)

    async def _disconnect(self, sid: str, reason: Any = None) -> None:
        for known in (self._keys, self._speakers, self._answering):
            known.pop(sid, None)


def _reason(answer: httpx.Response) -> str:
    """Return what a refusal of the gateway says."""
    try:
        said = answer.json()
    except ValueError:
        said = None
    if isinstance(said, dict):
        for member in (said.get("message"), said.get("detail"), said.get("error")):
            if isinstance(member, dict):
                member = member.get("message")
            if isinstance(member, str) and member:
                return member
    return f"The gateway refused it with {answer.status_code}."


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: signals belong to the command that started us."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # uvicorn's own is untyped in effect
        yield


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve whoever speaks until ``stop`` is set."""
    secured = settings.tls_certificate is not None
    address = f"{'https' if secured else 'http'}://127.0.0.1:{settings.gateway_port}"
    meeting = Rendezvous(settings.data_dir, SPEECH)
    listener = meeting.listen()
    # The certificate is for the host's name, and we call by address on this very machine.
    async with httpx.AsyncClient(base_url=address, timeout=CALL_SECONDS, verify=not secured, trust_env=False) as client:
        app = socketio.ASGIApp(Speech(client).server)
        server = _Server(
            uvicorn.Config(app, log_level=settings.log_level, access_log=False, lifespan="off", server_header=False)
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        log.info("streaming speech is served at %s", meeting.socket)
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = server.force_exit = True
        stopping.cancel()
        await asyncio.wait({serving})
    meeting.socket.unlink(missing_ok=True)
    meeting.close()
    await serving
