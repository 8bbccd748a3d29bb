"""How the tests of the Open Inference Protocol make their calls: with its own client, and raw."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

from gateway.rig import Market, Response

SCRIPT = Path(__file__).parent / "triton_calls.py"


def sound(frames: int = 800) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(16_000)
        wav.writeframes(b"\x00\x10" * frames)
    return file.getvalue()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def triton(market: Market, *calls: dict[str, Any], key: str = "") -> list[Any]:
    """Make these calls with the protocol's own client."""

    def run() -> str:
        command = [sys.executable, str(SCRIPT), str(market.port), key or market.key]
        return subprocess.run(
            command, input=json.dumps(calls), stdout=subprocess.PIPE, text=True, timeout=60, check=True
        ).stdout

    found: list[Any] = json.loads(await asyncio.to_thread(run))
    return found


def ask(method: str, **arguments: Any) -> dict[str, Any]:
    return {"do": "plain", "method": method, **arguments}


def texts(name: str, *values: str, shape: list[int] | None = None, binary: bool = True) -> dict[str, Any]:
    data = [encoded(value.encode()) for value in values] if binary else list(values)
    return {"name": name, "shape": shape or [len(values)], "data": data, "binary": binary}


def plain(result: dict[str, Any], name: str) -> list[str]:
    return [base64.b64decode(value).decode() for value in result["outputs"][name]["data"]]


def listed(name: str, *values: Any, shape: Any = None, datatype: str = "BYTES") -> dict[str, Any]:
    return {"name": name, "shape": [len(values)] if shape is None else shape, "datatype": datatype, "data": [*values]}


async def infer(market: Market, body: Any, *headers: str, model: str = "acme/embed", **options: Any) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await market.call("POST", f"/v2/models/{model}/infer", raw, *headers, **options)
