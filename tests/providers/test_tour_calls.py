import json
from collections import Counter

import pytest

from haat.cli import sentences
from haat.cli.sentences import SENTENCES, tour_calls
from haat.language import detect_script
from haat.models.chat import read_request
from haat.models.task import parse_call
from haat.plugins.manager import hosted, hosted_chats, hosted_services

SERVICES, CHATS = hosted_services(), hosted_chats()
CALLS = tour_calls()


def test_there_are_six_hundred_different_calls_to_all_services_of_the_house() -> None:
    assert len(CALLS) >= 600
    assert len({(call.service, json.dumps(call.body)) for call in CALLS}) == len(CALLS)
    assert set(Counter(call.service for call in CALLS)) == {path for path in hosted() if path[:4] in ("aksh", "vani")}


def test_the_calls_are_the_same_every_time() -> None:
    assert tour_calls() == CALLS


def test_every_call_is_proper_and_a_fifth_of_them_are_answered() -> None:
    for number, call in enumerate(CALLS):
        if call.service in CHATS:
            assert call.path == "/chat/completions"
            read_request(CHATS[call.service], json.dumps(call.body).encode())
            continue
        service = SERVICES[call.service]
        items, config = parse_call(service, json.dumps(call.body).encode())
        if number % 5 == 0:
            outputs, units = service.invoke(items, config)
            assert len(outputs) == len(items)
            assert units[service.unit] > 0


def test_each_sentence_is_in_the_script_it_is_filed_under() -> None:
    assert sum(map(len, SENTENCES.values())) >= 60
    for tag, texts in SENTENCES.items():
        assert {detect_script(text) for text in texts} == {tag[-4:]}


def test_services_without_their_engine_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    present = {call.service for call in sentences.tour_calls()}
    assert present == {path for path in hosted() if path.startswith("akshara/")} | {
        "vani/spoken-command",
        "vani/voice-activity",
        "vani/dictation",
    }
