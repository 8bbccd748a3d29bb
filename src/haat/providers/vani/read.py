"""Printed text read from an image by Tesseract."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Mapping, Sequence
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

from haat.kernel.errors import InputTooLong, ValidationFailed
from haat.language import normalise
from haat.models.hosted import HostedService, Item, Option, Output, Units
from haat.providers.companies import VANI
from haat.providers.programs import INSTALL, missing_program, run_program

SECONDS = 25.0
MOST_PIXELS = 12_000_000  # what is decoded, not what is sent, decides the memory an image takes
DATA = {"en-Latn": "eng", "hi-Deva": "hin", "ta-Taml": "tam", "bn-Beng": "ben"}
_LAYOUTS = {"page": "3", "block": "6", "line": "7"}
_PACKAGES = "tesseract-ocr tesseract-ocr-eng tesseract-ocr-hin tesseract-ocr-tam tesseract-ocr-ben"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def read(image: bytes, language: str, layout: str) -> str:
    """Return the lines of text in a PNG or JPEG image."""
    arguments = ["tesseract", "stdin", "stdout", "-l", DATA[language], "--psm", _LAYOUTS[layout]]
    # One thread a run: the pool decides how many run, and OpenMP's waiting costs more than it gains.
    answer = run_program(arguments, image, seconds=SECONDS, environment={**_environment(), "OMP_THREAD_LIMIT": "1"})
    text = answer.decode("utf-8", "replace").replace("\f", "")
    if language == "ta-Taml":
        text = text.replace("\u200c", "")  # Tesseract writes a non-joiner after viramas that Tamil does not have
    return normalise("\n".join(line.rstrip() for line in text.strip().splitlines()))


def image_size(image: bytes) -> tuple[int, int] | None:
    """Return (width, height) in pixels from the header of a PNG or JPEG file, None for anything else."""
    if image.startswith(_PNG) and image[12:16] == b"IHDR" and len(image) >= 24:
        width, height = struct.unpack(">II", image[16:24])
        return width, height
    if image.startswith(b"\xff\xd8"):
        return _jpeg_size(image)
    return None


def _jpeg_size(image: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(image) and image[at] == 0xFF:
        marker = image[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", image[at + 5 : at + 9])
            return width, height
        at += 1 if marker == 0xFF else 2 + int.from_bytes(image[at + 2 : at + 4], "big")
    return None


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return ``{"text", "lines"}`` an item; units are images."""
    for index, item in enumerate(items):
        size = image_size(item.content)
        if size is None or 0 in size:
            message = "is not a PNG or JPEG image"
            raise ValidationFailed(errors=[{"field": f"input[{index}].image.content", "message": message}])
        if size[0] * size[1] > MOST_PIXELS:
            raise InputTooLong(f"Image {index} has {size[0]} × {size[1]} pixels.", limit=MOST_PIXELS, unit="pixels")
    outputs: list[Output] = []
    for item in items:
        text = read(item.content, config["language"], config["layout"])
        outputs.append({"text": text, "lines": [line for line in text.splitlines() if line.strip()]})
    return outputs, {"images": Decimal(len(items))}


def _environment() -> dict[str, str]:
    prefix = os.environ.get("TESSDATA_PREFIX")
    return {"TESSDATA_PREFIX": prefix} if prefix else {}


def missing() -> str | None:
    sentence = missing_program("tesseract", _PACKAGES)
    if sentence is not None:
        return sentence
    prefix = _environment().get("TESSDATA_PREFIX")
    folders = [Path(prefix)] if prefix else list(Path("/usr/share").glob("tesseract-ocr/*/tessdata"))
    absent = [
        data for data in DATA.values() if not any((folder / f"{data}.traineddata").is_file() for folder in folders)
    ]
    if absent:
        packages = " ".join(f"tesseract-ocr-{data}" for data in absent)
        return f"Tesseract lacks {', '.join(absent)}: {INSTALL}, or `apt-get install {packages}`."
    return None


def service() -> HostedService:
    sample = resources.files("haat.providers.vani").joinpath("samples", "notice-en.png").read_bytes()
    return HostedService(
        company=VANI,
        slug="ocr",
        name="Read text in images",
        summary="Reads printed English, Hindi, Tamil or Bengali in a PNG or JPEG image.",
        description="For print, not handwriting: scans and screenshots with letters at least 20 pixels high. Choose "
        "the layout `line` for one line, `block` for a paragraph, `page` for a page.",
        category="ocr",
        unit="images",
        kind="image",
        languages=tuple(DATA),
        options=(Option("layout", "choice", "How the text is laid out.", "page", choices=tuple(_LAYOUTS)),),
        formats=("png", "jpeg"),
        sample={
            "input": [{"image": {"content": base64.b64encode(sample).decode(), "format": "png"}}],
            "config": {"language": "en-Latn", "layout": "block"},
        },
        unit_price=Decimal("0.25"),
        free_units=2,
        max_inputs=3,
        max_bytes=2_000_000,
        typical_latency_ms=600,
        timeout_seconds=SECONDS,
        runtime="command",
        license_note="Engine: Tesseract (Apache-2.0), run as a separate program.",
        invoke=invoke,
        missing=missing,
    )
