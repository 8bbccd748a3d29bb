"""The config call of ULCA's door: what the market has, what a caller may call, and where."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from gateway.doors.ulca_market import add, stock, task
from gateway.rig import APP, Market, Response
from haat.gateway.doors.ulca.door import OPERATIONS
from haat.gateway.market.policy import ApplicationPolicy, Cors
from haat.gateway.market.snapshot import Application, Price

CONFIGS = "/ulca/apis/v0/model/getModelsPipeline"


@pytest.fixture
def shelf(market: Market) -> Market:
    return stock(market)


async def ask(market: Market, *tasks: Any, key: str | None = "", body: bytes | None = None) -> Response:
    """Ask with the market's key, another one, or none."""
    sent = {"pipelineTasks": list(tasks), "pipelineRequestConfig": {"pipelineId": "64392f96daac500b55c543cd"}}
    raw = json.dumps(sent).encode() if body is None else body
    lines = [f"POST {CONFIGS} HTTP/1.1", "Host: gateway", f"Content-Length: {len(raw)}", "userID: somebody"]
    lines += [f"ulcaApiKey: {key or market.key}"] if key is not None else []
    client = await market.connect()
    await client.send("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)
    response = await client.receive("POST")
    assert response is not None
    return response


def config(service: str, market: Market, *language: str, **more: Any) -> dict[str, Any]:
    names = ("sourceLanguage", "targetLanguage")
    identifier = market.gateway.directory.services[service].id
    said = dict(zip(names, language, strict=False))
    return {"serviceId": service, "modelId": identifier, "language": said, "domain": ["general"], **more}


async def test_a_narrow_key_is_told_of_what_it_opens(shelf: Market) -> None:
    shelf.narrow("acme/translate")
    told = await ask(shelf, {"taskType": "translation"})
    [answer] = told.json()["pipelineResponseConfig"]
    assert {one["serviceId"] for one in answer["config"]} == {"acme/translate"}
    refused = await ask(shelf, task("asr", "hi"))
    assert refused.status == 403 and b"not acme/hear" in refused.body


SPEECH = {"supportedVoices": ["female", "male"], "samplingRate": 22050}


@pytest.mark.speaks("ulca getModelsPipeline")
async def test_a_chain_is_told_which_services_and_where(shelf: Market) -> None:
    response = await ask(shelf, task("asr", "hi"), {"taskType": "translation"}, {"taskType": "tts"})
    assert response.status == 200, response.body
    address = shelf.gateway.settings.gateway_address
    assert response.json() == {
        "languages": [{"sourceLanguage": "hi", "targetLanguageList": ["ur"]}],  # English is not spoken by anybody
        "pipelineResponseConfig": [
            {"taskType": "asr", "config": [config("acme/hear", shelf, "hi")]},
            {"taskType": "translation", "config": [config("acme/translate", shelf, "hi", "ur")]},
            {"taskType": "tts", "config": [config("acme/speak", shelf, "ur", **SPEECH)]},
        ],
        "feedbackUrl": f"{address}/services/feedback/submit",
        "pipelineInferenceAPIEndPoint": {
            "callbackUrl": f"{address}/services/inference/pipeline",
            "inferenceApiKey": {"name": "Authorization", "value": shelf.key},
            "isMultilingualEnabled": True,
            "isSyncApi": True,
        },
        "pipelineInferenceSocketEndPoint": {
            "callbackUrl": address.replace("http://", "ws://"),
            "inferenceApiKey": {"name": "Authorization", "value": shelf.key},
            "isMultilingualEnabled": True,
            "isSyncApi": False,
        },
    }
    assert response.header("cache-control") == "no-store"
    assert shelf.events() == []


async def test_without_a_key_there_are_languages_and_configs_and_nothing_to_call(shelf: Market) -> None:
    response = await ask(shelf, {"taskType": "translation", "config": None}, key=None)
    assert response.status == 200, response.body
    said = response.json()
    assert said["languages"] == [
        {"sourceLanguage": "hi", "targetLanguageList": ["en", "ur"]},
        {"sourceLanguage": "ur", "targetLanguageList": ["hi"]},
    ]
    assert [one["language"] for one in said["pipelineResponseConfig"][0]["config"]] == [
        {"sourceLanguage": "hi", "targetLanguage": "en"},
        {"sourceLanguage": "hi", "targetLanguage": "ur"},
        {"sourceLanguage": "ur", "targetLanguage": "hi"},
    ]
    assert set(said) == {"languages", "pipelineResponseConfig", "feedbackUrl"}


async def test_a_key_that_is_sent_must_be_good(shelf: Market) -> None:
    response = await ask(shelf, task("asr"), key="haat_test_nobody")
    assert (response.status, response.json()["code"]) == (401, "401 UNAUTHORIZED")
    assert response.json()["detail"]["code"] == "INVALID_CREDENTIAL"


async def test_what_is_not_public_is_shown_to_nobody(shelf: Market) -> None:
    for number, visibility in enumerate(("members", "invited")):
        add(shelf, f"hidden{number}", "speak", visibility=visibility, languages={"languages": ("ta-Taml",)})
    add(shelf, "gone", "speak", status="retired", languages={"languages": ("ta-Taml",)})
    for key in ("", None):
        said = (await ask(shelf, task("tts"), key=key)).json()
        assert [one["sourceLanguage"] for one in said["languages"]] == ["hi", "ur"]


async def test_a_caller_is_shown_what_his_application_may_call(shelf: Market) -> None:
    add(
        shelf,
        "cheap",
        "translate",
        subscribed=None,
        languages={"language_pairs": ("hi-Deva>ur-Arab", "ta-Taml>te-Telu")},
    )
    services = {one["serviceId"] for one in await _translations(shelf, "")}
    assert services == {"acme/translate"}
    pairs = [(one["serviceId"], one["language"]["sourceLanguage"]) for one in await _translations(shelf, None)]
    assert pairs == [
        ("acme/translate", "hi"),
        ("acme/cheap", "hi"),
        ("acme/cheap", "ta"),
        ("acme/translate", "ur"),
    ]
    stranger = shelf.add_key(app="another")
    response = await ask(shelf, task("translation"), key=stranger)
    assert (response.status, response.json()["detail"]["code"]) == (403, "NOT_SUBSCRIBED")
    assert "acme/translate" in response.json()["message"]


async def _translations(market: Market, key: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await ask(market, task("translation"), key=key)).json()["pipelineResponseConfig"][0][
        "config"
    ]
    return found


async def test_letters_are_said_by_their_script_and_english_means_latin_ones(shelf: Market) -> None:
    said = (await ask(shelf, task("transliteration", "hi"))).json()["pipelineResponseConfig"][0]["config"]
    assert [one["language"] for one in said] == [
        {"sourceLanguage": "hi", "targetLanguage": "hi", "targetScriptCode": "Latn"},
        {"sourceLanguage": "hi", "targetLanguage": "te"},
    ]
    said = (await ask(shelf, task("transliteration", "en", "hi"))).json()["pipelineResponseConfig"][0]["config"]
    assert said == [config("acme/letters", shelf, "en", "hi")]


async def test_what_it_names_can_be_called(shelf: Market) -> None:
    chain = [{"taskType": "translation"}, {"taskType": "tts"}]
    said = (await ask(shelf, task("translation", "hi"), chain[1])).json()
    tasks = [{"taskType": one["taskType"], "config": one["config"][0]} for one in said["pipelineResponseConfig"]]
    body = json.dumps({"pipelineTasks": tasks, "inputData": {"input": [{"source": "a"}]}}).encode()
    key = said["pipelineInferenceAPIEndPoint"]["inferenceApiKey"]
    path = said["pipelineInferenceAPIEndPoint"]["callbackUrl"].removeprefix(shelf.gateway.settings.gateway_address)
    client = await shelf.connect()
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\n{key['name']}: {key['value']}\r\nContent-Length: {len(body)}\r\n\r\n"
    await client.send(head.encode() + body)
    response = await client.receive("POST")
    assert response is not None and response.status == 200, response


@pytest.mark.parametrize(
    ("tasks", "field"),
    [
        ([task("ner", "en")], "pipelineTasks[0].taskType"),
        ([task("asr"), task("poetry")], "pipelineTasks[1].taskType"),
        ([], "pipelineTasks"),
        ([task("asr")] * 9, "pipelineTasks"),
        ([{"config": {}}], "pipelineTasks[0]"),
        ([{"taskType": 5}], "pipelineTasks[0].taskType"),
        ([task("translation", "hi", "ta")], "pipelineTasks[0].config.language"),
        ([task("asr", "nonsense")], "pipelineTasks[0].config.language"),
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["", None], ids=["key", "no key"])
async def test_what_is_not_there_is_a_bad_request(shelf: Market, tasks: Any, field: str, key: str | None) -> None:
    response = await ask(shelf, *tasks, key=key)
    refused = response.json()
    assert (response.status, refused["code"]) == (400, "400 BAD_REQUEST"), refused
    assert refused["message"].startswith(f"{field}: ") and refused["timestamp"]
    assert refused["detail"]["code"] == "INVALID_REQUEST"


async def test_a_stranger_cannot_send_much(shelf: Market) -> None:
    response = await ask(shelf, key=None, body=b" " * 70_000)
    assert (response.status, response.json()["detail"]["code"]) == (413, "BODY_TOO_LARGE")
    response = await ask(shelf, key=None, body=b"{")
    assert (response.status, response.json()["detail"]["code"]) == (400, "MALFORMED_JSON")


async def test_who_names_no_languages_is_asked_for_any_that_is_named(shelf: Market) -> None:
    add(shelf, "any", "speak", languages={"languages": ()})
    add(shelf, "any-pair", "translate", languages={"language_pairs": ()})
    for key in ("", None):
        said = (await ask(shelf, task("tts", "ta"), key=key)).json()["pipelineResponseConfig"]
        assert said[0]["config"] == [config("acme/any", shelf, "ta", **SPEECH)]
        said = (await ask(shelf, task("translation", "ta", "te"), key=key)).json()["pipelineResponseConfig"]
        assert said[0]["config"] == [config("acme/any-pair", shelf, "ta", "te")]
        said = (await ask(shelf, task("tts", "hi"), key=key)).json()["pipelineResponseConfig"]
        assert said[0]["config"] == [config("acme/speak", shelf, "hi", **SPEECH)]


async def test_of_several_the_cheapest_is_named_as_long_as_it_is(shelf: Market) -> None:
    for slug, rupees in (("translate", "0.02"), ("other", "0.01")):
        if slug == "other":
            add(shelf, slug, "translate")
        service = shelf.gateway.directory.services[f"acme/{slug}"]
        price = Price("", "characters", rupees, "0", 0)
        shelf.gateway.directory.put_service(service.id, structs.replace(service, prices=(price,)))
    for key in ("", None):
        assert {one["serviceId"] for one in await _translations(shelf, key)} == {"acme/other"}
    shelf.gateway.directory.put_service("service-other", None)
    for key in ("", None):
        assert {one["serviceId"] for one in await _translations(shelf, key)} == {"acme/translate"}


async def test_a_page_may_ask_when_an_application_lets_it(shelf: Market) -> None:
    origin = "https://shop.example"
    policy = ApplicationPolicy(cors=Cors(origins=(origin,)))
    shelf.gateway.directory.put_application(APP, Application(APP, policy))
    raw = json.dumps({"pipelineTasks": [task("tts")]}).encode()
    for key in ([], [f"ulcaApiKey: {shelf.key}"]):
        lines = [f"POST {CONFIGS} HTTP/1.1", "Host: gateway", f"Origin: {origin}", f"Content-Length: {len(raw)}", *key]
        client = await shelf.connect()
        await client.send("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)
        response = await client.receive("POST")
        assert response is not None and response.status == 200
        assert response.header("access-control-allow-origin") == origin


def test_it_is_the_only_one_of_the_door_that_is_open_to_all() -> None:
    assert [path.decode() for (_, path), operation in OPERATIONS.items() if operation.open_to_all] == [CONFIGS]
