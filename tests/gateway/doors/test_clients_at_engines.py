"""Programs that nobody here wrote, before the real engines: the answer, the usage event, and what it costs.

Such programs keep the answer's headers to themselves. So the same is asked natively too: that call says what it costs,
and the events of the two can't be told apart.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from bhashini_client import BhashiniClient

from gateway.doors import node
from gateway.doors.house import House
from gateway.doors.test_openai_node import VERSION
from haat.plugins.manager import hosted
from haat.usage.event import Outcome, UsageEvent

HINDI, URDU = "आज मौसम बहुत अच्छा है।", "آج موسم بہت اچھا ہے۔"
TELUGU = "ఈ రోజు వాతావరణం చాలా బాగుంది."
TRITON = Path(__file__).parent / "triton_calls.py"
PAIR = {"source": "hi", "target": "ur"}


def costs_the_same(house: House, event: UsageEvent, path: str, asked: dict[str, Any]) -> None:
    """Ask a service natively, and hold its event and its charge against the event of a client's call."""
    before = house.seen()
    response = house.call(f"/v1/services/{path}/invoke", asked)
    assert response.status_code == 200, response.text
    [native] = house.settled(before)
    for name in ("service_slug", "version", "outcome", "units", "units_source", "application", "org", "subscription"):
        assert getattr(event, name) == getattr(native, name), name
    unit = hosted()[path].unit
    amount, currency = response.headers["x-haat-charge"].split()
    assert (Decimal(amount), currency) == (hosted()[path].unit_price * Decimal(event.units[unit]), "INR")
    assert event.outcome == Outcome.COMPLETED and Decimal(event.units[unit]) > 0


# --- bhashini-client ----------------------------------------------------------------------------

BHASHINI: dict[str, tuple[tuple[str, ...], Any, str, dict[str, Any]]] = {
    "nmt": ((HINDI, "hi", "ur"), URDU, "vani/translate-hi-ur", {"input": [{"text": HINDI}], "config": PAIR}),
    "transliterate": (
        ("नमस्ते", "hi", "te"),
        None,
        "akshara/transliterate",
        {"input": [{"text": "नमस्ते"}], "config": {"source": "hi", "target": "te"}},
    ),
    "tts": (
        ("नमस्ते", "hi"),
        None,
        "vani/text-to-speech",
        {"input": [{"text": "नमस्ते"}], "config": {"language": "hi"}},
    ),
    "detect_language": ((TELUGU,), None, "akshara/detect-language", {"input": [{"text": TELUGU}]}),
    "ner": (
        ("in Pune", "en"),
        [{"text": "Pune", "label": "LOCATION"}],
        "akshara/named-entities",
        {"input": [{"text": "in Pune"}], "config": {"language": "en"}},
    ),
}


@pytest.mark.speaks("ulca pipeline", client="bhashini-client (PyPI)")
@pytest.mark.parametrize("method", BHASHINI)
def test_bhashinis_client_is_served_metered_and_charged(house: House, method: str) -> None:
    given, wanted, path, native = BHASHINI[method]
    client: Any = BhashiniClient(house.key)
    client.handler.base_url = f"{house.address}/services/inference/pipeline"
    before = house.seen()
    said = getattr(client, method)(*given)
    [event] = house.settled(before)
    assert said and said != "API Error"
    if wanted is not None:
        assert said == wanted
    if method == "transliterate":
        assert said["text"] == "నమస్తే"
    elif method == "tts":
        assert base64.b64decode(said).startswith(b"RIFF")
    elif method == "detect_language":
        assert said["language"] == "te"
    costs_the_same(house, event, path, native)


# --- tritonclient -------------------------------------------------------------------------------


@pytest.mark.speaks("inference infer", client="tritonclient.http (PyPI)")
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
async def test_tritons_client_is_served_metered_and_charged(house: House, binary: bool) -> None:
    def tensor(name: str, value: str) -> dict[str, Any]:
        data = base64.b64encode(value.encode()).decode() if binary else value
        return {"name": name, "shape": [1, 1], "data": [data], "binary": binary}

    inputs = [tensor("INPUT_TEXT", HINDI), tensor("INPUT_LANGUAGE_ID", "hi"), tensor("OUTPUT_LANGUAGE_ID", "ur")]
    asked = [{"do": "infer", "model": "vani/translate-hi-ur", "inputs": inputs}]
    before = await asyncio.to_thread(house.seen)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(TRITON), str(house.port), house.key,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        printed, _ = await process.communicate(json.dumps(asked).encode())
    [said] = json.loads(printed)
    [text] = said["outputs"]["OUTPUT_TEXT"]["data"]
    assert base64.b64decode(text).decode() == URDU, said
    [event] = await asyncio.to_thread(house.settled, before)
    native = {"input": [{"text": HINDI}], "config": PAIR}
    await asyncio.to_thread(costs_the_same, house, event, "vani/translate-hi-ur", native)


# --- OpenAI's -----------------------------------------------------------------------------------


@pytest.mark.speaks("openai embeddings", "openai moderations", client="openai (PyPI)")
def test_openais_client_is_served_metered_and_charged(house: House) -> None:
    with openai.OpenAI(base_url=f"{house.address}/v1", api_key=house.key, max_retries=0) as client:
        before = house.seen()
        made = client.embeddings.create(model="akshara/embed", input=["एक", "two"])
        assert [one.index for one in made.data] == [0, 1] and len(made.data[0].embedding) > 8
        [event] = house.settled(before)
        costs_the_same(house, event, "akshara/embed", {"input": [{"text": "एक"}, {"text": "two"}]})
        before = house.seen()
        judged = client.moderations.create(model="akshara/moderate", input="a good day")
        assert judged.results[0].flagged is False
        [event] = house.settled(before)
        costs_the_same(house, event, "akshara/moderate", {"input": [{"text": "a good day"}]})


PROGRAM = """
import OpenAI from "openai";
const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const made = await client.embeddings.create({ model: "akshara/embed", input: ["एक", "two"] });
console.log(JSON.stringify(made.data.map((one) => one.embedding.length)));
"""


@pytest.mark.speaks("openai embeddings", client="openai (npm)")
async def test_openais_client_for_javascript_is_served_metered_and_charged(house: House) -> None:
    before = await asyncio.to_thread(house.seen)
    folder = await asyncio.to_thread(node.folder_with, PROGRAM, f"openai@{VERSION}")
    first, second = await node.run(folder, f"{house.address}/v1", house.key)
    assert first == second > 8
    [event] = await asyncio.to_thread(house.settled, before)
    native = {"input": [{"text": "एक"}, {"text": "two"}]}
    await asyncio.to_thread(costs_the_same, house, event, "akshara/embed", native)
