"""The fuzzers, for a few seconds of each test run; `make fuzz` runs them longer."""

from __future__ import annotations

import random
from types import ModuleType

import pytest

from gateway.http.fuzz import http_again, http_answer, http_request, http_stream
from gateway.http.fuzz.engine import run
from gateway.http.wire import Wire


@pytest.mark.parametrize(
    "fuzzer", [http_request, http_again, http_answer, http_stream], ids=["requests", "again", "answers", "streams"]
)
def test_a_few_seconds_of_noise(wire: Wire, fuzzer: ModuleType) -> None:
    assert run(fuzzer.target, wire, fuzzer.SEEDS, seconds=2, seed=random.SystemRandom().randrange(1 << 32)) > 50
