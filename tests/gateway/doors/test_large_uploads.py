"""A large recording goes through a gateway process without being held in it: what the system says of its memory."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from gateway.doors.forms import BOUNDARY, CONTENT_TYPE, form
from gateway.doors.test_audio import Sink
from gateway.rig import PROVIDER_ORG
from gateway.test_process import SERVICE, keep_snapshot, running
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.snapshot import Service, Version
from haat.infra.keyring import Keyring

MB = 1 << 20
PIECES = 1280
PIECE = bytes(64 * 1024)


def memory(pid: int, name: str) -> int:
    """Return one of the kernel's figures of a process in bytes: ``VmRSS`` is held now, ``VmHWM`` the most so far."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def forget_the_most(pid: int) -> None:
    """Let the most that a process has held be what it holds now (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def around(first: str) -> tuple[bytes, bytes]:
    """Return what stands before and behind the recording in a form that begins with this part."""
    model, begin = form(("model", None, b"acme/echo")), form(("file", "a.wav", b""))
    model, begin = model[: model.rindex(b"--" + BOUNDARY)], begin[: begin.rindex(b"\r\n--" + BOUNDARY)]
    if first == "model":
        return model + begin, b"\r\n--%b--\r\n" % BOUNDARY
    return begin, b"\r\n" + model + b"--%b--\r\n" % BOUNDARY


@pytest.mark.parametrize("first", ["model", "file"])
async def test_eighty_megabytes_add_less_than_eight_to_the_gateways_memory(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAAT_MAX_BODY_BYTES", str(100 * MB))
    server = await asyncio.start_server(lambda reader, writer: Sink().serve(reader, writer), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    version = Version("1", address, 60_000, 100 * MB, "", "openai")
    listing = Service(
        SERVICE, "acme", PROVIDER_ORG, "echo", "published", "", "requests", "IN", ("127.0.0.0/8",), "", b"",
        (version,), "1", category="speech_to_text",
    )  # fmt: skip
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), 0, PlanLimits(), listing)
    before, behind = around(first)

    async def upload(port: int, pieces: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        size = len(before) + pieces * len(PIECE) + len(behind)
        head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: g\r\nX-API-Key: {key}\r\n"
        writer.write(f"{head}{CONTENT_TYPE}\r\nContent-Length: {size}\r\n\r\n".encode() + before)
        for _ in range(pieces):
            writer.write(PIECE)
            await writer.drain()
        writer.write(behind)
        async with asyncio.timeout(60):
            answered = await reader.readuntil(b"\r\n\r\n")
        assert answered.startswith(b"HTTP/1.1 200"), answered
        writer.close()

    async with running(tmp_path) as (child, port):
        await upload(port, 32)  # whatever is loaded or set aside once is there now
        forget_the_most(child.pid)
        held = memory(child.pid, "VmRSS")
        await upload(port, PIECES)
        assert memory(child.pid, "VmHWM") - held < 8 * MB
    server.close()
