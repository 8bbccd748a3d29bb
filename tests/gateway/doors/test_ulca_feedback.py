"""Feedback at ULCA's door: an opinion is kept, what it is about is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.doors.ulca_market import stock, task, texts
from gateway.rig import APP, Market, Response
from haat.gateway.doors.ulca import feedback

LIKED = {"commonFeedback": [{"question": "Was it right?", "feedbackType": "rating", "rating": 4}]}
OPINION: dict[str, Any] = {
    "feedbackTimeStamp": 1_760_000_000,
    "feedbackLanguage": "en",
    "pipelineInput": {
        "pipelineTasks": [task("translation", "hi", "ur", serviceId="acme/translate")],
        "inputData": texts("a secret"),
    },
    "pipelineOutput": {"pipelineResponse": [{"taskType": "translation", "output": [{"source": "a secret"}]}]},
    "suggestedPipelineOutput": {
        "pipelineResponse": [
            {"taskType": "translation", "output": [{"source": "a", "target": "b"}]},
            {"taskType": "tts", "audio": [{"audioContent": "AAAA"}]},
        ]
    },
    "pipelineFeedback": LIKED,
    "taskFeedback": [
        {
            "taskType": "translation",
            "commonFeedback": [],
            "granularFeedback": [
                {
                    "question": "And this?",
                    "feedbackType": "rating-list",
                    "ratingList": [{"parameterName": "fluency", "rating": 5}],
                }
            ],
        }
    ],
}


@pytest.fixture
def shelf(market: Market) -> Market:
    return stock(market)


async def submit(market: Market, body: Any) -> Response:
    return await market.call("POST", "/services/feedback/submit", json.dumps(body).encode())


def path(market: Market) -> Path:
    return market.gateway.settings.data_dir / "gateway" / "feedback" / "gateway-0.jsonl"


@pytest.mark.speaks("ulca feedback")
async def test_an_opinion_is_kept_without_what_was_sent_and_answered(shelf: Market) -> None:
    response = await submit(shelf, OPINION)
    assert response.status == 201, response.body
    [kept] = [json.loads(line) for line in path(shelf).read_text().splitlines()]
    assert kept == {
        "id": response.header("x-request-id"),
        "at": kept["at"],
        "application": APP,
        "said_at": 1_760_000_000,
        "language": "en",
        "tasks": [{"taskType": "translation", "serviceId": "acme/translate"}],
        "pipeline": LIKED,
        "by_task": OPINION["taskFeedback"],
        "suggested": {
            "pipelineResponse": [
                {"taskType": "translation", "output": [{"source": "a", "target": "b"}]},
                {"taskType": "tts"},
            ]
        },
    }
    assert path(shelf).stat().st_mode & 0o777 == 0o600
    assert shelf.events() == []


async def test_two_files_are_all_there_ever_is(shelf: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "FILE_BYTES", 2000)
    for _ in range(12):
        assert (await submit(shelf, OPINION)).status == 201
    files = sorted(path(shelf).parent.iterdir())
    assert [file.name for file in files] == ["gateway-0.jsonl", "gateway-0.old.jsonl"]
    assert all(0 < file.stat().st_size <= 2000 for file in files)
    assert [json.loads(line)["language"] for file in files for line in file.read_text().splitlines()]


async def test_who_cannot_be_heard_is_told_so(shelf: Market) -> None:
    path(shelf).parent.mkdir(parents=True)
    path(shelf).mkdir()
    response = await submit(shelf, OPINION)
    assert (response.status, response.json()["code"]) == (503, "OVERLOADED")
    assert response.header("retry-after")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"feedbackLanguage": None}, "feedbackLanguage"),
        ({"feedbackTimeStamp": 1_760_000_000_000}, "feedbackTimeStamp"),
        ({"pipelineInput": {}}, "pipelineInput"),
        ({"pipelineFeedback": {"commonFeedback": [{"question": "q", "feedbackType": "guess"}]}}, "pipelineFeedback."),
        ({"pipelineFeedback": None, "taskFeedback": None, "suggestedPipelineOutput": None}, "pipelineFeedback"),
        (
            {"pipelineFeedback": {"commonFeedback": [{"question": "q" * 20_000, "feedbackType": "thumbs"}]}},
            "taskFeedback",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_opinion_is_refused_and_not_kept(shelf: Market, changes: Any, field: str) -> None:
    response = await submit(shelf, OPINION | changes)
    assert (response.status, response.json()["code"]) == (422, "VALIDATION_FAILED")
    assert response.json()["message"].startswith(field)
    assert not path(shelf).exists()


async def test_a_stranger_has_no_opinion(shelf: Market) -> None:
    response = await shelf.call("POST", "/services/feedback/submit", b"{}", key="nobody")
    assert response.status == 401
