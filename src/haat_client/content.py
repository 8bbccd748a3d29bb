"""Sounds and images as the task schema has them: in base64, with the name of their format."""

from __future__ import annotations

import base64
from os import PathLike
from pathlib import Path
from typing import Any

_MAGIC = (
    (b"RIFF", "wav"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"\xff\xfb", "mp3"),
    (b"\x89PNG", "png"),
    (b"\xff\xd8", "jpeg"),
    (b"GIF8", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
)
"""How files of a format begin."""


def audio(source: bytes | str | PathLike[str], format: str | None = None) -> dict[str, Any]:
    """Return the item of a call for a sound: its bytes, or the path of a file. Raise OSError, ValueError."""
    return {"audio": _content(source, format)}


def image(source: bytes | str | PathLike[str], format: str | None = None) -> dict[str, Any]:
    """Return the item of a call for an image: its bytes, or the path of a file. Raise OSError, ValueError."""
    return {"image": _content(source, format)}


def _content(source: bytes | str | PathLike[str], format: str | None) -> dict[str, str]:
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    if format is None:
        format = next((name for magic, name in _MAGIC if content.startswith(magic)), None)
    if format is None and not isinstance(source, bytes):
        format = Path(source).suffix[1:].lower() or None
    if format is None:
        raise ValueError("The content doesn't tell its format: say it, such as format='wav'.")
    return {"content": base64.b64encode(content).decode("ascii"), "format": format}
