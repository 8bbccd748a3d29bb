"""What has been said, and when it is answered."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.speech.speaker import MOST_SECONDS, NotUnderstood, Speaker

TASKS = [
    {"taskType": "asr", "config": {"language": {"sourceLanguage": "hi"}}},
    {"taskType": "translation", "config": {}},
]
SECOND = b"\x01\x02" * 16_000


def sound(content: Any) -> dict[str, Any]:
    return {"audio": [{"audioContent": content}]}


def test_an_answer_is_due_when_enough_is_new() -> None:
    speaker = Speaker(TASKS, {"responseFrequencyInSecs": 2.0})
    for due in (False, True, True):
        speaker.hear(sound(SECOND))
        assert speaker.is_due is due
    asked = speaker.take(whole=False)
    assert asked is not None and [task["taskType"] for task in asked["pipelineTasks"]] == ["asr"]
    assert not speaker.is_due and speaker.seconds == 3
    whole = speaker.take(whole=True)
    assert whole is not None and len(whole["pipelineTasks"]) == 2
    assert speaker.seconds == 0 and speaker.take(whole=True) is None


def test_what_is_asked_is_a_recording_that_tells_the_truth_about_itself() -> None:
    speaker = Speaker([{"taskType": "asr", "config": {"samplingRate": 8000}}], None)
    speaker.hear(sound(SECOND))
    asked = speaker.take(whole=True)
    assert asked is not None
    content = base64.b64decode(asked["inputData"]["audio"][0]["audioContent"])
    with wave.open(io.BytesIO(content)) as recording:
        assert (recording.getframerate(), recording.getnchannels(), recording.getsampwidth()) == (8000, 1, 2)
        assert recording.readframes(recording.getnframes()) == SECOND


@given(st.lists(st.binary(max_size=400).map(lambda part: part[: len(part) // 2 * 2]), max_size=8))
def test_bytes_and_base64_are_heard_alike(parts: list[bytes]) -> None:
    one, other = Speaker(TASKS, None), Speaker(TASKS, None)
    for part in parts:
        one.hear(sound(part))
        other.hear(sound(base64.b64encode(part).decode()))
    assert one.take(whole=True) == other.take(whole=True)


def test_a_segment_has_an_end() -> None:
    speaker = Speaker(TASKS, None)
    for _ in range(int(MOST_SECONDS)):
        assert not speaker.is_full
        speaker.hear(sound(SECOND))
    assert speaker.is_full


@pytest.mark.parametrize(
    ("tasks", "config"),
    [
        (None, None),
        ([], None),
        ("asr", None),
        ([{"taskType": "tts"}], None),
        ([1], None),
        (TASKS * 3, None),
        ([{"taskType": "asr", "config": {"samplingRate": 11}}], None),
        ([{"taskType": "asr", "config": {"samplingRate": []}}], None),
        (TASKS, {"responseFrequencyInSecs": 0}),
        (TASKS, {"responseFrequencyInSecs": "2"}),
        (TASKS, {"responseTaskSequenceDepth": 3}),
    ],
    ids=str,
)
def test_what_can_not_be_agreed_on_is_said(tasks: Any, config: Any) -> None:
    with pytest.raises(NotUnderstood):
        Speaker(tasks, config)


@pytest.mark.parametrize(
    "data", [5, {}, {"audio": 5}, {"audio": [5]}, sound(None), sound(5), sound("%%"), sound(b"abc")], ids=str
)
def test_what_is_no_sound_is_said(data: Any) -> None:
    with pytest.raises(NotUnderstood):
        Speaker(TASKS, None).hear(data)
