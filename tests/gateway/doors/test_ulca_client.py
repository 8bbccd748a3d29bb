"""ULCA's door, spoken to by a client nobody here wrote: `bhashini-client`, and `requests` for what it can't."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
import requests
from bhashini_client import BhashiniClient

from gateway.bills import billed
from gateway.doors.ulca_market import SPOKEN, done, sound, stock, task
from gateway.rig import Market


@pytest.fixture
def shelf(market: Market) -> Market:
    return stock(market)


def address(market: Market, path: str = "/services/inference/pipeline") -> str:
    return f"http://127.0.0.1:{market.port}{path}"


def client_of(market: Market) -> Any:
    client = BhashiniClient(market.key)
    client.handler.base_url = address(market)
    return client


@pytest.mark.speaks("ulca pipeline", client="bhashini-client (PyPI)")
@pytest.mark.parametrize(
    ("method", "given", "answered", "slug"),
    [
        ("nmt", ("नमस्ते", "hi", "ur"), "नमस्ते [hi-Deva>ur-Arab]", "translate"),
        ("tts", ("नमस्ते", "hi"), SPOKEN, "speak"),
        ("transliterate", ("ram", "en", "hi"), {"text": "RAM", "suggestions": ["RAM", "Ram", "ram"]}, "letters"),
        ("detect_language", ("ఈ రోజు",), {"language": "te", "score": 0.75}, "detect"),
        ("ner", ("then Asha came", "en"), [{"text": "Asha", "label": "PER"}], "names"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() and len(value) < 20 else "",
)
async def test_the_client_gets_what_it_asks_for(
    shelf: Market, method: str, given: tuple[str, ...], answered: Any, slug: str
) -> None:
    said = await asyncio.to_thread(getattr(client_of(shelf), method), *given)
    assert said == answered
    assert await billed(shelf) == [done(slug)]


@pytest.mark.parametrize(
    ("method", "given"),
    [("asr", ("https://sound.example/a.wav", "hi")), ("ocr", ("https://image.example/a.png", "hi"))],
)
async def test_what_the_client_wants_fetched_is_refused(shelf: Market, method: str, given: tuple[str, ...]) -> None:
    assert await asyncio.to_thread(getattr(client_of(shelf), method), *given) == "API Error"
    assert (await shelf.settled_event()).error_code == "VALIDATION_FAILED"
    assert await billed(shelf) == [("", "refused", {}, "0")]
    assert shelf.provider.requests == []


@pytest.mark.speaks("ulca getModelsPipeline", "ulca pipeline", "ulca feedback", client="requests (PyPI)")
async def test_the_whole_way_from_the_config_call_to_the_feedback(shelf: Market) -> None:
    def way() -> tuple[Any, Any, int]:
        with requests.Session() as session:
            session.headers.update({"userID": "me", "ulcaApiKey": shelf.key})
            tasks = [task("asr", "hi"), {"taskType": "translation"}]
            asked = {"pipelineTasks": tasks, "pipelineRequestConfig": {"pipelineId": "x"}}
            found = session.post(address(shelf, "/ulca/apis/v0/model/getModelsPipeline"), json=asked, timeout=5).json()
            key = found["pipelineInferenceAPIEndPoint"]["inferenceApiKey"]
            told = [
                {"taskType": one["taskType"], "config": one["config"][0]} for one in found["pipelineResponseConfig"]
            ]
            body = {"pipelineTasks": told, "inputData": sound()}
            heard = session.post(address(shelf), json=body, headers={key["name"]: key["value"]}, timeout=5).json()
            opinion = {"question": "Was it right?", "feedbackType": "thumbs", "isLiked": True}
            feedback = {
                "feedbackLanguage": "en",
                "pipelineInput": body,
                "pipelineFeedback": {"commonFeedback": [opinion]},
            }
            given = session.post(address(shelf, "/services/feedback/submit"), json=feedback, timeout=5)
            return found, heard, given.status_code

    found, heard, status = await asyncio.to_thread(way)
    assert [one["taskType"] for one in found["pipelineResponseConfig"]] == ["asr", "translation"]
    assert heard["pipelineResponse"][0]["output"] == [{"source": "heard hi-Deva", "nBestTokens": None}]
    assert heard["pipelineResponse"][1]["output"][0]["target"].startswith("heard hi-Deva [hi-Deva>")
    assert status == 201
    assert await billed(shelf) == [done("hear"), done("translate")]


@pytest.mark.speaks("ulca tts", client="requests (PyPI)")
async def test_a_task_alone_is_asked_for_with_a_query(shelf: Market) -> None:
    def say() -> requests.Response:
        body = {"config": {"language": {"sourceLanguage": "hi"}, "gender": "male"}, "input": [{"source": "नमस्ते"}]}
        return requests.post(
            address(shelf, "/services/inference/tts"),
            params={"serviceId": "acme/speak"},
            json=body,
            headers={"Authorization": shelf.key},
            timeout=5,
        )

    response = await asyncio.to_thread(say)
    assert base64.b64decode(response.json()["audio"][0]["audioContent"])[:4] == b"RIFF"
    assert await billed(shelf) == [done("speak")]
