"""One who speaks: what has been said since the last full answer, and when the next one is due. No I/O."""

from __future__ import annotations

import base64
import binascii
import io
import wave
from typing import Any

BYTES_A_SAMPLE = 2
MOST_SECONDS = 60.0
"""The longest segment: beyond it what was said is answered in full, and a new one begins."""
_RATES = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_DEFAULT_RATE = 16_000


class NotUnderstood(ValueError):
    """What the client sent can't be used; the sentence is for its developer."""


class Speaker:
    """The tasks that were agreed on, and the segment that is being spoken: 16-bit mono PCM, little-endian."""

    def __init__(self, tasks: Any, config: Any) -> None:
        self.tasks: list[dict[str, Any]] = _tasks(tasks)
        config = config if isinstance(config, dict) else {}
        self.every = _number(config, "responseFrequencyInSecs", 2.0, 0.2, 60.0)
        self.depth = int(_number(config, "responseTaskSequenceDepth", 1, 1, len(self.tasks)))
        self.rate = _rate(self.tasks[0])
        self._pcm = bytearray()
        self._answered = 0.0
        """Seconds of the segment that were there when it was last answered."""

    @property
    def seconds(self) -> float:
        """Length of the segment."""
        return len(self._pcm) / BYTES_A_SAMPLE / self.rate

    def hear(self, data: Any) -> None:
        """Take in ``{"audio": [{"audioContent": bytes or base64}]}``, or None; raise NotUnderstood."""
        if data is None:
            return
        parts = data.get("audio") if isinstance(data, dict) else None
        if not isinstance(parts, list):
            raise NotUnderstood("`data` takes an object with a list `audio`, or nothing.")
        for part in parts:
            self._pcm += _pcm(part.get("audioContent") if isinstance(part, dict) else None)

    @property
    def is_due(self) -> bool:
        """Whether so much is new that an answer on the way is due."""
        return self.seconds - self._answered >= self.every

    @property
    def is_full(self) -> bool:
        """Whether the segment has to end here."""
        return self.seconds >= MOST_SECONDS

    def take(self, *, whole: bool) -> dict[str, Any] | None:
        """Return the compute call for what was said, None for nothing; ``whole`` has all tasks and ends the segment."""
        if not self._pcm:
            return None
        self._answered = self.seconds
        content = base64.b64encode(_wav(bytes(self._pcm), self.rate)).decode("ascii")
        if whole:
            self._pcm.clear()
            self._answered = 0.0
        tasks = self.tasks if whole else self.tasks[: self.depth]
        return {"pipelineTasks": tasks, "inputData": {"audio": [{"audioContent": content}]}}


def _tasks(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not 1 <= len(given) <= 4 or not all(isinstance(task, dict) for task in given):
        raise NotUnderstood("`start` takes a list of one to four tasks.")
    if given[0].get("taskType") != "asr":
        raise NotUnderstood("The first task of speech is `asr`.")
    tasks = [dict(task) for task in given]
    config = tasks[0].get("config")
    tasks[0]["config"] = {**(config if isinstance(config, dict) else {}), "audioFormat": "wav"}
    return tasks


def _rate(task: dict[str, Any]) -> int:
    rate = task["config"].get("samplingRate", _DEFAULT_RATE)
    if rate not in _RATES:
        raise NotUnderstood(f"`samplingRate` is one of {', '.join(map(str, _RATES))}.")
    return int(rate)


def _number(config: dict[str, Any], name: str, default: float, least: float, most: float) -> float:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise NotUnderstood(f"`{name}` is a number from {least:g} to {most:g}.")
    return float(value)


def _pcm(content: Any) -> bytes:
    if isinstance(content, str):
        try:
            content = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise NotUnderstood("`audioContent` is neither bytes nor base64.") from None
    if not isinstance(content, bytes | bytearray):
        raise NotUnderstood("`audioContent` is 16-bit PCM, as bytes or in base64.")
    if len(content) % BYTES_A_SAMPLE:
        raise NotUnderstood("`audioContent` ends in the middle of a 16-bit sample.")
    return bytes(content)


def _wav(pcm: bytes, rate: int) -> bytes:
    held = io.BytesIO()
    with wave.open(held, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(BYTES_A_SAMPLE)
        out.setframerate(rate)
        out.writeframes(pcm)
    return held.getvalue()
